"""The events of all databases, in one order at all nodes, whichever of them appends them.

Every node offers what it sees at the databases; the leader appends it to a stream; every node reads
that and tells its clients.  So what clients hear has one order, and an id to resume from at any
node.  What happens to changes while there is no leader, or no store, is in `pending`.

Why no client that resumes misses an event, or hears one out of order, whatever dies:

- *One order.*  An append names the id that it follows, and is refused if the stream does not end
  there, or if a newer leader has begun.  So each item has one predecessor, whose id it tells; who
  reads, from wherever, notices what is missing, and tells "load anew" in place of it.
- *Nothing is lost with a leader.*  What a leader saw and did not append is pending at all others
  that saw it, since only the stream takes it from there.  Who takes over first reads the stream to
  the end that it has fenced off, then sees at each database all that was there: so what is pending
  then is what the stream has not.  A node that began to follow a database too late for that has not
  `coverage`, and one that cannot ask a database of which the stream shows what it has not seen
  cannot know: these, if nobody else leads, begin by breaking the stream, so that all load anew.
- *Nothing is told twice.*  What the stream shows is pending no more, in whichever order a node sees
  the two; and what a node saw before it began to read is forgotten once that is known to be there.

What is taken for granted: that a server, asked, has told all that any leader was told by it or by
another one before.  Of one server, or of one that is always the leader of its cluster, that holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import orjson

from ovncp.cluster.base import (
    ZERO,
    Conflict,
    Gap,
    Item,
    Store,
    StreamId,
    Unavailable,
    following,
)
from ovncp.cluster.lease import Lease
from ovncp.cluster.metrics import Counts
from ovncp.cluster.pending import Change, Pending
from ovncp.cluster.stream import Reader, following_on

_logger = logging.getLogger("ovncp.cluster.feed")

MARK = "mark"
"""The row of a mark, which is no event, but tells how far the stream has come; see `coverage`."""

_BATCH = 500
_WAIT_S = 2.0
_FAILED_PAUSE_S = 0.25


CatchUp = Callable[[], Awaitable[bool]]
"""Returns when `offer` was called with all that was in a database at the call; false if it cannot
be known whether that is so."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change, and its place in the order: its own id, and that of the event before it."""

    id: StreamId
    previous: StreamId
    change: Change


class Listener(ABC):
    """Who is told of events; both calls return at once."""

    @abstractmethod
    def hear(self, events: Sequence[Event]) -> None:
        """The next events have come."""

    @abstractmethod
    def miss(self, position: StreamId) -> None:
        """Events were lost: load anew what they are about; those after `position` will come."""


