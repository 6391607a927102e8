"""Whether a node has seen all changes that are not in the stream: as the leader it would lose none.

One that has just begun to follow a database does not know what the leader had seen by then and had
not appended.  Nor does one that has just begun to read the stream know which of the changes that it
has seen were appended before.  So it asks the leader for a mark in the stream, behind all that was
in the databases when it asked.  Once it has read the mark, nothing is missing between the stream
and what it has seen itself, and what it had seen when it asked is in the stream.  Until then it
leaves leading to others who have; if there are none, as after all nodes were away, it leads, and
tells that events are lost.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence

from ovncp.cluster.base import ClusterError, StreamId, Unavailable
from ovncp.cluster.feed import MARK, Event, Feed, Listener
from ovncp.cluster.leadership import Leadership
from ovncp.cluster.lease import Lease
from ovncp.cluster.mail import Body, Mail

_logger = logging.getLogger("ovncp.cluster.coverage")

_ASK_AGAIN_S = 1.0


class Coverage(Listener):
    """One node's part in it: it asks, and it answers as the leader."""

    def __init__(self, feed: Feed, leadership: Leadership, mail: Mail, node_id: str):
        self._feed = feed
        self._leadership = leadership
        self._mail = mail
        self._node_id = node_id
        self.on_covered: list[Callable[[], None]] = []
        """Called when this node has seen all, which it had not."""
        self._databases: set[str] = set()
        self._wanted: str | None = None
        self._n_seen = 0
        self._wants = asyncio.Event()
        self._marking: set[asyncio.Task[None]] = set()
        feed.has_seen_all = False
        feed.listeners.append(self)
        leadership.is_ready = lambda: feed.has_seen_all or feed.is_new
        mail.on(MARK, self._asked)

    def begin(self, database: str) -> None:
        """The node follows a database from now on, which may have changed unseen before."""
        self._databases.add(database)
        self._feed.has_seen_all = False
        self._want()

    def _want(self) -> None:
        """Ask for a mark behind all that is there by now."""
        self._wanted = None
        self._wants.set()

    async def run(self) -> None:
        """Ask for marks as they are wanted, for ever."""
        while True:
            await self._wants.wait()
            await self._ask()
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _ask(self) -> None:
        leader = self._leadership.leader  # which may be this node
        if leader is None or not self._feed.is_reading:
            return
        if self._wanted is None:
            self._wanted, self._n_seen = self._new_mark(), self._feed.n_seen
        try:
            node_id = leader.holder.partition("/")[0]
            body = {"mark": self._wanted, "databases": sorted(self._databases)}
            await self._mail.send(node_id, MARK, body)
        except Unavailable as error:
            _logger.info("the leader cannot be asked for a mark: %s", error)

    async def lead(self, lease: Lease) -> None:
        """Append what is to be appended: work of the leader, as `Feed.lead`.

        The first is a mark, so that there is an id before the first event of a new stream.
        """
        self._feed.mark(self._new_mark())
        await self._feed.lead(lease)

    def _new_mark(self) -> str:
        return f"{self._node_id}/{secrets.token_hex(8)}"

    def hear(self, events: Sequence[Event]) -> None:
        """See `Listener.hear`."""
        for event in events:
            if event.change.row == MARK and event.change.version == self._wanted:
                self._wants.clear()
                self._wanted = None
                self._feed.cover(self._n_seen)
                for tell in self.on_covered:
                    tell()

    def miss(self, position: StreamId) -> None:
        """See `Listener.miss`: whoever leads finds out, by a mark, that it has to begin anew.

        What the others have seen may be among what they did not read.
        """
        if self._leadership.is_leader:
            self._feed.mark(self._new_mark())
        else:
            self._want()

    def _asked(self, body: Body) -> None:
        task = asyncio.create_task(self._mark(body["mark"], body["databases"]))
        self._marking.add(task)
        task.add_done_callback(self._marking.discard)

    async def _mark(self, mark: str, databases: Sequence[str]) -> None:
        """Append a mark behind all that was in the databases when it was asked for."""
        try:
            for database in databases:
                if not await self._feed.catch_up[database]():
                    return
        except ClusterError as error:
            _logger.info("no mark is given: %s", error)
            return
        if self._leadership.is_leader:
            self._feed.mark(mark)
