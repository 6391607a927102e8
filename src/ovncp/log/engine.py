"""What is the same for every engine that servers share: turns, lost answers, followers, leases.

The *head* is the next free index, and a version that changes with every write of it.  A change is
proposed on condition that the head is as this handle knows it, so any two changes that overlap
exclude each other, whoever proposes them.

When the answer to a proposal is lost, the change may have been made, or be made yet, when we have
given up long since.  So it is *fenced*: the head is written as it is, on the same condition.  If
that succeeds, its version is another one, and the lost change can never come to pass; if not, what
is stored at its index says whose that is.  Until this is answered the outcome is unknown, and
whatever is asked of the handle next settles it first.  That is how reading tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
from abc import abstractmethod
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from ovncp.log.base import (
    Chunks,
    Compacted,
    Conflict,
    Corrupt,
    Entry,
    Lease,
    LeaseLost,
    Log,
    LogError,
    OutcomeUnknown,
)
from ovncp.log.engine_status import EngineStatus
from ovncp.log.growth import Growth
from ovncp.log.place import Place
from ovncp.log.timed_lease import TimedLease
from ovncp.log.turns import Turns

_logger = logging.getLogger("ovncp.log")

T = TypeVar("T")

LOG, LEASES = "log", "leases"
"""What a hint may be about."""

_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.2
_FIRST_PAGE = 16
_LARGEST_PAGE = 1024
_PAGE_BYTES = 4 << 20


class EngineError(LogError):
    """The engine refused, or was not there: an error that is not the database's."""

    tag = "cluster error"


class Unanswered(EngineError):
    """There was no answer, or one that leaves open whether the request was, or will be, done."""


@dataclass(frozen=True, slots=True)
class Head:
    """The next free index, and a version that grows with every write of it."""

    next_index: int
    version: int


@dataclass(frozen=True, slots=True)
class Change:
    """What takes the indexes from `index` on before `next_index`, while `guards` are held."""

    index: int
    next_index: int
    guards: Sequence[TimedLease]


C = TypeVar("C", bound=Change)


@dataclass(frozen=True, slots=True)
class Page:
    """What one read found: the snapshot's index, the head, and entries in `n_units` of storage."""

    base: int
    head: Head
    entries: list[Entry]
    n_units: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of the engine's storage: used, allocated for it, and allowed (None: no limit known)."""

    used: int
    allocated: int
    quota: int | None


@dataclass(frozen=True, slots=True)
class Holding:
    """A lease that is held: its fencing token, and whose it is, as the engine names holders."""

    name: str
    token: int
    holder: str


