"""What can be harmed: processes that are killed, and started again on what they have stored."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from typing import Protocol

from c_cluster import CCluster
from chaos.machines import Machine
from engines import EtcdCluster, Postgres
from servers import Server

START_SECONDS = 60.0


class Victim(Protocol):
    """A process of a cluster; `machine` is where it runs, if it has one of its own."""

    name: str
    machine: Machine | None

    def kill(self) -> None:
        """End it by SIGKILL."""

    def start(self) -> None:
        """Start it again."""

    @property
    def pids(self) -> Sequence[int]:
        """Its processes."""


class ServerVictim:
    """A server of ours."""

    def __init__(self, name: str, server: Server, machine: Machine | None = None):
        self.name = name
        self.server = server
        self.machine = machine

    def kill(self) -> None:
        self.server.kill9()

    def start(self) -> None:
        """As a service supervisor does: again, if the engine was out of reach."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.server.start()
            except RuntimeError:
                if self.server.alive:
                    self.server.kill9()
                if time.monotonic() > deadline:
                    raise

    @property
    def pids(self) -> Sequence[int]:
        return [self.server.pid]


class EtcdVictim:
    """A member of etcd."""

    def __init__(self, cluster: EtcdCluster, member: int, machine: Machine):
        self.name = f"etcd {member}"
        self.machine = machine
        self.cluster = cluster
        self.member = member

    def kill(self) -> None:
        self.cluster.kill(self.member)

    def start(self) -> None:
        self.cluster.start(self.member)

    @property
    def pids(self) -> Sequence[int]:
        return [self.cluster.pid(self.member)]


class PostgresVictim:
    """PostgreSQL: the postmaster, and its children, which go when it goes."""

    name = "PostgreSQL"

    def __init__(self, postgres: Postgres, machine: Machine):
        self.postgres = postgres
        self.machine = machine

    def kill(self) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):  # A child goes when the first one does.
                os.kill(pid, signal.SIGKILL)
        self.postgres.wait()

    def kill_backend(self) -> None:
        """One of those that serve clients; the postmaster ends all others and recovers."""
        self.postgres.kill_backend()

    def start(self) -> None:
        self.postgres.start()

    @property
    def pids(self) -> Sequence[int]:
        return self.postgres.pids


class CVictim:
    """A member of a cluster of C servers."""

    machine = None

    def __init__(self, cluster: CCluster, member: int):
        self.name = f"C {member}"
        self.cluster = cluster
        self.member = member

    def kill(self) -> None:
        self.cluster.kill(self.member)

    def start(self) -> None:
        self.cluster.start(self.member)

    @property
    def pids(self) -> Sequence[int]:
        return [self.cluster.pid(self.member)]
