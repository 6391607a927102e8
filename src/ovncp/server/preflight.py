"""What stands in the way of starting is found, and named, before anything is started."""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from ovncp.proc import holder

LOOPBACK = "127.0.0.1"

_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid
_LISTENING = "0A"  # a TCP state in /proc/net/tcp


class Refused(Exception):
    """Something stands in the way; the text is one line: what it is, and what to do."""


def take_directory(directory: Path) -> int:
    """Make `directory` if it is not there, and hold it until this process ends.

    Returns the descriptor of the lock file, which has to stay open. Raises Refused.
    """
    lock = directory / "up.lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        advice = "name one that you may write to with --data-dir"
        raise Refused(f"cannot write to {directory} ({error.strerror}): {advice}") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        os.close(descriptor)
        text = f"{directory} is in use by {_process(lock_holder(lock))}"
        raise Refused(f"{text}: stop that, or name another directory with --data-dir") from error
    return descriptor


def check_database_is_free(path: Path) -> None:
    """See that no process has the database file `path` open. Raises Refused."""
    holder = lock_holder(path.with_name(f".{path.name}.~lock~"))
    if holder:
        raise Refused(f"{path} is open in {_process(holder)}: stop that first")


def check_port_is_free(port: int, option: str) -> None:
    """See that TCP `port` of this machine can be listened on. Raises Refused."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                text = f"cannot listen on port {port} ({error.strerror})"
                raise Refused(f"{text}: name another with {option}") from error
            raise taken(port, option) from error


def taken(port: int, option: str) -> Refused:
    """What to say of TCP `port`, which somebody else listens on."""
    text = f"port {port} is taken by {_process(_listener(port))}"
    return Refused(f"{text}: stop that, or name another with {option}")


def lock_holder(path: Path) -> int:
    """The process that has locked the file `path`, 0 if none has.

    Not for a file that this process has locked: looking at it would give up the lock.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise Refused(f"cannot open {path} ({error.strerror}): make it accessible") from error
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def _process(pid: int) -> str:
    """A process in words; 0 is one that could not be found out."""
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (process {pid})"
    except OSError:
        return f"process {pid}" if pid else "another process"


def _listener(port: int) -> int:
    """The process that listens on TCP `port`, 0 if it cannot be found out."""
    return holder({f"socket:[{inode}]" for inode in _listening_inodes(port)})


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue  # there is no IPv6 here, or no /proc
        for fields in map(str.split, lines):
            if fields[1].endswith(f":{port:04X}") and fields[3] == _LISTENING:
                yield fields[9]
