"""Real Redis in a temporary folder: one server, a cluster of three, or one behind sentinels.

It is Debian's program on free ports of the loopback interface; what a test wants to happen to it is
done to its processes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from engines import START_SECONDS, free_port
from ovncp.cluster.settings import RedisSettings

N_SLOTS = 16384


def redis_port() -> int:
    """A free port of which that for the bus of a cluster, 10000 above, exists and is free too."""
    while True:
        port = free_port()
        if port < 55000:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port + 10000))
                return port


class RedisServer:
    """One server; with `keeps` it writes down every change at once, else nothing ever."""

    def __init__(self, *options: str, keeps: bool = False, sentinel: str = "") -> None:
        """`sentinel` is the configuration of one, instead of a server."""
        self.port = redis_port()
        self._directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        keeping = ["--appendonly", "yes", "--appendfsync", "always"] if keeps else []
        self._options = [*options, *keeping]
        if sentinel:
            configuration = self._directory / "sentinel.conf"
            configuration.write_text(sentinel)
            self._options = [str(configuration), "--sentinel", *options]

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._directory)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it with the data that it has, if any, and wait until it takes commands."""
        first = self._options[:1] if self._options[:1] and "/" in self._options[0] else []
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    "redis-server",
                    *first,
                    *("--port", str(self.port), "--bind", "127.0.0.1"),
                    *("--dir", str(self._directory), "--daemonize", "no"),
                    *([] if first else ["--save", ""]),
                    *self._options[len(first) :],
                ],
                stdout=log,
                stderr=log,
                cwd=self._directory,
            )
        deadline = time.monotonic() + START_SECONDS
        while self.ask("PING") != "PONG":
            assert time.monotonic() < deadline, (self._directory / "log").read_text()
            time.sleep(0.02)

    def ask(self, *command: str) -> str:
        """The first line of the answer to a command, "" if there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(f"{' '.join(command)}\r\n".encode())
                return connection.recv(65536).decode().lstrip("+").splitlines()[0]
        except OSError:
            return ""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it by SIGKILL, even if it is stopped."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """In the block it takes connections and answers nothing."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def settings(self, **others: object) -> RedisSettings:
        """How to reach it."""
        return RedisSettings(addresses=(self.address,), **others)  # type: ignore[arg-type]


class RedisCluster:
    """Three members of one cluster, each with a third of the slots."""

    def __init__(self) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        self.members = [RedisServer(*options) for _ in range(3)]

    def __enter__(self) -> RedisCluster:
        first, *_ = self.members
        for member in self.members:
            member.start()
        share = N_SLOTS // 3
        bounds = [(0, share), (share + 1, 2 * share), (2 * share + 1, N_SLOTS - 1)]
        for number, (member, (low, high)) in enumerate(zip(self.members, bounds, strict=True), 1):
            assert member.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number)) == "OK"
            assert member.ask("CLUSTER", "ADDSLOTSRANGE", str(low), str(high)) == "OK"
            first.ask("CLUSTER", "MEET", "127.0.0.1", str(member.port))
        deadline = time.monotonic() + START_SECONDS
        while not all(self._is_whole(member) for member in self.members):
            assert time.monotonic() < deadline, "the cluster does not come together"
            time.sleep(0.05)
        return self

    @staticmethod
    def _is_whole(member: RedisServer) -> bool:
        done = subprocess.run(
            ["redis-cli", "-p", str(member.port), "CLUSTER", "INFO"], capture_output=True, text=True
        )
        return "cluster_state:ok" in done.stdout and "cluster_known_nodes:3" in done.stdout

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.__exit__()

    def settings(self, **others: object) -> RedisSettings:
        """How to reach it."""
        addresses = tuple(member.address for member in self.members[:2])
        return RedisSettings(addresses=addresses, cluster=True, **others)  # type: ignore[arg-type]


class SentinelRedis:
    """A server, a replica of it, and three sentinels who agree on which one is to be used."""

    NAME = "mine"

    def __init__(self) -> None:
        self.servers = [RedisServer() for _ in range(2)]
        self._sentinels: Sequence[RedisServer] = []

    def __enter__(self) -> SentinelRedis:
        first, second = self.servers
        first.start()
        second.start()
        assert second.ask("REPLICAOF", "127.0.0.1", str(first.port)) == "OK"
        self._sentinels = [RedisServer(sentinel=self._configuration()) for _ in range(3)]
        for sentinel in self._sentinels:
            sentinel.start()
        deadline = time.monotonic() + START_SECONDS
        while not all(self._knows_all(sentinel) for sentinel in self._sentinels):
            assert time.monotonic() < deadline, "the sentinels do not find each other"
            time.sleep(0.05)
        return self

    def _configuration(self) -> str:
        name, port = self.NAME, self.servers[0].port
        return (
            f"sentinel monitor {name} 127.0.0.1 {port} 2\n"
            f"sentinel down-after-milliseconds {name} 500\n"
            f"sentinel failover-timeout {name} 2000\n"
        )

    def _knows_all(self, sentinel: RedisServer) -> bool:
        done = subprocess.run(
            ["redis-cli", "-p", str(sentinel.port), "SENTINEL", "MASTER", self.NAME],
            capture_output=True,
            text=True,
        )
        told = done.stdout.split()
        facts = dict(zip(told[::2], told[1::2], strict=False))
        return (facts.get("num-slaves"), facts.get("num-other-sentinels")) == ("1", "2")

    def __exit__(self, *_: object) -> None:
        for server in (*self._sentinels, *self.servers):
            server.__exit__()

    def settings(self, **others: object) -> RedisSettings:
        """How to reach it."""
        addresses = tuple(sentinel.address for sentinel in self._sentinels)
        return RedisSettings(addresses=addresses, sentinel_master=self.NAME, **others)  # type: ignore[arg-type]
