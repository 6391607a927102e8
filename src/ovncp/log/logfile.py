"""A standalone database file (ovsdb(5)) as a log: the synchronous half, for one thread at a time.

The first record of the file is the schema, each further one a transaction.  A file just opened has
its schema as snapshot 0 and its transaction records as entries 1 and on; but where a history file
belongs to its first transaction record, that is snapshot 1.  A `Rewrite` puts a new file of schema,
snapshot and remaining entries in the old one's place; the indexes go on as they were until the file
is opened again.

The bytes after `size` are never part of the log: the remains of a write that failed, or that a
crash interrupted, or what the database could not read.  They are truncated before anything else is
written; and those that we did not write ourselves are kept aside before that.

About a failed fsync: the kernel may drop the pages that it could not write and report success the
next time, so no retry can be trusted to have saved them.  We do not retry: the append is taken
back by truncating, and that must reach the disk before the next append is tried.  Earlier entries
are safe, as their own fsync succeeded; the page that the last of them shares with the lost ones is
whole in memory, and the next append writes all of it.
"""

from __future__ import annotations

import io
import logging
import os
import stat
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ovncp.log import aside, durable, history_file, lockfile, record, standalone
from ovncp.log.base import (
    Compacted,
    Conflict,
    Corrupt,
    Entry,
    LogError,
    OutcomeUnknown,
    Snapshot,
)
from ovncp.log.durable import io_error, io_errors
from ovncp.log.record import Record

if TYPE_CHECKING:
    from ovncp.log.rewrite import Rewrite

_logger = logging.getLogger("ovncp.ovsdb_log")

_BATCH_BYTES = 1 << 20


