"""Programs that run as children: started, watched, started again when they die, and stopped.

A child never outlives its parent: the kernel ends it when the parent is killed. It has a session
of its own, so that a Ctrl-C at the terminal reaches only the parent, which stops its children in
the order that it chooses.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from ovncp.server.daemon import describe_status
from ovncp.server.stream import Target, connect
from ovncp.server.tls import TlsFiles

MIN_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A child that has run so long starts again after the shortest pause."""

_POLL_SECONDS = 0.02
_LONGEST_LINE_BYTES = 1 << 30  # a debug line may hold a whole message
_PR_SET_PDEATHSIG = 1

Say = Callable[[str, str], None]
"""Called with the name of a child, and a line about it or from it."""

_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A program ended when it should have begun to serve; the text is one line."""


class Program(NamedTuple):
    """What to run. With a `remote` it serves once that takes connections, else from the start.

    One that is `needed` and does not come back after it died is a failure of all. For one that
    writes no `pidfile` we write it; one with a `log` prints into that.
    """

    name: str
    argv: tuple[str, ...]
    remote: str | None = None
    needed: bool = False
    pidfile: Path | None = None
    log: Path | None = None


async def spawn(argv: Sequence[str], *, stderr: int, stdout: int | IO[bytes] = PIPE) -> Process:
    """A child that is `argv`, with its output in a pipe, if nowhere else. Raises OSError."""
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=DEVNULL,
        stdout=stdout,
        stderr=stderr,
        limit=_LONGEST_LINE_BYTES,
        start_new_session=True,
        preexec_fn=_dying_with(os.getpid()),
    )


class Child:
    """One program that runs, and runs again."""

    def __init__(self, program: Program, say: Say) -> None:
        self.program = program
        self._say = say
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=1)
        self._stopping = False
        self._started = 0.0

    @property
    def pid(self) -> int:
        """The process of now, 0 if there is none."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start the program, and return when it serves. Raises Failed when it ends instead."""
        self._started = time.monotonic()
        try:
            self._process = await self._spawn()
        except OSError as error:
            raise Failed(f"cannot start {self.program.argv[0]} ({error.strerror})") from error
        self._reader = asyncio.create_task(self._relay(self._process))
        if self.program.pidfile is not None:
            self.program.pidfile.write_text(f"{self._process.pid}\n")
        while not await self._serves():
            if self._process.returncode is not None:
                how = await self._end()
                why = "".join(self._last_lines) or f"see {self.program.log}"
                raise Failed(f"{self.program.name} {how} before it served: {why}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _spawn(self) -> Process:
        if self.program.log is None:
            return await spawn(self.program.argv, stderr=STDOUT)
        with self.program.log.open("ab") as log:
            return await spawn(self.program.argv, stdout=log, stderr=STDOUT)

    async def _serves(self) -> bool:
        if self.program.remote is None:
            return True
        target = Target.parse(self.program.remote)
        try:
            transport = await connect(target, asyncio.Protocol, TlsFiles)
        except OSError:
            return False  # not yet
        transport.close()
        return True

    async def _relay(self, process: Process) -> None:
        if process.stdout is None:
            return
        async for line in process.stdout:
            text = line.decode(errors="replace").rstrip()
            self._last_lines.append(text)
            self._say(self.program.name, text)

    async def _end(self) -> str:
        """Wait for the end of the process and of what it said; how it ended, in words."""
        assert self._process is not None and self._reader is not None
        status = await self._process.wait()
        await self._reader
        return f"ended ({describe_status(-status if status < 0 else status << 8)})"

    async def watch(self) -> None:
        """Start the program again whenever it ends, until it is stopped.

        Raises Failed when one that is needed does not begin to serve again.
        """
        backoff = MIN_BACKOFF_SECONDS
        how = await self._end()
        while not self._stopping:
            if time.monotonic() - self._started > STEADY_SECONDS:
                backoff = MIN_BACKOFF_SECONDS
            self._say(self.program.name, f"{how}; starting again in {backoff:.0f} s")
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)
            how = await self._start_again()

    async def _start_again(self) -> str:
        """How the program ended this time."""
        if self._stopping:
            return ""
        try:
            await self.start()
        except Failed as error:
            if self.program.needed:
                raise
            return str(error)
        self._say(self.program.name, f"is back (process {self.pid})")
        return await self._end()

    async def stop(self, patience_seconds: float) -> None:
        """Ask the program to end, and kill it if it takes too long."""
        self._stopping = True
        if self._process is None or not self.pid:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), patience_seconds)
        except TimeoutError:
            self._say(self.program.name, f"does not end within {patience_seconds:g} s; killing it")
            self.kill()
        await self._end()

    def kill(self) -> None:
        """End the program at once."""
        self._stopping = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):  # it ended, and we are yet to be told
                os.kill(self.pid, number)


def _dying_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes its program: arrange to end when `parent` does."""

    def arrange() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was quicker
            os._exit(1)

    return arrange
