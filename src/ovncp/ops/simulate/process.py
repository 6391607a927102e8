"""What processes of this machine take, as /proc tells it (proc(5)); and which are a server's."""

import os
import resource
import socket
import struct
import time
from asyncio import BaseTransport
from pathlib import Path

from ovncp.ops.refusal import Refusal
from ovncp.ops.simulate.report import Usage
from ovncp.proc import holder

_PROC = Path("/proc")
_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PARENT, _USER_TICKS, _SYSTEM_TICKS, _RESIDENT_PAGES = 1, 11, 12, 21  # after the name, in stat
_READINGS = 5  # of a long table, in which lines are missed while others come and go
_WORKER = "ovsdb-worker"  # what the processes of `ovncp ovsdb-server --workers N` call themselves
_CREDENTIALS = struct.Struct("3i")


def allow_files(number: int) -> None:
    """Raise the limit on open files as far as it goes. Raises Refusal if it is below `number`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise Refusal(f"{number:,} open files are needed, and `ulimit -Hn` is {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Meter:
    """Measures some processes from its creation on."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids
        self.max_bytes = 0
        self._start = time.perf_counter()
        self._cpu_before = self._last_cpu = self._cpu_sec()
        self._last = self._start
        self.sample()

    def sample(self) -> tuple[float, int]:
        """The processors in use since the last sample, and the resident bytes."""
        now, cpu = time.perf_counter(), self._cpu_sec()
        used = (cpu - self._last_cpu) / max(now - self._last, 1e-9)
        self._last, self._last_cpu = now, cpu
        resident = sum(int(stat[_RESIDENT_PAGES]) * _PAGE_BYTES for stat in self._stats())
        self.max_bytes = max(self.max_bytes, resident)
        return used, resident

    def usage(self) -> Usage:
        """All since the creation."""
        self.sample()
        seconds = max(self._last - self._start, 1e-9)
        return Usage(self.pids, (self._last_cpu - self._cpu_before) / seconds, self.max_bytes)

    def _cpu_sec(self) -> float:
        ticks = (int(stat[_USER_TICKS]) + int(stat[_SYSTEM_TICKS]) for stat in self._stats())
        return sum(ticks) / _TICKS_PER_SEC

    def _stats(self) -> list[list[str]]:
        return [stat for pid in self.pids if (stat := _stat(pid)) is not None]


def _stat(pid: int) -> list[str] | None:
    """The fields of a process after its name; None if it has ended."""
    return _read(pid, "stat").rpartition(")")[2].split() or None


def family(pid: int) -> list[int]:
    """A server's processes, given one of them: the main one's and its workers'."""
    stat = _stat(pid)
    if stat is not None and _read(pid, "comm").strip() == _WORKER:
        pid = int(stat[_PARENT])
    found = [pid]
    parents = {
        int(entry.name): int(stat[_PARENT])
        for entry in _PROC.glob("[0-9]*")
        if (stat := _stat(int(entry.name))) is not None
    }
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found


def _read(pid: int, name: str) -> str:
    """A file of a process; nothing if it has ended."""
    try:
        return (_PROC / str(pid) / name).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def server_of(transport: BaseTransport) -> int | None:
    """The process at the other end of a connection; None if it is not to be found here."""
    sock = transport.get_extra_info("socket")
    if sock.family == socket.AF_UNIX:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(credentials)[0]) or None
    for _ in range(_READINGS):
        inode = _inode(sock.family, sock.getpeername(), sock.getsockname())
        if inode is not None:
            return holder({f"socket:[{inode}]"}) or None
    return None


def _inode(family: int, local: tuple[str, int], remote: tuple[str, int]) -> str | None:
    """The inode of the socket with these addresses, if it is in this network namespace."""
    table = "tcp6" if family == socket.AF_INET6 else "tcp"
    wanted = [_in_hex(family, *address[:2]) for address in (local, remote)]
    for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return fields[9]
    return None


def _in_hex(family: int, host: str, port: int) -> str:
    """An address as /proc/net/tcp has it: words of 32 bits in the machine's order."""
    packed = socket.inet_pton(family, host)
    numbers = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{number:08X}" for number in numbers) + f":{port:04X}"
