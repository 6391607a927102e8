"""Becoming a daemon the way Open vSwitch's do (ovs-vswitchd(8), "Daemon Options").

`start` runs before there is any thread or event loop: it gives up root, forks into the background
and under a monitor, and takes the pidfile.  Each parent waits on a pipe until its child calls
`Daemon.complete`, so that whoever started the daemon knows that it serves.
"""

import atexit
import contextlib
import errno
import fcntl
import logging
import os
import signal
import struct
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import NamedTuple, NoReturn

from ovncp.server import dirs
from ovncp.server.vlog import Vlog

_log = logging.getLogger("ovncp.daemon_unix")
_signal_log = logging.getLogger("ovncp.fatal_signal")

_CRASH_SIGNALS = frozenset(
    getattr(signal, f"SIG{name}")
    for name in ("ABRT", "ALRM", "BUS", "FPE", "ILL", "PIPE", "SEGV", "XCPU", "XFSZ")
)
_FATAL_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
_RESTART_SECONDS = 10  # a crashing daemon is restarted at most this often

_FLOCK = "hhqqi"  # struct flock: type, whence, start, length, pid


class Settings(NamedTuple):
    """What the command line asks of the daemon."""

    detach: bool = False
    chdir: bool = True
    pidfile: str | None = None
    overwrite_pidfile: bool = False
    monitor: bool = False
    user: str | None = None


def settings(program: str, options: Sequence[tuple[str, str | None]]) -> Settings:
    """The settings in a parsed command line (the rows of DAEMON_OPTIONS)."""
    given = dict(options)
    pidfile = None
    if "pidfile" in given:
        pidfile = dirs.abs_file_name(dirs.rundir(), _or(given["pidfile"], f"{program}.pid"))
    return Settings(
        detach="detach" in given,
        chdir="no-chdir" not in given,
        pidfile=pidfile,
        overwrite_pidfile="overwrite-pidfile" in given,
        monitor="monitor" in given,
        user=given.get("user"),
    )


def _or(value: str | None, default: str) -> str:
    return default if value is None else value


class Daemon:
    """A started daemon; `complete` tells those who wait for it that it serves."""

    def __init__(self, wanted: Settings, vlog: Vlog, ready: int | None) -> None:
        self._settings = wanted
        self._vlog = vlog
        self._ready = ready

    def complete(self) -> None:
        """Leave the terminal and let the waiting parents go; a second call does nothing."""
        if self._ready is None:
            return
        # In this order, so that whoever was waiting finds that the daemon has left.
        if self._settings.detach:
            if self._settings.chdir:
                os.chdir("/")
            _leave_terminal(self._vlog)
        _notify(self._ready)
        self._ready = None


def start(wanted: Settings, vlog: Vlog) -> Daemon:
    """Do all that `wanted` asks for, and return in the process that is to be the daemon.

    A failure is logged, told on stderr, and exits with status 1; a parent exits with the status
    of a child that failed before it was complete.
    """
    if wanted.user is not None:
        _become(_User.parse(wanted, vlog), wanted, vlog)
    ready: int | None = None
    if wanted.detach:
        ready = _detach(vlog)
    if wanted.monitor:
        ready = _start_monitor(wanted, vlog, ready)
    for number in fatal_signals():
        signal.signal(number, _on_signal)
    if wanted.pidfile is not None:
        _make_pidfile(wanted.pidfile, wanted.overwrite_pidfile, vlog)
    return Daemon(wanted, vlog, ready)


# --- Forking -------------------------------------------------------------------------------------


class _Forked(NamedTuple):
    """One side of a fork: `pid` is 0 in the child; `pipe` is written by it, read by the parent."""

    pid: int
    pipe: int


def _fork() -> _Forked:
    sys.stdout.flush()
    sys.stderr.flush()
    receiver, sender = os.pipe()
    pid = os.fork()
    os.close(sender if pid else receiver)
    return _Forked(pid, receiver if pid else sender)


