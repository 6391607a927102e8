"""The ordered log: the one narrow interface between the database and what stores it.

A log is a sequence of entries with consecutive indexes from 1, appended by compare-and-set, on
top of a snapshot.  The snapshot holds the schema and the state as of its index; the state as of
any later index is the snapshot plus the entries up to it.  The log knows bytes and indexes, never
rows: an entry's data is the JSON text of one transaction record (ovsdb(5)).

Guarantees that every backend gives, and that tests/log_contract holds it to:

- **Order.**  An index is given to one entry only, once; readers see entries in index order,
  without a gap, and never an entry whose append failed.
- **Durability.**  An entry is readable only once its append is durable.
- **Ownership.**  Data handed over is not changed afterwards by either side (`bytes` only).
- **Concurrency.**  Every method may be called while others run, from one event loop.  Appends
  take effect in the order in which they were called.
- **Cancellation.**  A cancelled call has happened wholly or not at all; which of the two, reading
  tells.  It leaves the log usable.
- **Errors.**  Only `LogError` and its subclasses come out of a backend (besides what the caller's
  own iterators raise); each keeps the driver's error as its cause.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

Chunks = bytes | Iterable[bytes] | AsyncIterable[bytes]
"""One JSON text, whole or in pieces of any size, so that a large one never is in memory at once."""


class LogError(Exception):
    """A log operation failed and had no effect.

    `tag`, `details` and `io_error` are the parts of the error as OVSDB reports it to a client in
    "error", "details" and "io-error"; `str()` is the line that the C server prints for it.
    """

    tag = "ovsdb error"

    def __init__(self, details: str, *, tag: str | None = None, io_error: str | None = None):
        super().__init__(details)
        self.details = details
        self.io_error = io_error
        if tag is not None:
            self.tag = tag

    def __str__(self) -> str:
        suffix = f" ({self.io_error})" if self.io_error else ""
        return f"{self.tag}: {self.details}{suffix}"


class Exists(LogError):
    """There is a log already where one was to be made."""


class Conflict(LogError):
    """The index is not the next free one: catch up by reading, then try again."""


class OutcomeUnknown(LogError):
    """The append may or may not have happened: settle it by reading from its index.

    Once a read from there has succeeded, it has given out the entries, marked as `own`, or they
    will not appear later.
    """

    tag = "outcome unknown"


class Compacted(LogError):
    """The entries asked for are gone: start again from `snapshot()`."""


class Corrupt(LogError):
    """The stored bytes are not what a log holds."""

    tag = "syntax error"


class Locked(LogError):
    """Another process, or this one already, has the log open for writing."""

    tag = "I/O error"


class LeaseLost(LogError):
    """The lease ran out or went to someone else; its holder must stop acting on it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction: `data` is its JSON text, without a new-line at its end.

    `own` tells whether this handle appended it, on engines where others append too: entries of two
    servers can be the same to the byte.  Two entries are equal whoever appended them.
    """

    index: int
    data: bytes
    own: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state as of `index`, inclusive; `data` is b"" when the database was empty then.

    `schema` and `data` are JSON texts without a new-line at their end.  `history` is what
    `save_snapshot` was given with it, or b"" where that was lost: see there.
    """

    index: int
    schema: bytes
    data: bytes
    history: bytes = b""


class Lease(ABC):
    """The right to act under a name, for a while; held until released or lost."""

    name: str
    token: int
    """Fencing token: larger for each new holder of the name, so that whoever is acted upon can
    refuse one who has lost the lease and does not know it yet."""

    @property
    @abstractmethod
    def is_held(self) -> bool:
        """Whether it is neither released nor lost, as far as is known here."""

    @abstractmethod
    async def renew(self) -> None:
        """Start the time to live anew.  Raises `LeaseLost` when it has run out already."""

    @abstractmethod
    async def release(self) -> None:
        """Give the lease back; without effect on one that is lost or released."""

    @abstractmethod
    async def lost(self) -> None:
        """Return once this lease no longer holds, for whatever reason."""