class Feed:
    """One node's part in it; its `lead` is work for the leader."""

    def __init__(
        self,
        store: Store,
        name: str,
        n_kept: int,
        counts: Counts,
        clock: Callable[[], float] | None = None,
    ):
        """`n_kept` events can be resumed from, and so many changes may wait for a leader."""
        self.listeners: list[Listener] = []
        self.catch_up: dict[str, CatchUp] = {}
        """By database.  One that raises a ClusterError leaves leading to others."""
        self.whole: Callable[[Change], Change] = lambda change: change
        """Makes a row's latest change tell all of the row, in place of what is other."""
        self.watching: set[asyncio.Event] = set()
        """Set whenever `position` is another."""
        self.has_seen_all = True
        """Whether all changes that no stream has were offered here; see `coverage`."""
        self._store = store
        self._name = f"events:{name}"
        self._n_kept = n_kept
        self._counts = counts
        self._clock = clock or asyncio.get_running_loop().time
        self._pending = Pending(n_kept)
        self._marks: list[Change] = []
        self._reader: Reader | None = None
        self._offered = asyncio.Event()
        self._moved = asyncio.Event()

    @property
    def n_pending(self) -> int:
        """How many changes were seen at the databases, and not in the stream yet."""
        return len(self._pending)

    @property
    def is_reading(self) -> bool:
        """Whether the stream was found, so that all that comes from now on is heard."""
        return self._reader is not None

    @property
    def position(self) -> StreamId:
        """The id of the last event that listeners heard."""
        return self._reader.position if self._reader else ZERO

    @property
    def is_new(self) -> bool:
        """Whether nobody has appended anything yet, as far as this node has read."""
        return self._reader is not None and self.position == ZERO

    def offer(self, changes: Iterable[Change]) -> None:
        """The databases have shown changes, in this order."""
        now = self._clock()
        for change in changes:
            self._pending.offer(change, now)
        self._offered.set()

    @property
    def n_seen(self) -> int:
        """How many changes have been pending here so far; see `cover`."""
        return self._pending.n_seen

    def cover(self, n_seen: int) -> None:
        """All that was missing here is in the stream; so are the first `n_seen` that were seen."""
        self._pending.forget(n_seen)
        self.has_seen_all = True

    def mark(self, name: str) -> None:
        """Append a mark behind all that was offered, when this node leads."""
        self._marks.append(Change(MARK, name, b""))
        self._offered.set()

    async def since(self, after: StreamId) -> list[Event]:
        """The next events after one, none if this node has heard no further ones.

        Waits a little if it has not heard that one yet, as a client may come from another node.
        Raises Gap if some are gone, Unavailable.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_S):
                await self._reach(after)
        if after == self.position:
            return []
        items = await self._store.read(self._name, after, _BATCH, 0)
        heard = [item for item in items if item.id <= self.position]
        if not heard:
            raise Gap(f"events after {after} are gone")
        return [_event(item) for item in following_on(heard, after, self._name)]

    async def _reach(self, id: StreamId) -> None:
        """Return when this node has read so far."""
        while self._reader is None or self._reader.position < id:
            await self._moved.wait()

    async def run(self) -> None:
        """Read the stream, from its present end, for ever."""
        while True:
            try:
                await self._read_on()
            except Unavailable:
                await asyncio.sleep(_FAILED_PAUSE_S)

    async def _read_on(self) -> None:
        if self._reader is None:
            last = await self._store.last(self._name)
            self._reader = Reader(self._store, self._name, last)
            self._move()
        try:
            items = await self._reader.next(_WAIT_S, _BATCH)
        except Gap as gap:
            _logger.warning("events are lost, clients have to load anew: %s", gap)
            await self._start_over(self._reader)
            return
        self._hear([_event(item) for item in items])

    async def _start_over(self, reader: Reader) -> None:
        self._settle(map(_event, await reader.restart()))
        self._counts.event_gaps += 1
        self._move()
        for listener in self.listeners:
            listener.miss(reader.position)

    def _hear(self, events: list[Event]) -> None:
        self._settle(events)
        self._counts.events_read += len(events)
        self._move()
        if events:
            for listener in self.listeners:
                listener.hear(events)

    def _settle(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.change.row != MARK:
                self._pending.settle(event.change.row, event.change.version)

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
        for event in self.watching:
            event.set()

    async def lead(self, lease: Lease) -> None:
        """Append what is pending, and what comes: work of the leader.

        Raises Conflict if the stream has lost what it had, Fenced if there is a newer leader.
        """
        after = await self._begin(lease)
        self._pending.take_over(self.whole)
        self.has_seen_all = True
        try:
            while True:
                self._offered.clear()
                while changes := self._unsent():
                    after = await self._append(lease, after, changes)
                await self._offered.wait()
        finally:
            self._pending.stand_back()

    def _unsent(self) -> list[Change]:
        changes = self._pending.unsent(_BATCH)
        if len(changes) < _BATCH:
            changes += self._marks
            self._marks.clear()
        return changes

    async def _begin(self, lease: Lease) -> StreamId:
        """Fence off earlier leaders, and see all that they appended; where the stream ends."""
        await self._reach(ZERO)
        last = await self._store.begin(self._name, lease.token)
        is_whole = self.position <= last and not self._pending.has_lost
        is_whole &= self.has_seen_all or last == ZERO
        if self.position <= last:
            await self._reach(last)
        for database, caught_up in self.catch_up.items():
            if not await caught_up() and self._pending.is_ahead(database):
                is_whole = False
        if is_whole:
            return last
        _logger.warning("events are lost: the stream ends at %s", last)
        return await self._store.begin(self._name, lease.token, broken=True)

    async def _append(self, lease: Lease, after: StreamId, changes: list[Change]) -> StreamId:
        items = [_encode(change) for change in changes]
        while True:
            lease.check()
            try:
                last = await self._store.append(self._name, lease.token, after, items, self._n_kept)
            except Unavailable:
                await asyncio.sleep(_FAILED_PAUSE_S)
                continue
            except Conflict as conflict:
                last = conflict.last
                # An earlier try may have happened after all.
                if last != following(lease.token, after, len(items)):
                    raise
            self._pending.mark_sent(changes)
            self._counts.events_appended += len(changes)
            return last


def _encode(change: Change) -> bytes:
    return orjson.dumps([change.row, change.version]) + b"\n" + change.data


def _event(item: Item) -> Event:
    head, _, data = item.data.partition(b"\n")
    row, version = orjson.loads(head)
    return Event(item.id, item.previous, Change(row, version, data))