def _await_child(child: _Forked) -> bool:
    """Wait until the child is complete; False if a signal killed it before.

    A child that exits with an error takes its parent along, with its status.
    """
    complete = os.read(child.pipe, 1) != b""
    os.close(child.pipe)
    if complete:
        return True
    _, status = os.waitpid(child.pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        os._exit(os.WEXITSTATUS(status))
    _log.error("fork child died before signaling startup (%s)", describe_status(status))
    return False


def _notify(ready: int | None) -> None:
    if ready is not None and ready >= 0:
        # A parent that was killed meanwhile is no reason for the daemon to fail.
        with contextlib.suppress(BrokenPipeError):
            os.write(ready, b"\0")
        os.close(ready)


def _detach(vlog: Vlog) -> int:
    """Go on in a child that leads its own session; the parent waits for it and exits."""
    child = _fork()
    if child.pid:
        if not _await_child(child):
            vlog.fatal("daemon_unix", "could not detach from foreground session")
        os._exit(0)
    os.setsid()
    return child.pipe


def _leave_terminal(vlog: Vlog) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.close(null)
    vlog.close_console()


def describe_status(status: int) -> str:
    """A wait status in the words of OVS's logs."""
    if os.WIFEXITED(status):
        return f"exit status {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    core = ", core dumped" if os.WCOREDUMP(status) else ""
    return f"killed ({signal.strsignal(number) or f'signal {number}'}){core}"


# --- The monitor ---------------------------------------------------------------------------------


def _start_monitor(wanted: Settings, vlog: Vlog, waiting: int | None) -> int:
    """Go on in a child under a monitor; `waiting` is told when the first child is complete."""
    child = _fork()
    if not child.pid:
        return child.pipe
    if not _await_child(child):
        vlog.fatal("daemon_unix", "could not initiate process monitoring")
    if wanted.detach:
        _leave_terminal(vlog)
    _notify(waiting)
    return _monitor(child.pid, vlog)


def _monitor(pid: int, vlog: Vlog) -> int:
    """Restart the daemon whenever it crashes; returns in each new daemon, never in the monitor."""
    vlog.subprogram = "monitor"
    crashes, restarted = 0, float("-inf")
    alive = True
    status = 0
    while True:
        if alive:
            status = _wait(pid, vlog)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) not in _CRASH_SIGNALS:
            _log.info("pid %d died, %s, exiting", pid, describe_status(status))
            os._exit(0)
        crashes += 1
        what = f"{crashes} crashes: pid {pid} died, {describe_status(status)}"
        _pause(restarted + _RESTART_SECONDS, what)
        restarted = time.monotonic()
        _log.error("%s, restarting", what)
        child = _fork()
        if not child.pid:
            vlog.subprogram = ""
            return child.pipe
        pid, alive = child.pid, _await_child(child)


def _wait(pid: int, vlog: Vlog) -> int:
    # The monitor sleeps without the log file, so that it never holds on to a rotated one.
    vlog.close_file(announce=True)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # logged where it was raised
        vlog.reopen()
    return status


def _pause(until: float, what: str) -> None:
    if time.monotonic() < until:
        _log.warning("%s, waiting until 10 seconds since last restart", what)
        time.sleep(max(0.0, until - time.monotonic()))


# --- The pidfile ---------------------------------------------------------------------------------


def _make_pidfile(path: str, overwrite: bool, vlog: Vlog) -> None:
    """Write this process's pid to `path` and hold its lock for life: its lock tells it is live.

    It is written under another name first, since a pidfile must never be seen without its lock.
    The descriptor stays open on purpose: closing any descriptor of the file gives up the lock.
    """
    temporary = f"{path}.tmp{os.getpid()}" if overwrite else f"{path}.tmp"
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        vlog.fatal("daemon_unix", f"{temporary}: create failed ({error.strerror})")
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        vlog.fatal("daemon_unix", f"{temporary}: fcntl(F_SETLK) failed ({error.strerror})")
    unlink_at_exit(temporary)
    if not overwrite:
        _check_not_running(path, vlog)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    try:
        os.rename(temporary, path)
    except OSError as error:
        text = f'failed to rename "{temporary}" to "{path}" ({error.strerror})'
        vlog.fatal("daemon_unix", text)
    keep(temporary)
    unlink_at_exit(path)


def _check_not_running(path: str, vlog: Vlog) -> None:
    try:
        pid = read_pidfile(path, delete_stale=True)
    except OSError as error:
        text = f"{path}: pidfile check failed ({error.strerror}), aborting"
        vlog.fatal("daemon_unix", text)
    if pid:
        vlog.fatal("daemon_unix", f"{path}: already running as pid {pid}, aborting")