class EngineLog(Log, Generic[C]):
    """A handle to a log on an engine; `C` is what the engine needs to know of a change."""

    def __init__(self, name: str, head: Head, timeout_ms: int):
        """`name` is for messages; an operation is tried for `timeout_ms` milliseconds."""
        self.name = name
        self.writer = secrets.token_hex(16)
        self._head = head
        self._base = 0
        self._timeout_s = timeout_ms / 1000
        self._turn = asyncio.Lock()
        self._one_snapshot = asyncio.Lock()
        self._unsettled: tuple[C, Head] | None = None  # and the head that it was proposed with
        self._growth = Growth()
        self.turns = Turns(self.writer, self._tell_turn)
        self._leases_changed = asyncio.Event()
        self._held: set[TimedLease] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._listening = asyncio.create_task(self._listen())

    # What an engine has to do.

    @abstractmethod
    async def _propose(self, change: C, known: Head, attempt: int) -> tuple[bool, Head]:
        """Make `change` if the head is `known`; whether it was made, and the head as it is then.

        Asks once; each further `attempt` from 0 on may take more time.

        Raises:
            Unanswered: it may have been made, or be made yet.
            LogError: it was not, and never will be.
        """

    @abstractmethod
    async def _fence(self, change: C, known: Head, attempt: int) -> tuple[bool | None, Head]:
        """See to it that `change`, proposed with `known`, is not made any more.

        Returns whether it was made, None if that cannot be told any more, and the head.
        Asks once, and may be repeated.  Raises LogError.
        """

    @abstractmethod
    def _batch(
        self, index: int, entries: Sequence[bytes], guards: Sequence[TimedLease]
    ) -> AbstractAsyncContextManager[C]:
        """The change that appends `entries` at `index`; what it needs is there until the end."""

    @abstractmethod
    def _conversion(
        self, index: int, schema: bytes, data: Chunks
    ) -> AbstractAsyncContextManager[C]:
        """The change that takes `index` and leaves a snapshot there; as `_batch`."""

    @abstractmethod
    async def _read_head(self) -> Head:
        """The head as it is now.  Raises LogError."""

    @abstractmethod
    async def _page(self, from_index: int, limit: int) -> Page:
        """Entries from `from_index` on, from about `limit` units of storage, as of one moment.

        Those of the last unit are given whole.  None if `from_index` is in the snapshot.
        """

    async def _at_hand(self, from_index: int) -> list[Entry]:
        """The first entries from `from_index` on, if they came with a hint.  Raises LogError."""
        return []

    @abstractmethod
    def _hints(self) -> AsyncIterator[set[str]]:
        """What has changed: at first `LOG` and `LEASES`.  Raises LogError at the end.

        Also tells `turns` who has asked and who has appended, in the order of the log.
        """

    @abstractmethod
    async def _tell_turn(self, patience_s: float | None) -> None:
        """See `Turns`.  Raises LogError."""

    @abstractmethod
    async def _take(self, name: str, ttl_ms: int, is_theft: bool) -> TimedLease | None:
        """The lease `name`, if nobody holds it nor waits for it.  Raises LogError.

        For a thief that is no obstacle, and nobody else gets it in between; None means again.
        """

    @abstractmethod
    def _place(self, name: str, ttl_ms: int) -> Place:
        """A place in the line for the lease `name`, which is not entered yet."""

    @abstractmethod
    async def usage(self) -> Usage:
        """How full the engine is.  Raises LogError."""

    @abstractmethod
    async def status(self) -> EngineStatus:
        """What the engine says of itself.  Raises LogError."""

    @abstractmethod
    async def make_room(self) -> None:
        """Do what the engine does not do by itself to make use of what `compact` left free.

        Also when it refuses writes for lack of room, and then with all that goes without writing.
        By one handle at a time, unless writes are refused anyway.  Raises LogError.
        """

    @abstractmethod
    async def post(self, name: str, text: bytes, ttl_ms: int) -> None:
        """Show a short `text` under `name` to all handles of the log, for `ttl_ms` milliseconds.

        It takes the place of what this handle showed there before.  Raises LogError.
        """

    @abstractmethod
    async def withdraw(self, name: str) -> None:
        """Show no more what this handle shows under `name`, if anything.  Raises LogError."""

    @abstractmethod
    async def notices(self) -> dict[str, bytes]:
        """What handles show now, by name.  Raises LogError."""

    @abstractmethod
    async def leases(self) -> list[Holding]:
        """The leases that anybody holds now, by name.  Raises LogError."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Drop the connections to the engine."""

    # Appending.

    @property
    def next_index(self) -> int:
        return self._head.next_index

    @property
    def snapshot_index(self) -> int:
        """The snapshot's index as far as this handle knows; others may have saved later ones."""
        return self._base

    async def find_snapshot(self) -> int:
        """The snapshot's index as it is now.  Raises LogError."""
        return (await self._next_page(self.next_index, 1)).base

    async def append(
        self, index: int, entries: Sequence[bytes], guards: Sequence[Lease] = ()
    ) -> None:
        self._check_open()
        held = [lease for lease in guards if isinstance(lease, TimedLease) and lease.is_held]
        if len(held) < len(guards):
            raise _lease_lost(self.name, guards)
        async with self._turn:
            await self._expect(index)
            if entries:
                async with self._batch(index, entries, held) as change:
                    await self._make(change)

    async def confirm(self, index: int) -> None:
        self._check_open()
        if self._unsettled is not None:
            async with self._turn:
                await self._settle_first()
        head = await self._read_head()
        self._learn(head)
        self._check_next(index, head)

    async def _expect(self, index: int) -> None:
        """Raise Conflict unless `index` is the next free one; for the one whose turn it is."""
        self._check_open()
        await self._settle_first()
        if index > self.next_index:
            self._learn(await self._read_head())
        self._check_next(index, self._head)

    def _check_next(self, index: int, head: Head) -> None:
        if index != head.next_index:
            raise Conflict(f"{self.name}: index {index} is not the next one, {head.next_index}")

    async def _make(self, change: C) -> None:
        """Make `change`, as far as there is time; for the one whose turn it is."""
        deadline = self._deadline()
        attempt = 0
        while True:
            known = self._head
            # Somebody may have read a later head while the change was being made ready.
            if known.next_index != change.index:
                raise Conflict(f"{self.name}: index {change.index} is not the next one any more")
            try:
                made, head = await self._propose(change, known, attempt)
            except asyncio.CancelledError:
                # Whoever comes next finds out, as after an answer that was lost.
                self._unsettled = change, known
                raise
            except Unanswered as error:
                self._unsettled = change, known
                made = await self._settle(deadline)
                if not made and not await pause(attempt, deadline):
                    raise EngineError(error.details) from error
                attempt += 1
            else:
                self._learn(head)
                if not made and head == known:
                    if change.guards:
                        raise _lease_lost(self.name, change.guards)
                    raise EngineError(f"{self.name}: what was staged for {change.index} is gone")
            if made:
                self.turns.appended()
                return self._growth.notify()

    async def _settle(self, deadline: float) -> bool:
        """Whether the unsettled change was made; OutcomeUnknown if that cannot be found out."""
        assert self._unsettled is not None
        change, known = self._unsettled
        attempt = 0
        while True:
            try:
                made, head = await self._fence(change, known, attempt)
            except LogError as error:
                if not isinstance(error, Unanswered) or not await pause(attempt, deadline):
                    raise OutcomeUnknown(
                        f"{self.name}: whether entry {change.index} was stored is not known yet: "
                        f"{error.details}"
                    ) from error
            else:
                break
            attempt += 1
        self._unsettled = None
        self._learn(head)
        if made is None:
            raise OutcomeUnknown(f"{self.name}: entry {change.index} is in the snapshot already")
        return made

    async def _settle_first(self) -> None:
        """Settle what an earlier append left open; for the one whose turn it is."""
        if self._unsettled is not None:
            try:
                if await self._settle(self._deadline()):
                    self._growth.notify()
            except OutcomeUnknown as error:
                raise EngineError(error.details) from error

    def _learn(self, head: Head) -> None:
        if head.version > self._head.version:
            self._head = head

    async def convert(self, index: int, schema: bytes, data: Chunks) -> None:
        self._check_open()
        async with self._turn:
            await self._expect(index)
        async with self._conversion(index, schema, data) as change, self._turn:
            await self._expect(change.index)
            await self._make(change)

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # Reading.

    async def read(self, from_index: int) -> AsyncIterator[list[Entry]]:
        end = math.inf  # and what comes later is not waited for
        limit = _FIRST_PAGE
        while from_index < end:
            page = await self._next_page(from_index, limit)
            end = min(end, page.head.next_index)
            if from_index <= page.base:
                raise Compacted(f"{self.name}: entry {from_index} is part of the snapshot")
            if from_index >= end:
                return
            if not page.entries or page.entries[0].index != from_index:
                raise Corrupt(f"{self.name}: entry {from_index} is missing")
            yield page.entries
            from_index = page.entries[-1].index + 1
            if from_index >= end:
                return
            n_bytes = sum(len(entry.data) for entry in page.entries)
            limit = max(1, min(_LARGEST_PAGE, _PAGE_BYTES * page.n_units // n_bytes))

    async def read_known(self, from_index: int) -> AsyncIterator[list[Entry]]:
        """As `read`, but perhaps no further than the last entry that is known of here.

        What came with a hint is not asked for again.
        """
        while from_index < self.next_index:
            self._check_open()
            # What is not settled is to be settled first, which `read` does.
            entries = [] if self._unsettled is not None else await self._at_hand(from_index)
            if not entries:
                async for batch in self.read(from_index):
                    yield batch
                return
            yield entries
            from_index = entries[-1].index + 1

    async def _next_page(self, from_index: int, limit: int) -> Page:
        self._check_open()
        if self._unsettled is not None:
            async with self._turn:
                await self._settle_first()
        page = await self._page(from_index, limit)
        self._check_open()
        self._learn(page.head)
        self._base = max(self._base, page.base)
        return page

    async def leave_out(self, index: int) -> str:
        """See `Log.leave_out`; without its snapshot the database would be all but empty."""
        if index <= await self.find_snapshot():
            raise Corrupt(f"{self.name}: the snapshot, as of {index}, cannot be applied")
        return await super().leave_out(index)

    def follow(self, from_index: int) -> AsyncIterator[list[Entry]]:
        """See `Log.follow`; LogError when the engine is out of reach for longer than its time-out.

        Whoever wants to go on then calls it again, from where it was.
        """
        return self._growth.follow(self.read, from_index)

    async def grown(self, index: int) -> None:
        await self._growth.until(lambda: self.next_index > index)

    async def _listen(self) -> None:
        """Wake those who wait, for ever; they find out by reading what has changed."""
        attempt = 0
        while True:
            try:
                async for changed in self._hints():
                    attempt = 0
                    self._wake(changed)
            except LogError as error:
                # Again and again while the engine is away, which whoever needs it notes.
                level = logging.DEBUG if attempt else logging.INFO
                _logger.log(level, "%s: %s", self.name, error)
            self.turns.forget()
            self._wake({LOG, LEASES})
            await pause(attempt)
            attempt += 1

    def _wake(self, changed: set[str]) -> None:
        if LOG in changed:
            self._growth.notify()
        if LEASES in changed:
            leases_changed, self._leases_changed = self._leases_changed, asyncio.Event()
            leases_changed.set()
            if self._held and not self._closed:
                self._in_background(self._renew_held())

    # Leases.

    async def acquire(self, name: str, ttl_ms: int) -> Lease:
        place = await self.line_up(name, ttl_ms)
        try:
            return await self.come_first(place)
        except BaseException:
            self._in_background(_leave(place))
            raise

    async def line_up(self, name: str, ttl_ms: int, *, in_front: bool = False) -> Place:
        """A place in the line for the lease `name`, at its end or `in_front` of it.

        Whoever lines up once this has returned comes after it.  The place has the lease already if
        that was to be had; else it is for `come_first`.  Raises LogError.
        """
        self._check_open()
        place = self._place(name, ttl_ms)
        try:
            await place.enter(in_front)
        except BaseException:
            self._in_background(_leave(place))
            raise
        self._hold(place.lease)
        return place

    async def come_first(self, place: Place) -> TimedLease:
        """Return the lease when it is the turn of `place`; `place.leave` is to follow if cancelled.

        Raises:
            LeaseLost: the place is gone, as the engine was out of reach for too long.
            LogError: the engine is out of reach; to be called again.
        """
        while place.lease is None:
            self._check_open()
            changed = self._leases_changed  # Before asking, so that a change meanwhile is not lost.
            delay_s = await place.advance()
            if place.lease is None:
                # Not wait_for, which may swallow a cancellation.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await changed.wait()
        self._hold(place.lease)
        return place.lease

    async def try_acquire(self, name: str, ttl_ms: int) -> Lease | None:
        self._check_open()
        return await self._try_take(name, ttl_ms, False)

    async def _try_take(self, name: str, ttl_ms: int, is_theft: bool) -> TimedLease | None:
        """As `_take`, but what is taken when nobody waits for it any more is given back."""
        taking = self._in_background(self._take(name, ttl_ms, is_theft))
        try:
            taken = await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._in_background(_release_if_taken(taking))
            raise
        self._hold(taken)
        return taken

    def _hold(self, lease: TimedLease | None) -> None:
        """See to it that a theft of `lease` is noticed."""
        if lease is not None:
            self._held = {held for held in self._held if held.is_held} | {lease}

    async def seize(self, name: str, ttl_ms: int) -> TimedLease:
        while True:
            self._check_open()
            taken = await self._try_take(name, ttl_ms, True)
            if taken is not None:
                return taken

    async def _renew_held(self) -> None:
        """Find out whether somebody has taken a lease from us."""
        for lease in [lease for lease in self._held if lease.is_held]:
            with contextlib.suppress(LogError):
                await lease.renew()

    # The end.

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._listening.cancel()
            self._growth.close()
            self._wake({LEASES})
            await asyncio.gather(*(lease.release() for lease in self._held))
        async with self._one_snapshot, self._turn:
            pass  # Those who had begun are through.
        await asyncio.gather(self._listening, *self._background, return_exceptions=True)
        await self._disconnect()

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"{self.name}: the log is closed")

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout_s


def _lease_lost(name: str, guards: Sequence[Lease]) -> LeaseLost:
    names = ", ".join(sorted(lease.name for lease in guards))
    return LeaseLost(f"{name}: one of these leases is lost: {names}")


def entries_in(body: bytes, index: int, own: bool) -> list[Entry]:
    """The entries of a batch that begins at `index`: a line of `body` each."""
    return [Entry(number, data, own) for number, data in enumerate(body.split(b"\n"), index)]


SharedLog: TypeAlias = EngineLog[Any]
"""A log on an engine, whatever that needs to know of a change."""


async def _release_if_taken(taking: asyncio.Task[TimedLease | None]) -> None:
    await asyncio.wait([taking])
    if taking.exception() is None and (lease := taking.result()) is not None:
        await lease.release()


async def _leave(place: Place) -> None:
    """Leave `place`, which is gone a while later in any case."""
    with contextlib.suppress(LogError):
        await place.leave()


async def pause(attempt: int, deadline: float = math.inf) -> bool:
    """Wait before the attempt after `attempt`, each time longer; false if `deadline` has passed.

    `deadline` is on the event loop's clock, in seconds.
    """
    if asyncio.get_running_loop().time() >= deadline:
        return False
    await asyncio.sleep(min(_PAUSE_S * 2 ** min(attempt, 10), _LONGEST_PAUSE_S))
    return True
