"""The wall clock of a process that does without the C library, as all that Go makes do.

Nothing can be preloaded into it. But it asks for the time by the vDSO (vdso(7)), code of the kernel
that is mapped into every process, and that is its own copy as soon as it is written to. What is
written there asks the kernel proper, and adds some seconds to CLOCK_REALTIME alone, as clock.c
does. This is machine code of x86-64.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

# mov eax, SYS_clock_gettime; syscall; test edi, edi; jnz over; mov rcx, [ahead]; add [rsi], rcx;
# over: ret; nop; nop; ahead: the seconds, eight bytes
_CODE = bytes.fromhex("b8e4000000 0f05 85ff 750a 488b0d06000000 48010e c3 9090")


def set_clock(pid: int, ahead_s: int) -> None:
    """Have the clock of the process `pid` be `ahead_s` seconds ahead of the true time, at once."""
    vdso = _vdso(pid)
    entry = vdso.start + _offset()
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(entry)
        if memory.read(len(_CODE)) != _CODE:
            with _outside(pid, vdso):
                memory.seek(entry)
                memory.write(_CODE + bytes(8))
        memory.seek(entry + len(_CODE))
        memory.write(ahead_s.to_bytes(8, "little", signed=True))


def _vdso(pid: int | str) -> range:
    """Where it is mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    [line] = [line for line in maps if line.endswith("[vdso]")]
    first, end = line.split()[0].split("-")
    return range(int(first, 16), int(end, 16))


def _offset() -> int:
    """Where its clock is in it, which is the same for all processes."""
    function = ctypes.CDLL("linux-vdso.so.1")["__vdso_clock_gettime"]
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address - _vdso("self").start


@contextlib.contextmanager
def _outside(pid: int, code: range) -> Iterator[None]:
    """Stop the process, with no thread of it in `code`."""
    try:
        os.kill(pid, signal.SIGSTOP)
        while not _is_outside(pid, code):
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _is_outside(pid: int, code: range) -> bool:
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    while any(
        (thread / "stat").read_text().rpartition(")")[2].split()[0] != "T" for thread in threads
    ):
        time.sleep(0.001)
    # The last word is the address of what it does next.
    return all(
        int((thread / "syscall").read_text().split()[-1], 16) not in code for thread in threads
    )
