"""Files that a crash leaves whole, old or new: the system calls for that, and their errors.

A file is built under another name beside its place, flushed, and renamed; the directory is flushed
last.  Errors are `LogError`, with the words that the C server has for them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ovncp.log.base import LogError

_MODE = 0o660
_COPY_BYTES = 1 << 26


def temporary(target: str) -> str:
    """The name under which `target` is built."""
    return f"{target}.tmp"


def create_temporary(target: str) -> int:
    """An empty file named `temporary(target)`; one that a crash left goes.  Raises OSError."""
    path = temporary(target)
    with suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`.  Raises OSError."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):  # Cut short, as by a disk that is full: the next try says why.
        written += os.pwrite(fd, memoryview(data)[written:], offset + written)


def copy(source: int, destination: int, start: int, end: int) -> None:
    """Append the bytes from `start` to `end` of a file to another, within the kernel.

    Raises OSError.
    """
    while start < end:
        copied = os.sendfile(destination, source, start, min(end - start, _COPY_BYTES))
        if not copied:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        start += copied


def sync_directory(path: str) -> None:
    """Make durable that the file `path` has its name.  Raises OSError."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def io_errors(details: str) -> Iterator[None]:
    """Turn an OSError into a LogError that says `details`, and why."""
    try:
        yield
    except OSError as error:
        raise io_error(details, error) from error


def io_error(details: str, error: OSError) -> LogError:
    """The LogError that says `details`, and why."""
    return LogError(details, tag="I/O error", io_error=error.strerror)