class Log(ABC):
    """An ordered log; see the module for what holds of every method."""

    identity: str | None = None
    """The uuid that the log was given when it was made, where several servers may share it."""

    @property
    @abstractmethod
    def next_index(self) -> int:
        """The next free index as far as this handle knows; others may have gone further."""

    @abstractmethod
    async def confirm(self, index: int) -> None:
        """Return if `index` is the next free one, at some moment after the call.

        Whoever has applied all entries before `index` then knew all that was durable at the call.

        Raises:
            Conflict: it is another one.
            LogError: that cannot be found out.
        """

    @abstractmethod
    async def append(
        self, index: int, entries: Sequence[bytes], guards: Sequence[Lease] = ()
    ) -> None:
        """Append `entries` at `index` and on, and return when they are durable.

        That is done only if `guards`, leases of this handle, are all held at that moment.

        Each entry is one JSON text without a new-line in it.  All of them are appended or none.
        (A machine that crashes meanwhile may keep the first few of a batch that nobody was told
        of: entries are transactions of their own.)  No entries is no change, at a right index.

        Raises:
            Conflict: `index` is not the next free one.
            LeaseLost: one of `guards` is not held any more.
            OutcomeUnknown: the entries may have been appended.
            LogError: they were not, and will not appear later; the log stays usable.
        """

    @abstractmethod
    def read(self, from_index: int) -> AsyncIterator[list[Entry]]:
        """The entries from `from_index` to the last one of now, in non-empty batches.

        At or past the next free index there are none.  Appends and compaction may go on
        meanwhile; entries appended later may or may not be included.

        Raises:
            Compacted: an entry asked for is part of the snapshot by now.  What was given out
                before is right.
            Corrupt, LogError: the stored bytes cannot be read.
        """

    @abstractmethod
    def follow(self, from_index: int) -> AsyncIterator[list[Entry]]:
        """As `read`, then wait for further entries for ever; ends when the log is closed."""

    @abstractmethod
    async def grown(self, index: int) -> None:
        """Return when there is an entry `index` as far as is known here, or the log is closed."""

    @abstractmethod
    async def snapshot(self) -> Snapshot:
        """The latest snapshot: one with the schema alone when nothing was saved so far."""

    @abstractmethod
    async def save_snapshot(self, index: int, data: Chunks, history: Chunks = b"") -> None:
        """Keep `data` as the state as of `index`, with the schema as it is.

        `index` lies between the present snapshot's and the last entry.  From then on the entries
        up to `index` may be dropped at any time.  Appends go on meanwhile.  One runs at a time,
        further ones wait.

        `history` is how the state came about lately: bytes that mean something to the database
        alone.  It is worth less than the snapshot, so an engine may lose it at any time, and that
        it could not be stored is no failure.  But it never comes back with another snapshot than
        the one that it was saved with, nor changed, nor in part.

        Raises:
            LogError: `index` is outside of that range, or the snapshot could not be stored; the
                log is as before.
        """

    @abstractmethod
    async def compact(self, index: int) -> None:
        """Drop the entries up to `index`; `LogError` if no snapshot covers them."""

    @abstractmethod
    async def convert(self, index: int, schema: bytes, data: Chunks) -> None:
        """Change the schema, as the change that takes `index`; durable on return.

        Afterwards the snapshot is `(index, schema, data)`, with no history, and the next free index
        is `index` + 1: whoever appends at `index` has a conflict, whoever reads it is sent to the
        snapshot.

        Raises: as `append`.
        """

    async def disown(self, index: int) -> str:
        """Disown the entries from `index` on, as the first of them makes no sense to the database.

        For the opening only, before anything is appended.  `index` is then the next free one; it
        may be the snapshot's, which leaves a log of the schema alone.  What is stored of them is
        kept for people to look at before anything takes its place.  Returns where it is, in words.

        Raises:
            LogError: they are not for this server alone to judge.
        """
        raise LogError(f"entry {index} cannot be read")

    async def leave_out(self, index: int) -> str:
        """Note that entry `index` could be read but not applied, so that no snapshot includes it.

        As with `disown`, it is kept for people to look at.  Returns where it is, in words.
        """
        return f"entry {index}"

    @abstractmethod
    async def acquire(self, name: str, ttl_ms: int) -> Lease:
        """Wait for the lease on `name` and take it, for `ttl_ms` milliseconds unless renewed."""

    @abstractmethod
    async def try_acquire(self, name: str, ttl_ms: int) -> Lease | None:
        """As `acquire`, but None if somebody holds it."""

    @abstractmethod
    async def seize(self, name: str, ttl_ms: int) -> Lease:
        """As `acquire`, but take it from whoever holds it."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what runs, end the followers and let others open the log; idempotent.

        Leases of this handle are lost.  Any later call raises `LogError`.
        """
