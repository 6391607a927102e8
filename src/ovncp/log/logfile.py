"""A standalone database file (ovsdb(5)) as a log: the synchronous half, for one thread at a time.

The first record of the file is the schema, each further one a transaction.  A file just opened has
its schema as snapshot 0 and its transaction records as entries 1 and on.  `Rewrite` builds a new
file of schema, snapshot and remaining entries and puts it in the old one's place; the indexes go
on as they were until the file is opened again, when the snapshot's record is entry 1.

The bytes after `size` are never part of the log: the remains of a write that failed, or that a
crash interrupted.  They are truncated before anything else is written.

About a failed fsync: the kernel may drop the pages that it could not write and report success the
next time, so no retry can be trusted to have saved them.  We do not retry: the append is taken
back by truncating, and that must reach the disk before the next append is tried.  Earlier entries
are safe, as their own fsync succeeded; the page that the last of them shares with the lost ones is
whole in memory, and the next append writes all of it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import stat
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import IO

from ovncp.log import lockfile, record
from ovncp.log.base import (
    Compacted,
    Conflict,
    Corrupt,
    Entry,
    LogError,
    OutcomeUnknown,
    Snapshot,
)
from ovncp.log.record import Record

_logger = logging.getLogger("ovncp.ovsdb_log")

_MODE = 0o660
_BATCH_BYTES = 1 << 20
_COPY_BYTES = 1 << 26
# The remaining tail of a rewrite is copied while appends wait once it is this short.
_SHORT_TAIL = 1 << 18


def magic(path: str) -> str:
    """`record.STANDALONE` or `record.CLUSTERED`; `LogError` if `path` is no database file."""
    with _open_to_read(path) as stream:
        return record.identify(stream.peek(record.LONGEST_HEADER), path)


def read_records(path: str) -> Iterator[Record]:
    """The records of the standalone file `path`, the schema first; takes no lock.

    Raises `LogError` if it is not a standalone file, `Corrupt` at a torn or damaged record.
    """
    with _open_to_read(path) as stream:
        _check_standalone(stream, path)
        yield from record.scan(stream, path)


@contextmanager
def _open_to_read(path: str) -> Iterator[io.BufferedReader]:
    with _io_errors(f"{path}: open failed"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _io_errors(f"{path}: read error"), _reader(fd) as stream:
            yield stream
    finally:
        os.close(fd)


def _reader(fd: int) -> io.BufferedReader:
    return io.BufferedReader(io.FileIO(fd, closefd=False), _BATCH_BYTES)


def _check_standalone(stream: io.BufferedReader, name: str) -> None:
    # A look ahead rather than reading and seeking back, as a pipe cannot.
    if record.identify(stream.peek(record.LONGEST_HEADER), name) != record.STANDALONE:
        raise LogError(f"{name}: cannot apply this operation to clustered database file")


def create(path: str, schema: bytes, records: Iterable[bytes] = ()) -> None:
    """Make the database file `path` of `schema` and the transactions `records`, JSON texts all.

    The file appears whole and durable, or not at all.  A dangling symlink is made to lead to it.
    Raises `Locked` if another process holds the name, `LogError` if it exists.
    """
    lock = lockfile.lock(path)
    try:
        target = lockfile.follow_symlinks(path)
        with _io_errors(f"{path}: create failed"):
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            fd = _create_temporary(target)
        _fill(fd, path, target, [schema, *records])
    finally:
        lock.release()


def _fill(fd: int, name: str, target: str, texts: list[bytes]) -> None:
    try:
        with _io_errors(f"{name}: write failed"):
            _write_all(fd, b"".join(map(record.encode, texts)), 0)
            os.fsync(fd)
            os.rename(_temporary(target), target)
            _sync_directory(target)
    except LogError:
        with suppress(FileNotFoundError):
            os.unlink(_temporary(target))
        raise
    finally:
        os.close(fd)


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
        self._lock = lockfile.lock(path)
        try:
            self._fd = self._open()
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> int:
        with _io_errors(f"{self.name}: open failed"):
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            with _io_errors(f"{self.name}: read error"), _reader(fd) as stream:
                _check_standalone(stream, self.name)
                self._load(stream)
                self._trailing = os.fstat(fd).st_size != self._size
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _load(self, stream: io.BufferedReader) -> None:
        records = record.scan(stream, self.name)
        first = next(records)
        self._schema = first.data
        self._snapshot = (0, first.end, first.end)  # index, start and end of its record
        self._starts = array("Q")  # where the record of each entry after the snapshot starts
        self._size = self._base_size = first.end
        self._next_index = 1
        try:
            for entry in records:
                self._starts.append(entry.offset)
                self._next_index += 1
                self._size = entry.end
                if len(self._starts) == 1:
                    self._base_size = entry.end
        except Corrupt as error:
            if self._strict:
                raise
            _logger.warning("%s", error)
            _logger.warning(
                "%s: nothing from offset %d on is used; the next write cuts it off",
                self.name,
                self._size,
            )

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
            _write_all(self._fd, b"".join(records), self._size)
            failed = "fsync failed"
            if self._fsync:
                os.fdatasync(self._fd)
        except OSError as error:
            self._take_back(_io_error(f"{self.name}: {failed}", error), error)
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
            raise OutcomeUnknown(
                failure.details, tag=failure.tag, io_error=failure.io_error
            ) from cause
        raise failure from cause

    def _settle(self) -> None:
        """Make the file on disk be what we know of it, before anything is added to it."""
        if self._trailing:
            with _io_errors(f"{self.name}: cannot truncate to length {self._size}"):
                os.ftruncate(self._fd, self._size)
                if self._fsync:
                    os.fsync(self._fd)
            self._trailing = False
        if self._directory_pending:
            with _io_errors(f"{self.name}: fsync of the directory failed"):
                _sync_directory(self.path)
            self._directory_pending = False

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
        data = record.data_of(self._bytes(start, end)) if end > start else b""
        return Snapshot(index, self._schema, data)

    def where(self, index: int) -> str:
        """The record of entry `index` in the words of the C server's messages about it."""
        start, end = self._span(index)
        head = self._bytes(start, end).index(b"\n") + 1
        return f"{self.name}: {end - start - head} bytes starting at offset {start + head}"

    def drop_from(self, index: int) -> None:
        """Disown the entries from `index` on: their records make no sense to the database.

        For the opening only, before anyone else reads the log.  The file keeps them until the
        next write, as with a torn record, so that they can still be looked at.
        """
        start, _ = self._span(index)
        del self._starts[index - self._snapshot[0] - 1 :]
        self._size = start
        self._next_index = index
        self._trailing = True

    def _span(self, index: int) -> tuple[int, int]:
        first = index - self._snapshot[0] - 1
        bounds = [*self._starts[first : first + 2], self._size]
        return bounds[0], bounds[1]

    def _bytes(self, start: int, end: int) -> bytes:
        pieces: list[bytes] = []
        with _io_errors(f"{self.name}: read failed"):
            while start < end:  # The kernel gives no more than 2 GiB at a time.
                piece = os.pread(self._fd, end - start, start)
                if not piece:
                    raise Corrupt(f"{self.name}: the file has become shorter than the log")
                pieces.append(piece)
                start += len(piece)
        return b"".join(pieces)

    def rewrite(self, index: int, data: Iterable[bytes], schema: bytes | None = None) -> None:
        """Save a snapshot and compact, or convert if `schema` is given, in one go.

        See `Log.save_snapshot` and `Log.convert`; for programs without an event loop.
        """
        rewrite = Rewrite(self, index, schema)
        try:
            rewrite.begin()
            for piece in data:
                rewrite.write(piece)
            rewrite.finish()
            self.adopt(rewrite)
        finally:
            rewrite.discard()

    def copy_tail(self, start: int, fd: int) -> int:
        """Append the log's bytes from `start` on to `fd`; return where they end.

        Safe beside a thread that appends: what the log holds already does not change.
        """
        end = self._size
        _copy(self._fd, fd, start, end)
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
        with _io_errors(f'failed to rename "{rewrite.path}" to "{rewrite.target}"'):
            os.rename(rewrite.path, rewrite.target)
        kept = self._starts[rewrite.index - self._snapshot[0] :]
        self._starts = array("Q", [start - old_tail + new_tail for start in kept])
        self._size += new_tail - old_tail
        self._next_index = rewrite.index + 1 + len(kept)
        self._snapshot = (rewrite.index, rewrite.snapshot_start, new_tail)
        self._base_size = new_tail
        self._schema = rewrite.schema
        os.close(self._fd)
        self._fd = rewrite.give_up_fd()
        self._trailing, self._directory_pending = False, True
        try:
            self._settle()
        except LogError as error:
            raise OutcomeUnknown(error.details, tag=error.tag, io_error=error.io_error) from error

    def close(self) -> None:
        """Close and unlock the file; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._lock.release()


class Rewrite:
    """A new file for a log, built beside the old one: schema, snapshot, later entries.

    Its methods run in order in one thread, which need not be the log's; `check`, `complete` and
    `give_up_fd` are for the log, from `LogFile.adopt`.  At any point before, a crash leaves the
    old file, and a temporary one that the next rewrite removes.
    """

    def __init__(self, log: LogFile, index: int, schema: bytes | None = None):
        """A snapshot of `log` as of `index`; or its conversion to `schema`, as the change `index`.

        Raises nothing; see `begin`.
        """
        self.index = index
        self.target = lockfile.follow_symlinks(log.path)
        self.path = _temporary(self.target)
        self.schema = log.schema if schema is None else schema
        self.snapshot_start = 0
        self._log = log
        self._converts = schema is not None
        self._fd = -1
        self._spool: IO[bytes] | None = None
        self._sha1 = hashlib.sha1()
        self._length = 0
        self._tail_start = 0
        self._copied_to = 0

    def check(self) -> None:
        """Raise `Conflict` or `LogError` if this does not fit the log as it is now."""
        if self._converts:
            self._log.check_next(self.index)
        else:
            self._log.check_snapshot(self.index)

    def begin(self) -> None:
        """Open the temporary file and write the schema."""
        self.check()
        schema = record.encode(self.schema)
        with self._io_errors():
            self._fd = _create_temporary(self.target)
            os.fchmod(self._fd, self._log.mode())
            # The header names the length and the checksum of what follows it, so the snapshot is
            # collected here first, in a file without a name.
            directory = os.path.dirname(self.target)
            self._spool = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
            _write_all(self._fd, schema, 0)
        self.snapshot_start = len(schema)

    def write(self, piece: bytes) -> None:
        """Add a piece of the snapshot's JSON text."""
        assert self._spool
        with self._io_errors():
            _write_all(self._spool.fileno(), piece, self._length)
        self._sha1.update(piece)
        self._length += len(piece)

    def finish(self) -> None:
        """The snapshot's text is whole: write its record, and after it most of the tail."""
        with self._io_errors():
            if self._length:
                self._copy_snapshot()
            self._tail_start = os.lseek(self._fd, 0, os.SEEK_END)
            if not self._converts:
                self._copied_to = self._log.position_after(self.index)
                self._copy_most_of_the_tail()
            os.fsync(self._fd)

    def _copy_snapshot(self) -> None:
        self.write(b"\n")
        assert self._spool
        header = record.header(self._length, self._sha1.hexdigest())
        _write_all(self._fd, header, self.snapshot_start)
        os.lseek(self._fd, 0, os.SEEK_END)
        _copy(self._spool.fileno(), self._fd, 0, self._length)
        self._spool.close()

    def _copy_most_of_the_tail(self) -> None:
        while self._log.size - self._copied_to > _SHORT_TAIL:
            self._copied_to = self._log.copy_tail(self._copied_to, self._fd)

    def complete(self) -> tuple[int, int]:
        """Bring the file up to date and to disk; return where the tail was and where it is."""
        if self._converts:
            return self._log.size, self._tail_start
        with self._io_errors():
            self._log.copy_tail(self._copied_to, self._fd)
            os.fsync(self._fd)
        return self._log.position_after(self.index), self._tail_start

    def give_up_fd(self) -> int:
        """The file's descriptor, which is the log's from now on."""
        fd, self._fd = self._fd, -1
        return fd

    def discard(self) -> None:
        """Remove what was built, unless the log has adopted it."""
        if self._spool:
            self._spool.close()
        if self._fd >= 0:
            os.close(self.give_up_fd())
            try:
                os.unlink(self.path)
            except OSError as error:  # The next rewrite removes it, or says why it cannot.
                _logger.warning("failed to remove %s (%s)", self.path, error.strerror)

    def _io_errors(self) -> AbstractContextManager[None]:
        return _io_errors(f"{self.path}: write failed")


def _temporary(target: str) -> str:
    return f"{target}.tmp"


def _create_temporary(target: str) -> int:
    path = _temporary(target)
    with suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    written = os.pwrite(fd, data, offset)
    while written < len(data):  # Cut short, as by a disk that is full: the next try says why.
        written += os.pwrite(fd, memoryview(data)[written:], offset + written)


def _copy(source: int, destination: int, start: int, end: int) -> None:
    """Append the bytes from `start` to `end` of a file to another, within the kernel."""
    while start < end:
        copied = os.sendfile(destination, source, start, min(end - start, _COPY_BYTES))
        if not copied:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        start += copied


def _sync_directory(path: str) -> None:
    fd = os.open(os.path.dirname(lockfile.follow_symlinks(path)) or ".", os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _io_errors(details: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _io_error(details, error) from error


def _io_error(details: str, error: OSError) -> LogError:
    return LogError(details, tag="I/O error", io_error=error.strerror)
