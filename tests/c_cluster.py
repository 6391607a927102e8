"""Debian's C servers as a real Raft cluster, in a temporary folder of its own.

A member is stopped, killed, frozen and looked at one by one; its file stays where `file` says for
as long as the cluster is open.  What a test reads of a file is what the member has written so far.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from engines import free_port
from servers import Client, Source, listens, run

START_SECONDS = 60.0


class CCluster:
    """Members 0 and on of one cluster of the database `name`.

    `source` is a schema (an object, or the path of a schema file) or a standalone database file's
    path; `options` go to every member's command line.  `program` makes the files.  Frozen members
    do not count in `leader`.
    """

    def __init__(
        self,
        source: Source,
        n_members: int = 3,
        options: Sequence[str] = (),
        election_timer_msec: int = 1000,
        program: Sequence[str] = ("ovsdb-tool",),
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="raft-"))
        self._options = options
        self._election_timer_msec = election_timer_msec
        self._program = program
        self._source = self._source_file(source)
        self._ports = [(free_port(), free_port()) for _ in range(n_members)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._frozen: set[int] = set()
        self._clients: list[Client] = []
        self.name = ""

    def _source_file(self, source: Source) -> Path:
        if not isinstance(source, dict | bytes):
            return Path(source)
        path = self.directory / "source"
        path.write_bytes(source if isinstance(source, bytes) else json.dumps(source).encode())
        return path

    def __enter__(self) -> CCluster:
        try:
            self._create()
            for member in range(len(self._ports)):
                self.start(member)
            self.wait_until_joined()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every member and remove the folder."""
        for client in self._clients:
            client.close()
        for member in list(self._processes):
            self.kill(member)
        shutil.rmtree(self.directory)

    def _create(self) -> None:
        timer = f"--election-timer={self._election_timer_msec}"
        first, *others = range(len(self._ports))
        create = ("-vconsole:off", timer, "create-cluster", self.file(first), self._source)
        run(*self._program, *create, self.address(first))
        self.name = run("ovsdb-tool", "db-name", self.file(first)).strip()
        for member in others:
            join = ("join-cluster", self.file(member), self.name, self.address(member))
            run(*self._program, *join, self.address(first))

    def file(self, member: int) -> Path:
        """The database file of `member`."""
        return self.directory / f"n{member}.db"

    @property
    def files(self) -> list[Path]:
        """The members' database files."""
        return [self.file(member) for member in range(len(self._ports))]

    def address(self, member: int) -> str:
        """Where the other members reach `member`."""
        return f"tcp:127.0.0.1:{self._ports[member][1]}"

    @property
    def endpoints(self) -> list[str]:
        """Where clients reach each member, as `--db` of a real client takes it."""
        return [f"tcp:127.0.0.1:{client}" for client, _ in self._ports]

    @property
    def remote(self) -> str:
        """All of `endpoints` as one."""
        return ",".join(self.endpoints)

    def start(self, member: int) -> None:
        """Start `member` on the file that it has, and wait until it takes commands."""
        log = open(self.directory / f"n{member}.log", "ab")  # noqa: SIM115
        self._control(member).unlink(missing_ok=True)
        self._processes[member] = subprocess.Popen(
            [
                "ovsdb-server",
                f"--remote=ptcp:{self._ports[member][0]}:127.0.0.1",
                f"--unixctl={self._control(member)}",
                "-vconsole:info",
                *self._options,
                str(self.file(member)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.directory,
        )
        log.close()
        self.wait(lambda: listens(self._control(member)), f"member {member} does not start")

    def _control(self, member: int) -> Path:
        return self.directory / f"n{member}.ctl"

    def log(self, member: int) -> str:
        """What `member` has logged so far."""
        return (self.directory / f"n{member}.log").read_text()

    def stop(self, member: int) -> None:
        """End `member` by the runtime command, as an operator does."""
        self.appctl(member, "exit")
        self._processes.pop(member).wait(START_SECONDS)

    def kill(self, member: int) -> None:
        """End `member` by SIGKILL, even if it is frozen."""
        process = self._processes.pop(member)
        self._frozen.discard(member)
        process.kill()
        process.wait()

    def pid(self, member: int) -> int:
        """The process of `member`."""
        return self._processes[member].pid

    def freeze(self, member: int) -> None:
        """SIGSTOP `member`."""
        self._processes[member].send_signal(signal.SIGSTOP)
        self._frozen.add(member)

    def thaw(self, member: int) -> None:
        """SIGCONT `member`."""
        self._processes[member].send_signal(signal.SIGCONT)
        self._frozen.discard(member)

    @property
    def running(self) -> list[int]:
        """The members that run and are not frozen."""
        return [member for member in self._processes if member not in self._frozen]

    def appctl(self, member: int, *arguments: str) -> str:
        """What a runtime command of `member` says."""
        return run("ovs-appctl", "-t", self._control(member), *arguments)

    def status(self, member: int) -> dict[str, str]:
        """The lines `KEY: VALUE` of cluster/status."""
        lines = self.appctl(member, "cluster/status", self.name)
        return dict(re.findall(r"^(\w[^:\n]*): (.*)$", lines, re.MULTILINE))

    def leader(self) -> int | None:
        """Which member says that it leads, in the highest term that any leader knows."""
        statuses = {member: self.status(member) for member in self.running}
        leaders = [member for member in statuses if statuses[member].get("Role") == "leader"]
        return max(leaders, key=lambda member: int(statuses[member]["Term"]), default=None)

    def wait_for_leader(self, *, other_than: int | None = None) -> int:
        """Return when a member leads, and it is not `other_than`: which."""
        self.wait(lambda: self.leader() not in (None, other_than), "the cluster has no leader")
        leader = self.leader()
        return leader if leader is not None else self.wait_for_leader(other_than=other_than)

    def wait_until_joined(self) -> None:
        """Return when every member that runs is of the cluster and knows who leads."""
        for member in self.running:
            run("ovsdb-client", "--timeout=60", "wait", self.endpoints[member], self.name,
                "connected")  # fmt: skip

    def wait_until_equal(self) -> None:
        """Return when the members that run have applied all that any of them has."""

        def positions() -> set[str]:
            return {self.status(member)["Log"].split(",")[1] for member in self.running}

        def nothing_left() -> bool:
            return all(
                status["Entries not yet committed"] == status["Entries not yet applied"] == "0"
                for status in map(self.status, self.running)
            )

        self.wait(lambda: len(positions()) == 1 and nothing_left(), "the members stay different")

    def wait(self, done: Callable[[], bool], failure: str) -> None:
        """Return when `done` says so; fail with the message `failure` if that takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while not done():
            assert time.monotonic() < deadline, failure
            time.sleep(0.02)

    def client(self, member: int) -> Client:
        """A session with `member`, closed with the cluster at the latest."""
        client = Client(("127.0.0.1", self._ports[member][0]))
        self._clients.append(client)
        return client
