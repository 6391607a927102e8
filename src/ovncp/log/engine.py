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
from typing import Any, Generic, TypeVar

from ovncp.log.base import (
    Chunks,
    Compacted,
    Conflict,
    Corrupt,
    Entry,
    Lease,
    Log,
    LogError,
    OutcomeUnknown,
)
from ovncp.log.growth import Growth
from ovncp.log.timed_lease import TimedLease

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
    """What takes the indexes from `index` on before `next_index`."""

    index: int
    next_index: int


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


class EngineLog(Log, Generic[C]):
    """A handle to a log on an engine; `C` is what the engine needs to know of a change."""

    def __init__(self, name: str, head: Head, timeout_ms: int):
        """`name` is for messages; an operation is tried for `timeout_ms` milliseconds."""
        self.name = name
        self.writer = secrets.token_hex(16)
        self._head = head
        self._timeout_s = timeout_ms / 1000
        self._turn = asyncio.Lock()
        self._one_snapshot = asyncio.Lock()
        self._unsettled: tuple[C, Head] | None = None  # and the head that it was proposed with
        self._growth = Growth()
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
    def _batch(self, index: int, entries: Sequence[bytes]) -> AbstractAsyncContextManager[C]:
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

    @abstractmethod
    def _hints(self) -> AsyncIterator[set[str]]:
        """What has changed, of `LOG` and `LEASES`: both at first.  Raises LogError at the end."""

    @abstractmethod
    async def _take(self, name: str, ttl_ms: int) -> TimedLease | float:
        """The lease `name`, or in how many seconds at the latest to try again.  Raises LogError."""

    @abstractmethod
    async def usage(self) -> Usage:
        """How full the engine is.  Raises LogError."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Drop the connections to the engine."""

    # Appending.

    @property
    def next_index(self) -> int:
        return self._head.next_index

    async def append(self, index: int, entries: Sequence[bytes]) -> None:
        self._check_open()
        await self._unbroken(self._append(index, entries))

    async def _append(self, index: int, entries: Sequence[bytes]) -> None:
        async with self._turn:
            await self._expect(index)
            if entries:
                async with self._batch(index, entries) as change:
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
            try:
                made, head = await self._propose(change, known, attempt)
            except Unanswered as error:
                self._unsettled = change, known
                made = await self._settle(deadline)
                if not made and not await pause(attempt, deadline):
                    raise EngineError(error.details) from error
                attempt += 1
            else:
                self._learn(head)
                if not made and head == known:
                    raise EngineError(f"{self.name}: what was staged for {change.index} is gone")
            if made:
                return self._growth.notify()
            if self.next_index != change.index:
                raise Conflict(f"{self.name}: index {change.index} is not the next one any more")

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
                        f"{error.details}",
                        tag=error.tag,
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
        async with self._conversion(index, schema, data) as change:
            await self._unbroken(self._convert(change))

    async def _convert(self, change: C) -> None:
        async with self._turn:
            await self._expect(change.index)
            await self._make(change)

    async def _unbroken(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which goes on to its end when whoever waits for it is cancelled."""
        return await asyncio.shield(self._in_background(work))

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # Reading.

    async def read(self, from_index: int) -> AsyncIterator[list[Entry]]:
        end = 0
        limit = _FIRST_PAGE
        while True:
            page = await self._next_page(from_index, limit)
            end = end or page.head.next_index
            if from_index <= page.base:
                raise Compacted(f"{self.name}: entry {from_index} is part of the snapshot")
            if from_index >= end:
                return
            if not page.entries or page.entries[0].index != from_index:
                raise Corrupt(f"{self.name}: entry {from_index} is missing")
            yield page.entries
            from_index = page.entries[-1].index + 1
            n_bytes = sum(len(entry.data) for entry in page.entries)
            limit = max(1, min(_LARGEST_PAGE, _PAGE_BYTES * page.n_units // n_bytes))

    async def _next_page(self, from_index: int, limit: int) -> Page:
        self._check_open()
        if self._unsettled is not None:
            async with self._turn:
                await self._settle_first()
        page = await self._page(from_index, limit)
        self._check_open()
        self._learn(page.head)
        return page

    def follow(self, from_index: int) -> AsyncIterator[list[Entry]]:
        """See `Log.follow`; LogError when the engine is out of reach for longer than its time-out.

        Whoever wants to go on then calls it again, from where it was.
        """
        return self._growth.follow(self.read, from_index)

    async def _listen(self) -> None:
        """Wake those who wait, for ever; they find out by reading what has changed."""
        attempt = 0
        while True:
            try:
                async for changed in self._hints():
                    attempt = 0
                    self._wake(changed)
            except LogError as error:
                _logger.info("%s: %s", self.name, error)
            self._wake({LOG, LEASES})
            await pause(attempt)
            attempt += 1

    def _wake(self, changed: set[str]) -> None:
        if LOG in changed:
            self._growth.notify()
        if LEASES in changed:
            leases_changed, self._leases_changed = self._leases_changed, asyncio.Event()
            leases_changed.set()

    # Leases.

    async def acquire(self, name: str, ttl_ms: int) -> Lease:
        while True:
            self._check_open()
            changed = self._leases_changed  # Before asking, so that a change meanwhile is not lost.
            taking = self._in_background(self._take(name, ttl_ms))
            try:
                taken = await asyncio.shield(taking)
            except asyncio.CancelledError:
                self._in_background(_release_if_taken(taking))
                raise
            if isinstance(taken, TimedLease):
                self._held = {lease for lease in self._held if lease.is_held} | {taken}
                return taken
            # Not wait_for, which may swallow a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(taken):
                    await changed.wait()

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


async def _release_if_taken(taking: asyncio.Task[TimedLease | float]) -> None:
    await asyncio.wait([taking])
    if taking.exception() is None and isinstance(lease := taking.result(), TimedLease):
        await lease.release()


async def pause(attempt: int, deadline: float = math.inf) -> bool:
    """Wait before the attempt after `attempt`, each time longer; false if `deadline` has passed.

    `deadline` is on the event loop's clock, in seconds.
    """
    if asyncio.get_running_loop().time() >= deadline:
        return False
    await asyncio.sleep(min(_PAUSE_S * 2 ** min(attempt, 10), _LONGEST_PAUSE_S))
    return True
