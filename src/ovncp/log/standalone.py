"""A standalone database file (ovsdb(5)) that nobody has open: what it is, what it says, making one.

`LogFile` is the same file while a server works on it.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from ovncp.log import durable, lockfile, record
from ovncp.log.base import LogError
from ovncp.log.durable import io_errors
from ovncp.log.record import Record

_BUFFER_BYTES = 1 << 20


def magic(path: str) -> str:
    """`record.STANDALONE` or `record.CLUSTERED`; `LogError` if `path` is no database file."""
    with open_to_read(path) as stream:
        return record.identify(stream.peek(record.LONGEST_HEADER), path)


def read_records(path: str) -> Iterator[Record]:
    """The records of the standalone file `path`, the schema first; takes no lock.

    Raises `LogError` if it is not a standalone file, `Corrupt` at a torn or damaged record.
    """
    with open_to_read(path) as stream:
        yield from scan(stream, path)


@contextmanager
def open_to_read(path: str) -> Iterator[io.BufferedReader]:
    """A stream of the file `path` from its start on; takes no lock.  Raises `LogError`."""
    with io_errors(f"{path}: open failed"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with io_errors(f"{path}: read error"), reader(fd) as stream:
            yield stream
    finally:
        os.close(fd)


def reader(fd: int) -> io.BufferedReader:
    """A stream of what the open file `fd` holds, from the start on; closing it leaves `fd` open."""
    return io.BufferedReader(io.FileIO(fd, closefd=False), _BUFFER_BYTES)


def scan(stream: io.BufferedReader, name: str, *, with_data: bool = True) -> Iterator[Record]:
    """The records in `stream`, as `read_records`; see `record.scan`."""
    # A look ahead rather than reading and seeking back, as a pipe cannot.
    if record.identify(stream.peek(record.LONGEST_HEADER), name) != record.STANDALONE:
        raise LogError(f"{name}: cannot apply this operation to clustered database file")
    yield from record.scan(stream, name, with_data=with_data)


def create(path: str, schema: bytes, records: Iterable[bytes] = ()) -> None:
    """Make the database file `path` of `schema` and the transactions `records`, JSON texts all.

    See `create_file`.
    """
    create_file(path, map(record.encode, [schema, *records]))


def create_file(path: str, records: Iterable[bytes]) -> None:
    """Make the file `path` of encoded `records`.

    The file appears whole and durable, or not at all.  A dangling symlink is made to lead to it.
    Raises `Locked` if another process holds the name, `LogError` if it exists.
    """
    lock = lockfile.lock(path)
    try:
        target = lockfile.follow_symlinks(path)
        with io_errors(f"{path}: create failed"):
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            fd = durable.create_temporary(target)
        _fill(fd, path, target, records)
    finally:
        lock.release()


def _fill(fd: int, name: str, target: str, records: Iterable[bytes]) -> None:
    try:
        with io_errors(f"{name}: write failed"):
            size = 0
            for encoded in records:
                durable.write_all(fd, encoded, size)
                size += len(encoded)
            os.fsync(fd)
            os.rename(durable.temporary(target), target)
            durable.sync_directory(target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(durable.temporary(target))
        raise
    finally:
        os.close(fd)