def read_pidfile(path: str, delete_stale: bool = False) -> int:
    """The pid of the live process whose pidfile is `path`, or 0 if there is none.

    With `delete_stale` an unlocked pidfile is removed.  Raises OSError.  Not for a pidfile of
    this process: reading it would give up its lock.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return 0
    try:
        holder = _lock_holder(descriptor)
        if holder:
            return _checked_pid(path, descriptor, holder)
        if delete_stale:
            _delete_stale(path, descriptor)
        return 0
    finally:
        os.close(descriptor)


def _lock_holder(descriptor: int) -> int:
    """The pid that holds the file's lock, 0 if none does."""
    query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, query))
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def _checked_pid(path: str, descriptor: int, holder: int) -> int:
    written = os.read(descriptor, 128).decode(errors="replace").strip()
    if written != str(holder):
        # Whoever holds the lock did not write the file: it is about to delete it.
        _log.warning("%s: stale pidfile for pid %s being deleted by pid %d", path, written, holder)
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
    return holder


def _delete_stale(path: str, descriptor: int) -> None:
    """Remove a pidfile that nobody holds.

    Only who has its lock may, and only while it still has that name: otherwise another process
    might lose the pidfile that it has just made.
    """
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if not os.path.samestat(os.stat(path), os.fstat(descriptor)):
        raise OSError(errno.EALREADY, os.strerror(errno.EALREADY))
    os.unlink(path)
    _log.debug("%s: deleted stale pidfile", path)


# --- The end -------------------------------------------------------------------------------------

_to_unlink: dict[str, int] = {}


def unlink_at_exit(path: str) -> None:
    """Remove `path` when this very process exits or dies by `die`; not when a child of it does."""
    _to_unlink[path] = os.getpid()


def keep(path: str) -> None:
    """Take `unlink_at_exit` back."""
    _to_unlink.pop(path, None)


@atexit.register
def _unlink_files() -> None:
    for path, owner in _to_unlink.items():
        if owner == os.getpid():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def die(number: int) -> NoReturn:
    """Die by the signal `number` as a daemon should: logged, its files removed.

    For the end of an orderly stop too: the monitor and the shell see the signal, not a status.
    """
    _signal_log.warning("terminating with signal %d (%s)", number, signal.strsignal(number))
    _unlink_files()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)


def fatal_signals() -> list[signal.Signals]:
    """Those that end the process, less those that it is to ignore, as nohup(1) has it."""
    return [number for number in _FATAL_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def _on_signal(number: int, _: FrameType | None) -> None:
    die(number)


# --- Another user --------------------------------------------------------------------------------


class _User(NamedTuple):
    """Whom to become."""

    name: str
    uid: int
    gid: int

    @classmethod
    def parse(cls, wanted: Settings, vlog: Vlog) -> "_User":
        """The user of `--user [USER][:GROUP]`; a mistake in it is fatal."""
        import grp
        import pwd

        spec = (wanted.user or "").lstrip()
        name, _, group = spec.partition(":")
        if os.getuid() or os.geteuid():
            _user_fatal(wanted, vlog, "only root can use --user option")
        try:
            entry = pwd.getpwnam(name) if name else pwd.getpwuid(os.getuid())
        except KeyError:
            _user_fatal(wanted, vlog, f"user {name} not found, aborting.")
        if not group.strip():
            return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)
        try:
            found = grp.getgrnam(group.strip())
        except KeyError:
            _user_fatal(wanted, vlog, f"group {group.strip()} not found, aborting.")
        if found.gr_gid != entry.pw_gid and entry.pw_name not in found.gr_mem:
            reason = f"(user {entry.pw_name} is not in group {found.gr_name})"
            _user_fatal(wanted, vlog, f"Invalid --user option {spec} {reason}, aborting.")
        return cls(entry.pw_name, entry.pw_uid, found.gr_gid)


def _user_fatal(wanted: Settings, vlog: Vlog, text: str) -> NoReturn:
    vlog.fatal("daemon_unix", f"{wanted.pidfile or '(null)'}: {text}")


def _become(user: _User, wanted: Settings, vlog: Vlog) -> None:
    """Give up root for good.  The log file, made as root, goes to the user as well."""
    try:
        vlog.give_file(user.uid, user.gid)
        os.initgroups(user.name, user.gid)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        text = f"fail to switch to user and group {user.uid}:{user.gid} ({error.strerror})"
        _user_fatal(wanted, vlog, f"{text}, aborting")
