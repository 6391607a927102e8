"""What is put to the test: servers of ours over an engine, one on a file, or C's cluster."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from c_cluster import CCluster
from chaos.machines import Machine, Network
from chaos.transactions import EMPTY, NAME, SCHEMA
from chaos.victims import CVictim, EtcdVictim, PostgresVictim, ServerVictim, Victim
from engines import EtcdCluster, Postgres
from servers import Client, Server

N_SERVERS = 3
_USUAL = r"\|INFO\||\|(jsonrpc|reconnect)\|"
OVNCP = str(Path(sys.executable).with_name("ovncp"))


@dataclass
class Subject:
    """Where clients reach the servers, by name, and what may be harmed."""

    endpoints: dict[str, str]
    servers: Sequence[Victim]
    members: Sequence[Victim] = ()
    network: Network | None = None

    def complaints(self) -> dict[str, list[str]]:
        """What the servers have warned of, by name."""
        return {
            victim.name: [
                line for line in victim.server.log.splitlines() if not re.search(_USUAL, line)
            ]
            for victim in self.servers
            if isinstance(victim, ServerVictim)
        }


class ClusteredServer(Server):
    """A server of ours over the log at `location`, on a machine of its own."""

    def __init__(self, location: str, machine: Machine, options: Sequence[str] = ()):
        self._machine = machine
        # The clock is that of the machine.
        super().__init__("ovncp", options=[*options, location], env=machine.environment,
                         patience=30)  # fmt: skip

    @property
    def command(self) -> list[str]:
        return [*self._machine.prefix, *super().command]


@contextlib.contextmanager
def on_a_file() -> Iterator[Subject]:
    """One server on a file."""
    with Server("ovncp", [(NAME, SCHEMA)], patience=30) as server:
        with server.client() as client:
            client.transact(NAME, *EMPTY)
        yield Subject({"s0": server.remote}, [ServerVictim("s0", server)])


@contextlib.contextmanager
def of_c() -> Iterator[Subject]:
    """Three of C's."""
    with CCluster(SCHEMA) as cluster:
        with cluster.client(cluster.wait_for_leader()) as client:
            client.transact(NAME, *EMPTY)
        endpoints = {f"c{member}": endpoint for member, endpoint in enumerate(cluster.endpoints)}
        yield Subject(endpoints, [CVictim(cluster, member) for member in range(3)])


@contextlib.contextmanager
def on_etcd() -> Iterator[Subject]:
    """Three servers over three members of etcd."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        machines = [network.add(f"etcd{member}") for member in range(3)]
        operator = network.add("operator")
        etcd = stack.enter_context(EtcdCluster(places=[*machines, operator]))
        members = [EtcdVictim(etcd, i, machine) for i, machine in enumerate(machines)]
        locations = [etcd.url(NAME, first) for first in range(N_SERVERS)]
        yield _clustered(stack, network, operator, locations, members)


@contextlib.contextmanager
def on_postgres() -> Iterator[Subject]:
    """Three servers over one PostgreSQL."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        machine = network.add("postgres")
        postgres = stack.enter_context(Postgres(machine))
        locations = [postgres.url(NAME)] * N_SERVERS
        members = [PostgresVictim(postgres, machine)]
        yield _clustered(stack, network, network.add("operator"), locations, members)


def _clustered(
    stack: contextlib.ExitStack,
    network: Network,
    operator: Machine,
    locations: Sequence[str],
    members: Sequence[Victim],
) -> Subject:
    create_database(operator, locations[0])
    servers = []
    for number, location in enumerate(locations):
        machine = network.add(f"server{number}")
        server = stack.enter_context(ClusteredServer(location, machine))
        servers.append(ServerVictim(f"s{number}", server, machine))
    with Client(servers[0].server.socket_path) as client:
        client.transact(NAME, *EMPTY)
    endpoints = {victim.name: victim.server.remote for victim in servers}
    return Subject(endpoints, servers, members, network)


def create_database(operator: Machine, location: str) -> None:
    """An empty one, by our command line on the machine `operator`."""
    schema = operator.clock.with_name("schema")
    schema.write_text(json.dumps(SCHEMA))
    command = [*operator.prefix, OVNCP, "db", "create", location, str(schema)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


SUBJECTS: dict[str, Callable[[], contextlib.AbstractContextManager[Subject]]] = {
    "file": on_a_file,
    "c": of_c,
    "etcd": on_etcd,
    "postgresql": on_postgres,
}
