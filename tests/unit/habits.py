"""A real daemon with the habits of one, as small as can be, and ways to start it and the C one."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from servers import end_all

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"

DAEMON = """
import asyncio, logging, os, signal, sys
from ovncp.cli import options
from ovncp.server import coverage, daemon, vlog
from ovncp.server.command import CommandError
from ovncp.server.perf_counter import PerfCounters
from ovncp.server.unixctl import ControlSocketError, Unixctl

program = "ovsdb-server"
log = vlog.install(program)
table = (
    *options.UNIXCTL_OPTIONS, *options.GENERAL_OPTIONS,
    *options.DAEMON_OPTIONS, *options.VLOG_OPTIONS,
)

async def fail(args):
    await asyncio.sleep(0)
    raise CommandError("as told: " + args[0])

def crash(args):
    os.kill(os.getpid(), signal.SIGSEGV)

async def serve(started, path, mode):
    stop = asyncio.Event()
    ctl = Unixctl(program, "ovsdb-server (Open vSwitch) 3.1.0", path)
    ctl.register("exit", "", 0, 0, lambda _: stop.set() or "")
    ctl.register("fail", "WHY", 1, 2, fail)
    ctl.register("break", "", 0, 0, lambda _: 1 / 0)
    ctl.register("crash", "", 0, 0, crash)
    ctl.register_all(log.commands())
    ctl.register_all(coverage.Coverage(coverage.COUNTERS, 0.0).commands())
    await ctl.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if mode == "slow":
        await asyncio.sleep(0.5)
    if mode == "bad":
        print("it went wrong", file=sys.stderr)
        raise SystemExit(3)
    started.complete()
    logging.getLogger("ovncp.ovsdb_server").info("%s", "ovsdb-server (Open vSwitch) 3.1.0")
    await stop.wait()
    await ctl.close()

try:
    parsed = options.parse(sys.argv[1:], table, log.hooks())
    started = daemon.start(daemon.settings(program, parsed.options), log)
    mode = (parsed.arguments or [""])[0]
    asyncio.run(serve(started, parsed.last("unixctl"), mode))
except (options.OptionError, vlog.SpecError, ControlSocketError) as error:
    print(f"{program}: {error}", file=sys.stderr)
    raise SystemExit(1)
"""

OURS = [sys.executable, "-c", DAEMON]


class Place:
    """A run directory of its own, and the programs run in it, which end with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        kept = {"OVS_RUNDIR": str(path), "OVS_LOGDIR": str(path), "OVS_DBDIR": str(path)}
        self.env = {**os.environ, **kept, "OVS_SYSLOG_METHOD": "null"}

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        end_all(self.path)

    def run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end; one that daemonizes must not keep our pipe open."""
        return subprocess.run(
            argv, env=self.env, cwd=self.path, capture_output=True, text=True, timeout=120
        )

    def ours(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        """Run our daemon."""
        return self.run(*OURS, *argv)

    def c(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        """Run the C server, on a database of its own."""
        if not (self.path / "c.db").exists():
            self.run("ovsdb-tool", "create", "c.db", SCHEMA)
        return self.run("ovsdb-server", *argv, "c.db")

    def appctl(self, target: str, *argv: str) -> "subprocess.CompletedProcess[str]":
        """Run the real ovs-appctl; a control socket is named as one of this place."""
        if target.endswith(".ctl"):
            target = str(self.path / target)
        return self.run("ovs-appctl", "-t", target, *argv)

    def pid(self, pidfile: str = "ovsdb-server.pid") -> int:
        """The pid in a pidfile."""
        return int((self.path / pidfile).read_text())

    def read(self, name: str) -> str:
        """The text of a file."""
        return (self.path / name).read_text()


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for `condition`, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
