"""Lock files, so that one process at a time writes a database file (ovsdb(7), "File Locking").

`.NAME.~lock~` beside the database holds a POSIX record lock, as the C server and ovsdb-tool take
it: they and we exclude each other.  The lock file stays when the lock goes: removing it would let
two processes lock two files of one name.

POSIX gives up a process's locks on a file when the process closes *any* descriptor of it, and
never refuses a process its own lock.  So the files locked by this process are remembered here, and
none is opened twice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import struct
from dataclasses import dataclass

from ovncp.log.base import Locked

_logger = logging.getLogger("ovncp.lockfile")

_Identity = tuple[int, int]
_held: set[_Identity] = set()

_MAX_LINKS = 10
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid


def follow_symlinks(path: str) -> str:
    """The file that `path` names in the end, whether or not it exists yet.

    Only a link in the last component is followed: the directory part stays as the user wrote it.
    """
    target = path
    for _ in range(_MAX_LINKS):
        if not os.path.islink(target):
            return target
        target = os.path.join(os.path.dirname(target), os.readlink(target))
    _logger.warning("%s: too many levels of symlinks", path)
    return path


def lock_name(path: str) -> str:
    """The lock file of the database `path`; one for all the symlinks that lead to it."""
    directory, name = os.path.split(follow_symlinks(path))
    return os.path.join(directory, f".{name}.~lock~")


@dataclass(slots=True)
class LockFile:
    """A lock that this process holds."""

    _fd: int
    _identity: _Identity

    def release(self) -> None:
        """Let others lock; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            _held.discard(self._identity)


def lock(path: str) -> LockFile:
    """Lock the database `path` without waiting.

    Raises `Locked` when another process or this one holds it, or its lock file cannot be made.
    """
    name = lock_name(path)
    try:
        return _try_lock(name)
    except OSError as error:
        code = errno.EAGAIN if error.errno == errno.EACCES else error.errno or errno.EIO
        raise Locked(f"{path}: failed to lock lockfile", io_error=os.strerror(code)) from error


def _try_lock(name: str) -> LockFile:
    with contextlib.suppress(FileNotFoundError):
        if _identity(os.stat(name)) in _held:
            _warn(name, "cannot lock file because this process has already locked it")
            raise OSError(errno.EDEADLK, os.strerror(errno.EDEADLK))
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        _warn(name, f"failed to open lock file: {error.strerror}")
        _warn(name, f"failed to lock file: {error.strerror}")
        raise
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        _warn(name, _why_not(fd, error))
        os.close(fd)
        raise
    identity = _identity(os.fstat(fd))
    _held.add(identity)
    return LockFile(fd, identity)


def _why_not(fd: int, error: OSError) -> str:
    pid = _holder(fd)
    if pid:
        return f"cannot lock file because it is already locked by pid {pid}"
    return f"failed to lock file: {error.strerror}"


def _holder(fd: int) -> int:
    """The process that holds the lock, 0 if it has let go of it by now."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _warn(name: str, message: str) -> None:
    _logger.warning("%s: %s", name, message)
