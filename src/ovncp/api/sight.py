"""Who has written sees it on whichever node is asked next.

A node notes, where all nodes look, that somebody wrote, and after which transaction. A node that is
asked by them soon after makes sure that it has come as far: it has seen that transaction, or the
server has told it all that was committed before the question.
"""

import asyncio
import logging
from collections import OrderedDict

from ovncp.api.problem import Problem
from ovncp.cluster.base import Store, Unavailable
from ovncp.ovn.barrier import Barrier
from ovncp.ovn.replica import Replica
from ovncp.ovsdb.atom import ZERO_UUID

_LOG = logging.getLogger("ovncp.api")

FRESH_SECONDS = 30.0
"""For how long it is noted that somebody wrote: longer than any node lags."""

_PATIENCE_SECONDS = 5.0
_MOST_KNOWN = 10_000


class Sight:
    """What the principals who ask this node, `node_id`, have to see of `replica`."""

    def __init__(self, replica: Replica, barrier: Barrier, store: Store, node_id: str) -> None:
        self._replica = replica
        self._barrier = barrier
        self._store = store
        self._node_id = node_id
        self._n_writes = 0
        self._settled: OrderedDict[str, bytes] = OrderedDict()

    async def wrote(self, principal_id: str) -> None:
        """Note that somebody wrote, and that it is here."""
        # Where the server gives no ids, it is the number that tells one write from another.
        self._n_writes += 1
        mark = f"{self._node_id} {self._n_writes} {self._replica.last_id}".encode()
        try:
            await self._store.put(_key(principal_id), mark, FRESH_SECONDS)
        except Unavailable as error:
            _LOG.warning("other nodes are not told that %s wrote: %s", principal_id, error)

    async def catch_up(self, principal_id: str) -> None:
        """Return when all that somebody wrote is here. Raises SessionLost, Problem."""
        try:
            mark = await self._store.get(_key(principal_id))
        except Unavailable:
            await self._barrier.server()  # there may be something
            return
        if mark is None or self._settled.get(principal_id) == mark:
            return
        node_id, _, transaction_id = mark.decode().rsplit(" ", 2)
        if node_id != self._node_id and not self._replica.has_seen(transaction_id):
            await self._barrier.server()
            await self._see(transaction_id)
        self._settled[principal_id] = mark
        if len(self._settled) > _MOST_KNOWN:
            self._settled.popitem(last=False)

    async def _see(self, transaction_id: str) -> None:
        """Wait for a transaction that another server of a cluster may have told its node first."""
        if transaction_id == ZERO_UUID:
            return  # the server gives none, and is the only one
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not self._replica.has_seen(transaction_id):
                    await self._replica.changed()
        except TimeoutError as error:
            text = "this node does not see yet what was written on another one"
            raise Problem("database-unreachable", text, headers={"Retry-After": "1"}) from error


def _key(principal_id: str) -> str:
    return f"wrote:{principal_id}"