class LogFile:
    """A database file, open and locked for writing.  Not thread-safe, except where it says so."""

    def __init__(self, path: str, *, fsync: bool = True, strict: bool = False):
        """Open `path`; errors are named after it as given, whatever directory we change to.

        With `fsync` false an append may be lost when the machine crashes, not when we do.  With
        `strict`, a torn or damaged record is an error rather than the end of the log.

        Raises:
            Locked: another process has it open.
            LogError: it cannot be opened, or is not a standalone database file.
            Corrupt: its schema record is damaged; or any record, with `strict`.
        """
        self.name = path
        self.path = os.path.abspath(path)
        self._fsync = fsync
        self._strict = strict
        self._directory_pending = False
        # What is not used but may be worth something, until it has been kept aside.
        self._tail_is_foreign = False
        self._left_out: list[aside.Span] = []
        self._lock = lockfile.lock(path)
        try:
            self._fd = self._open()
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> int:
        with io_errors(f"{self.name}: open failed"):
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            with io_errors(f"{self.name}: read error"), standalone.reader(fd) as stream:
                self._load(stream)
                self._trailing = self._tail_is_foreign = os.fstat(fd).st_size != self._size
                self._schema = record.data_of(os.pread(fd, self._schema_end, 0))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _load(self, stream: io.BufferedReader) -> None:
        records = standalone.scan(stream, self.name, with_data=False)
        schema = next(records)
        self._snapshot = (0, schema.end, schema.end)  # index, start and end of its record
        self._snapshot_sha1 = ""
        self._starts = array("Q")  # where the record of each entry after the snapshot starts
        self._size = self._base_size = self._schema_end = schema.end
        self._next_index = 1
        try:
            for entry in records:
                self._add(entry)
        except Corrupt as error:
            if self._strict:
                raise
            _logger.warning("%s", error)
            self._warn_of_tail()

    def _add(self, entry: Record) -> None:
        if self._next_index == 1 and history_file.is_there(self.path, entry.sha1):
            self._snapshot = (1, entry.offset, entry.end)
            self._snapshot_sha1 = entry.sha1
        else:
            self._starts.append(entry.offset)
        if self._next_index == 1:
            self._base_size = entry.end
        self._next_index += 1
        self._size = entry.end

    def _warn_of_tail(self) -> None:
        _logger.warning(
            "%s: nothing from offset %d on is used; the next write cuts it off, "
            "and keeps it in a file %s.unreadable-*",
            self.name,
            self._size,
            os.path.basename(self.target),
        )

    @property
    def target(self) -> str:
        """The file itself, where `path` is a symlink to it."""
        return lockfile.follow_symlinks(self.path)

    @property
    def size(self) -> int:
        """Bytes of the file that belong to the log; readable from any thread."""
        return self._size

    @property
    def base_size(self) -> int:
        """Bytes up to the end of the first transaction record when it was opened or rewritten.

        The C server takes that record for the last compaction's, and weighs growth against it.
        """
        return self._base_size

    @property
    def schema(self) -> bytes:
        """The schema's JSON text; readable from any thread."""
        return self._schema

    @property
    def snapshot_index(self) -> int:
        """Readable from any thread."""
        return self._snapshot[0]

    @property
    def next_index(self) -> int:
        """Readable from any thread."""
        return self._next_index

    def append(self, index: int, entries: Sequence[bytes]) -> None:
        """See `Log.append`."""
        self.check_next(index)
        self._settle()
        records = [record.encode(data) for data in entries]
        failed = "write failed"
        try:
            durable.write_all(self._fd, b"".join(records), self._size)
            failed = "fsync failed"
            if self._fsync:
                os.fdatasync(self._fd)
        except OSError as error:
            self._take_back(io_error(f"{self.name}: {failed}", error), error)
        for encoded in records:
            self._starts.append(self._size)
            self._size += len(encoded)
        self._next_index = index + len(records)

    def check_next(self, index: int) -> None:
        """Raise `Conflict` unless `index` is the next free one."""
        if index != self.next_index:
            raise Conflict(f"{self.name}: index {index} is not the next one, {self.next_index}")

    def _take_back(self, failure: LogError, cause: OSError) -> None:
        _logger.warning("%s (%s)", failure.details, failure.io_error)
        self._trailing = True
        try:
            self._settle()
        except LogError as error:
            _logger.warning("%s", error)
            raise OutcomeUnknown(failure.details, io_error=failure.io_error) from cause
        raise failure from cause

    def _settle(self) -> None:
        """Make the file on disk be what we know of it, before anything is added to it."""
        self._keep_aside(self._tail())
        if self._trailing:
            with io_errors(f"{self.name}: cannot truncate to length {self._size}"):
                os.ftruncate(self._fd, self._size)
                if self._fsync:
                    os.fsync(self._fd)
            self._trailing = False
        if self._directory_pending:
            with io_errors(f"{self.name}: fsync of the directory failed"):
                durable.sync_directory(self.target)
            self._directory_pending = False

    def _tail(self) -> list[aside.Span]:
        """What is stored after the log, unless it is our own that failed."""
        return [(self._size, os.fstat(self._fd).st_size)] if self._tail_is_foreign else []

    def _keep_aside(self, spans: list[aside.Span]) -> None:
        if spans:
            with io_errors(f"{self.name}: cannot keep what could not be read"):
                name = aside.keep(self._fd, spans, self.target)
            _logger.warning("%s: what could not be read is kept in %s", self.name, name)
        self._tail_is_foreign = False

    def read(self, from_index: int) -> list[Entry]:
        """The entries from `from_index` on, about a mebibyte of them; none at the end.

        Raises as `Log.read`.
        """
        snapshot_index = self._snapshot[0]
        if from_index <= snapshot_index:
            raise Compacted(f"{self.name}: entry {from_index} is part of the snapshot")
        first = from_index - snapshot_index - 1
        if first >= len(self._starts):
            return []
        last = bisect_right(self._starts, self._starts[first] + _BATCH_BYTES, first)
        bounds = [*self._starts[first : last + 1]]
        if last == len(self._starts):
            bounds.append(self._size)
        return self._entries(from_index, bounds)

    def _entries(self, from_index: int, bounds: list[int]) -> list[Entry]:
        origin = bounds[0]
        batch = self._bytes(origin, bounds[-1])
        return [
            Entry(
                from_index + i, record.data_of(batch[bounds[i] - origin : bounds[i + 1] - origin])
            )
            for i in range(len(bounds) - 1)
        ]

    def snapshot(self) -> Snapshot:
        """See `Log.snapshot`."""
        index, start, end = self._snapshot
        if end == start:
            return Snapshot(index, self._schema, b"")
        history = history_file.read(self.path, self._snapshot_sha1)
        return Snapshot(index, self._schema, record.data_of(self._bytes(start, end)), history)

    def where(self, index: int) -> str:
        """The record of entry `index` in the words of the C server's messages about it."""
        start, end = self._span(index)
        head = self._bytes(start, end).index(b"\n") + 1
        return f"{self.name}: {end - start - head} bytes starting at offset {start + head}"

    def disown(self, index: int) -> str:
        """See `Log.disown`."""
        where = self.where(index)
        start, _ = self._span(index)
        if index <= self._snapshot[0]:
            self._snapshot = (index - 1, start, start)
            self._starts = array("Q")
        del self._starts[index - self._snapshot[0] - 1 :]
        self._size = start
        self._next_index = index
        self._trailing = self._tail_is_foreign = True
        self._warn_of_tail()
        return where

    def leave_out(self, index: int) -> str:
        """See `Log.leave_out`."""
        self._left_out.append(self._span(index))
        return self.where(index)

    def _span(self, index: int) -> tuple[int, int]:
        snapshot_index, start, end = self._snapshot
        if index == snapshot_index:
            return start, end
        first = index - snapshot_index - 1
        bounds = [*self._starts[first : first + 2], self._size]
        return bounds[0], bounds[1]

    def _bytes(self, start: int, end: int) -> bytes:
        pieces: list[bytes] = []
        with io_errors(f"{self.name}: read failed"):
            while start < end:  # The kernel gives no more than 2 GiB at a time.
                piece = os.pread(self._fd, end - start, start)
                if not piece:
                    raise Corrupt(f"{self.name}: the file has become shorter than the log")
                pieces.append(piece)
                start += len(piece)
        return b"".join(pieces)

    def copy_tail(self, start: int, fd: int) -> int:
        """Append the log's bytes from `start` on to `fd`; return where they end.

        Safe beside a thread that appends: what the log holds already does not change.
        """
        end = self._size
        durable.copy(self._fd, fd, start, end)
        return end

    def check_snapshot(self, index: int) -> None:
        """Raise `LogError` unless a snapshot as of `index` can be saved."""
        if not self._snapshot[0] <= index < self.next_index:
            raise LogError(f"{self.name}: cannot save a snapshot at {index}")

    def position_after(self, index: int) -> int:
        """Where the record of the entry after `index` starts, or will; safe beside appends."""
        size = self._size  # Taken first, as an append may come in between.
        following = index - self._snapshot[0]
        return self._starts[following] if following < len(self._starts) else size

    def mode(self) -> int:
        """The file's permissions."""
        return stat.S_IMODE(os.fstat(self._fd).st_mode)

    def adopt(self, rewrite: Rewrite) -> None:
        """Put the rewritten file in the place of this one and go on with it.

        Raises `Conflict` or `LogError` with this file kept as it was, or `OutcomeUnknown` if the
        new one is in use here but a crash may bring the old one back; nothing is appended then
        until the directory can be written.
        """
        rewrite.check()
        old_tail, new_tail = rewrite.complete()
        self._keep_aside([*self._left_out, *self._tail()])
        with io_errors(f'failed to rename "{rewrite.path}" to "{rewrite.target}"'):
            os.rename(rewrite.path, rewrite.target)
        rewrite.history.put()
        self._left_out = []
        kept = self._starts[rewrite.index - self._snapshot[0] :]
        self._starts = array("Q", [start - old_tail + new_tail for start in kept])
        self._size += new_tail - old_tail
        self._next_index = rewrite.index + 1 + len(kept)
        self._snapshot = (rewrite.index, rewrite.snapshot_start, new_tail)
        self._snapshot_sha1 = rewrite.snapshot_sha1
        self._base_size = new_tail
        self._schema = rewrite.schema
        os.close(self._fd)
        self._fd = rewrite.give_up_fd()
        self._trailing, self._directory_pending = False, True
        try:
            self._settle()
        except LogError as error:
            raise OutcomeUnknown(error.details, io_error=error.io_error) from error

    def close(self) -> None:
        """Close and unlock the file; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._lock.release()
