"""What is measured of clusters: ours over each engine, ours on a file, and C's, all on loopback."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from c_cluster import CCluster
from engines import EtcdCluster, Postgres
from servers import Client, Server

NAME = "bench"
TABLE = "Row"
SCHEMA = {
    "name": NAME,
    "version": "1.0.0",
    "tables": {
        TABLE: {
            "columns": {"name": {"type": "string"}, "number": {"type": "integer"}},
            "isRoot": True,
        }
    },
}
N_SERVERS = 3

Address = Path | tuple[str, int]


@dataclass
class Deployment:
    """Servers of one database at `addresses`.

    `leader` is which of them to write to if it is to be quick, of ours any; `kill` and `start` take
    the number of a server. `kill_engine_leader` returns what starts it again.
    """

    addresses: list[Address]
    leader: Callable[[], int]
    kill: Callable[[int], None]
    start: Callable[[int], None]
    kill_engine_leader: Callable[[], Callable[[], None]] | None = None
    etcd: EtcdCluster | None = None
    postgres: Postgres | None = None

    def count(self) -> int:
        """How many rows there are."""
        # Rows that look alike are given once only.
        select = {"op": "select", "table": TABLE, "where": [], "columns": ["_uuid"]}
        with Client(self.addresses[self.leader()], timeout=60) as client:
            return len(client.transact(NAME, select)[0]["rows"])


@contextlib.contextmanager
def on_a_file() -> Iterator[Deployment]:
    """One of ours on a file."""
    with Server("ovncp", [(NAME, SCHEMA)]) as server:
        yield _of_servers([server])


@contextlib.contextmanager
def on_etcd() -> Iterator[Deployment]:
    """Three of ours over three members of etcd, with default timers."""
    with EtcdCluster() as etcd, contextlib.ExitStack() as stack:
        locations = [etcd.url(NAME, first) for first in range(N_SERVERS)]
        deployment = _of_servers(_shared(stack, locations))
        deployment.etcd = etcd

        def kill_leader() -> Callable[[], None]:
            member = etcd.wait_for_leader()
            etcd.kill(member)
            return lambda: etcd.start(member)

        deployment.kill_engine_leader = kill_leader
        yield deployment


@contextlib.contextmanager
def on_postgres() -> Iterator[Deployment]:
    """Three of ours over PostgreSQL."""
    with Postgres() as postgres, contextlib.ExitStack() as stack:
        deployment = _of_servers(_shared(stack, [postgres.url(NAME)] * N_SERVERS))
        deployment.postgres = postgres
        yield deployment


def _shared(stack: contextlib.ExitStack, locations: list[str]) -> list[Server]:
    program = str(Path(sys.executable).with_name("ovncp"))
    schema = Path(stack.enter_context(_temporary_schema()))
    create = [program, "db", "create", locations[0], str(schema)]
    subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
    return [
        stack.enter_context(Server("ovncp", options=[location], patience=30))
        for location in locations
    ]


@contextlib.contextmanager
def _temporary_schema() -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".ovsschema") as file:
        json.dump(SCHEMA, file)
        file.flush()
        yield file.name


def _of_servers(servers: list[Server]) -> Deployment:
    return Deployment(
        [server.socket_path for server in servers],
        lambda: 0,
        lambda number: servers[number].kill9(),
        lambda number: servers[number].start(),
    )


@contextlib.contextmanager
def of_c() -> Iterator[Deployment]:
    """Three of C's, with default timers."""
    with CCluster(SCHEMA) as cluster:
        addresses: list[Address] = []
        for endpoint in cluster.endpoints:
            _, host, port = endpoint.split(":")
            addresses.append((host, int(port)))
        yield Deployment(addresses, cluster.wait_for_leader, cluster.kill, cluster.start)


DEPLOYMENTS = {"file": on_a_file, "etcd": on_etcd, "postgresql": on_postgres, "C": of_c}


def wait_until_usable(deployment: Deployment) -> None:
    """Return when every server says that it is connected."""
    for address in deployment.addresses:
        while not _is_connected(address):
            time.sleep(0.05)


def _is_connected(address: Address) -> bool:
    columns = ["connected"]
    where = [["name", "==", NAME]]
    select = {"op": "select", "table": "Database", "where": where, "columns": columns}
    with Client(address) as client:
        return bool(client.transact("_Server", select)[0]["rows"][0]["connected"])
