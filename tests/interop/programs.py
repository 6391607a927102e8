"""The real programs of Open vSwitch and OVN around a server under test.

`Program` is one daemon in the foreground of its own process; `Network` is a Northbound and a
Southbound database in one server, with the means to run `ovn-nbctl`, `ovn-sbctl` and
`ovn-northd` on it.  All of a network's files, control sockets included, are in its directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from servers import Server, listens, of_one_process, run

NB_SCHEMA = Path("/usr/share/ovn/ovn-nb.ovsschema")
SB_SCHEMA = Path("/usr/share/ovn/ovn-sb.ovsschema")
VSWITCH_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
VTEP_SCHEMA = Path("/usr/share/openvswitch/vtep.ovsschema")

# The kind of server that the tests are about; "c" shows that a test itself is right.
KIND = os.environ.get("INTEROP_KIND", "ovncp")
PATIENCE_SECONDS = 60.0


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Returns once `condition` holds; `AssertionError` if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.02)


def said(server: Server, *command: str) -> str:
    """What a runtime command answers, and the exit status; directories go by one name."""
    done = subprocess.run(
        ["ovs-appctl", "--timeout=60", "-t", str(server.control), *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return without_directories(f"{done.stdout}{done.stderr}[{done.returncode}]")


def without_directories(text: str) -> str:
    """`text` with one name for the directories of all servers."""
    return re.sub(rf"{re.escape(tempfile.gettempdir())}/ovsdb-\w+", "DIR", text)


def processes_of(directory: Path) -> list[str]:
    """The command lines of the processes that name `directory`, those of the caller left out."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # A process may end meanwhile.
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            line = line.replace(b"\0", b" ").decode(errors="replace")
            if str(directory) in line and pid != str(os.getpid()):
                found.append(line)
    return found


class Program:
    """A real daemon, running from creation to `close`; its log is `log_path`."""

    def __init__(self, directory: Path, name: str, *command: str) -> None:
        self.log_path = directory / f"{name}.log"
        self.process = subprocess.Popen(
            [*command, f"--log-file={self.log_path}", "-vconsole:off"],
            env=os.environ | environment(directory),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Not --unixctl: ovn-controller does not take it.
        self.control = directory / f"{command[0]}.{self.process.pid}.ctl"
        wait_for(lambda: listens(self.control), f"{name} to take commands")

    def appctl(self, *args: str) -> str:
        return run("ovs-appctl", "-t", self.control, *args)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def complaints(self) -> list[str]:
        """The log's lines of level WARN and above."""
        return re.findall(r"^.*\|(?:WARN|ERR|EMER)\|.*$", self.log, re.MULTILINE)

    def kill9(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill9()


def environment(directory: Path) -> dict[str, str]:
    """Where OVS's and OVN's programs are told to keep their files, so that none meets another's."""
    names = ("RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR")
    return {f"{project}_{name}": str(directory) for project in ("OVS", "OVN") for name in names}


class Network:
    """A server with NB and SB databases, and the programs that a test starts on it."""

    def __init__(self, kind: str = KIND, **options: object) -> None:
        databases = (("nb", NB_SCHEMA), ("sb", SB_SCHEMA))
        self.server = Server(kind, databases, **options)  # type: ignore[arg-type]
        self.directory = self.server.directory
        self.programs: list[Program] = []
        self.others: list[Server] = []
        self.nbctl("init")
        self.sbctl("init")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for program in reversed(self.programs):
            program.close()
        for server in (*self.others, self.server):
            server.close()

    def nbctl(self, *args: str) -> str:
        return run("ovn-nbctl", f"--db={self.server.remote}", "--timeout=60", *args)

    def sbctl(self, *args: str) -> str:
        return run("ovn-sbctl", f"--db={self.server.remote}", "--timeout=60", *args)

    def start(self, name: str, *command: str, directory: Path | None = None) -> Program:
        program = Program(directory or self.directory, name, *command)
        self.programs.append(program)
        return program

    def vswitch_database(self) -> Server:
        """A hypervisor's own database, in a server of its own that ends with the network.

        It is a file always, as nobody else has use for it.
        """
        self.others.append(Server(of_one_process(self.server.kind), [("conf", VSWITCH_SCHEMA)]))
        return self.others[-1]

    def northd(self, name: str = "northd") -> Program:
        remote = self.server.remote
        return self.start(name, "ovn-northd", f"--ovnnb-db={remote}", f"--ovnsb-db={remote}")

    def build(self, script: str) -> None:
        """Runs `ovn-nbctl` once for each line of `script`, and waits for `ovn-northd`."""
        for line in filter(None, map(str.strip, script.splitlines())):
            self.nbctl(*shlex.split(line))
        self.nbctl("--wait=sb", "sync")

    def flows(self) -> list[str]:
        """The logical flows in `ovn-sbctl`'s words, without what chance decides: uuids."""
        text = re.sub(
            r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", self.sbctl("dump-flows")
        )
        datapath, flows = "", []
        for line in text.splitlines():
            if line.startswith("Datapath:"):
                datapath = line
            flows.append(f"{datapath} {line}")
        return sorted(flows)
