"""Programs that one command runs in the foreground of one directory, until a signal.

What each of them prints becomes lines of one log. They end in the reverse of the order in which
they started, so that nothing loses what it depends on; a second signal ends them at once.
"""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from ovncp.server import daemon
from ovncp.server.supervisor import Child, Program

OURS = (sys.executable, "-m", "ovncp")
NO_NORTHD = "not installed (on Debian: apt-get install ovn-central), so that no flows are made"

_OF_STOPPING = ("fatal_signal", "jsonrpc", "reconnect")
"""Modules that tell of what we do when all stops: end programs, and connections with them."""

_SERVERS_PATH = "/usr/sbin:/sbin:/usr/bin"  # where packages put them, which is not on every PATH


class Foreground:
    """The children of the command that is `title` in the log; `width` is that of their names.

    `stopping` is set when all is to end.
    """

    def __init__(self, title: str, width: int) -> None:
        self.stopping = asyncio.Event()
        self._title = title
        self._width = width
        self._groups: list[tuple[float, list[Child]]] = []

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, which starts the children, until it fails or a signal comes; end them all.

        Raises what `work` does.
        """
        loop = asyncio.get_running_loop()
        for number in daemon.fatal_signals():
            loop.add_signal_handler(number, self._on_signal)
        try:
            await self._until_stopped(work)
        finally:
            await self._stop()
        self.say(self._title, "stopped; the data are kept")

    def _on_signal(self) -> None:
        if not self.stopping.is_set():
            self.say(self._title, "stopping; once more, and it is at once")
            self.stopping.set()
            return
        for child in self._children():
            child.kill()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self.stopping.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (working, stopping):
            task.cancel()
        await asyncio.wait((working, stopping))
        if not working.cancelled():
            working.result()

    async def start(self, *programs: Program, patience_seconds: float) -> None:
        """Start a group of programs, and return when all serve. Raises Failed.

        Each has `patience_seconds` to end, when that time has come.
        """
        children = [Child(program, self._relay) for program in programs]
        self._groups.append((patience_seconds, children))
        await asyncio.gather(*(child.start() for child in children))

    async def watch(self) -> None:
        """Start again what dies. Raises Failed when one does not come back that is needed."""
        await asyncio.gather(*(child.watch() for child in self._children()))

    async def _stop(self) -> None:
        self.stopping.set()
        for patience_seconds, children in reversed(self._groups):
            await asyncio.gather(*(child.stop(patience_seconds) for child in children))

    def _children(self) -> list[Child]:
        return [child for _, children in reversed(self._groups) for child in children]

    def _relay(self, name: str, line: str) -> None:
        """Show a line about a child or from it, in which case it has OVS's level and module."""
        level, module, text = line.split("|", 2) if line.count("|") >= 2 else ("", "", line)
        if module.startswith(_OF_STOPPING) and self.stopping.is_set():
            return
        self.say(name, text if level in ("", "INFO") else f"{level} {text}")

    def say(self, name: str, text: str) -> None:
        """Print a line of the log; `name` is what it is about."""
        show(f"{time.strftime('%H:%M:%S')}  {name:<{self._width}}  {text}")


def show(text: str) -> None:
    """Print `text`, if there is anybody to read it."""
    try:
        print(text, flush=True)
    except OSError:
        # The terminal or the pipe is gone. The databases are not to suffer from it, and have logs.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def find(program: str) -> str | None:
    """Where a program of this machine is, if it is installed."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SERVERS_PATH}")


def daemon_options(directory: Path, stem: str, log: str) -> tuple[str, ...]:
    """For a daemon of Open vSwitch's kind in the foreground: its files are in `directory`."""
    return (
        "-vsyslog:off",
        "-vPATTERN:console:%p|%c|%m",
        f"--log-file={directory}/{log}.log",
        f"--unixctl={directory}/{stem}.ctl",
        f"--pidfile={directory}/{stem}.pid",
    )
