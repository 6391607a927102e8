"""What the databases show, offered to the nodes' feed of events.

Every node offers all that it sees; the feed sees to it that each change is told once, in one order,
and that none is lost when another node takes over from the leader.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from functools import partial

import orjson

from ovncp.cluster.base import ClusterError
from ovncp.cluster.feed import Event
from ovncp.cluster.node import Node
from ovncp.cluster.pending import Change as Offered
from ovncp.ovn import change_events
from ovncp.ovn.change_events import SHORT, Head, Told
from ovncp.ovn.owners import Owners
from ovncp.ovn.replica import Replica
from ovncp.ovn.session import SessionLost
from ovncp.ovsdb.row import Change

_LOG = logging.getLogger("ovncp.api.events")

_PATIENCE_SECONDS = 5.0


class Behind(ClusterError):
    """This node cannot make sure that it sees what the Northbound has."""


class Changes:
    """The changes of `nb` and `sb`, as `node` sees them."""

    def __init__(self, nb: Replica, sb: Replica, node: Node) -> None:
        self._node = node
        self._nb, self._sb = nb, sb
        self._owners = Owners(nb, sb)
        self._filled: set[str] = set()
        for replica in (nb, sb):
            replica.listeners.append(partial(self._offer, replica))
            replica.replaced.append(partial(self._replaced, replica))
            node.feed.catch_up[SHORT[replica.name]] = partial(self._catch_up, replica)
        node.feed.whole = self._whole

    def _offer(self, replica: Replica, changes: Sequence[Change]) -> None:
        at = time.time()
        told = (
            change_events.of_change(replica.name, replica.rows[c.table.name], c, owners, at)
            for c, owners in zip(changes, self._owners.of(replica, changes), strict=True)
        )
        self._node.feed.offer([_offered(each) for each in told if each is not None])

    def _replaced(self, replica: Replica) -> None:
        """All rows are others: nobody here knows what has changed from the ones to the others."""
        self._node.coverage.begin(SHORT[replica.name])
        if replica.name in self._filled:
            schema = orjson.dumps(replica.database.schema.to_json())
            version = hashlib.blake2b(schema, digest_size=12).hexdigest()
            reload = change_events.of_reload(replica.name, version, time.time())
            self._node.feed.offer([_offered(reload)])
        self._filled.add(replica.name)

    async def _catch_up(self, replica: Replica) -> bool:
        """Return when all is offered that the server of `replica` had; false if it is unknown.

        The Southbound may be away for longer than the Northbound's events can wait. Raises Behind.
        """
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await replica.transact([])
        except (TimeoutError, SessionLost) as error:
            if replica is self._nb:
                raise Behind(f"{replica.name} cannot be asked: {error}") from error
            _LOG.warning("%s cannot be asked: %s", replica.name, error)
            return False
        return True

    def _whole(self, offered: Offered) -> Offered:
        """The latest change of a row, as an `insert` of what the row is by now if it is there."""
        database, _, place = offered.row.partition("/")
        table, _, uuid = place.partition("/")
        replica = self._nb if database == SHORT[self._nb.name] else self._sb
        rows = replica.rows.get(table)
        row = None if rows is None else rows.get(uuid)
        if rows is None or row is None:
            return offered
        change = Change(rows.table, row, None, row.values)
        (owners,) = self._owners.of(replica, [change])
        told = change_events.of_change(replica.name, rows, change, owners, time.time())
        return offered if told is None else _offered(told)


def _offered(told: Told) -> Offered:
    return Offered(told.row, told.version, told.head + b"\n" + told.body)


_NO_HEAD = Head("", "", None, "", "", (), 0.0)


def read(event: Event) -> tuple[Head, bytes]:
    """What a filter has to know of an event, and its body, which is b"" for a mark."""
    head, newline, body = event.change.data.partition(b"\n")
    return (Head(*orjson.loads(head)), body) if newline else (_NO_HEAD, b"")
