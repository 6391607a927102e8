"""Loads of many clients: dumps that resume, deliveries at a rate, conditions, and whole fleets.

The hypervisors are those of `ovncp simulate`, whose engine counts every delivery: a figure is only
given if nobody missed anything. A load that has several figures is run once for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import uvloop
from tests.bench.database import PORT_BINDING_COLUMNS, SB_SCHEMA, port_binding, southbound
from tests.bench.load import Connection, call, encode, exchange
from tests.servers import Server

from ovncp.ops.simulate.plan import Plan
from ovncp.ops.simulate.process import allow_files
from ovncp.ops.simulate.report import Spread
from ovncp.ops.simulate.series import Series
from ovncp.ops.simulate.simulation import Endpoints, Load, Simulation

DATABASE = "OVN_Southbound"
NOTHING = "00000000-0000-0000-0000-000000000000"
MONITOR = {"Port_Binding": [{"columns": PORT_BINDING_COLUMNS, "where": [True]}]}
END_OF_DUMP = b'"error":null}'
SPARE_FILES = 200
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Scale:
    """How much of everything. `workers` are those of our server."""

    rows: int
    clients: int
    updates: int
    many_conditions: int
    paced: int
    fleet: int
    fleet_rate: int
    fleet_seconds: int
    peak: int
    peak_seconds: int
    workers: int = 0


FULL = Scale(20_000, 100, 2_000, 1_000, 1_000, 5_000, 1_000, 60, 10_000, 10)
QUICK = Scale(2_000, 20, 300, 100, 200, 200, 200, 3, 1_000, 2)


# Resuming


@dataclass(frozen=True)
class Resumed:
    """What it took until all had resumed, and the bytes that the one with most was sent."""

    msec: float
    kilobytes: float


@functools.cache
def resume(kind: str, scale: Scale, restart: bool) -> Resumed:
    """Clients that know all rows but ten changes ask for what they have missed, at once."""
    with Server(kind, [("sb", southbound(scale.rows))]) as server:
        known = transaction_id(server)
        change_rows(server, 10)
        if restart:
            server.restart()
        request = encode("monitor_cond_since", [DATABASE, "m", MONITOR, known], "m")
        clients = [Connection(server.socket_path, END_OF_DUMP) for _ in range(scale.clients)]
        for client in clients:
            client.todo = [request]
        msec = exchange(clients, 1) * 1e3
    return Resumed(msec, max(client.received for client in clients) / 1e3)


def transaction_id(server: Server) -> str:
    """The state of the Southbound, by a monitor that shows next to nothing of it."""
    tables = {"SB_Global": [{"columns": ["nb_cfg"]}]}
    request = encode("monitor_cond_since", [DATABASE, "m", tables, NOTHING], "m")
    (result,) = call(server.socket_path, [request])
    return str(result[1])


def change_rows(server: Server, number: int) -> None:
    """Change so many ports, each in a transaction of its own."""
    operations = (
        {
            "op": "update",
            "table": "Port_Binding",
            "where": [["logical_port", "==", port_binding(port)["logical_port"]]],
            "row": {"nat_addresses": f"change {port}"},
        }
        for port in range(number)
    )
    call(server.socket_path, [encode("transact", [DATABASE, each], "t") for each in operations])


# Simulated hypervisors


@contextlib.asynccontextmanager
async def simulated(
    server: Server, plan: dict[str, Any], load: dict[str, Any]
) -> AsyncIterator[Simulation]:
    """Hypervisors that are about to connect to `server`, with their rows."""
    loop, port = asyncio.get_running_loop(), int(server.options[0].split(":")[1])

    async def connect(factory: Callable[[], asyncio.Protocol]) -> asyncio.BaseTransport:
        return (await loop.create_connection(factory, "127.0.0.1", port))[0]

    simulation = Simulation(
        Endpoints(f"tcp:127.0.0.1:{port}", connect, pid=server.pid),
        Plan(run=secrets.token_hex(2), **plan),
        Load(**{"replug_interval": 0, "update_interval": 0, "patience": PATIENCE_SECONDS} | load,
             keep=True),
        lambda _: None,
    )  # fmt: skip
    async with simulation.opened():
        yield simulation


def served(kind: str, scale: Scale, story: Callable[[Server], Awaitable[Any]]) -> Any:
    """What `story` says of a server with an empty Southbound."""
    allow_files(2 * scale.fleet + SPARE_FILES)
    options = [f"--remote=ptcp:{free_port()}:127.0.0.1"]
    if scale.workers and kind == "ovncp":
        options.append(f"--workers={scale.workers}")
    with (
        Server(kind, [("sb", SB_SCHEMA)], options=options, patience=PATIENCE_SECONDS) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(story(server))  # type: ignore[arg-type]


def free_port() -> int:
    """A TCP port that nobody uses, and that a server keeps over a restart."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def conditional(hypervisors: int) -> dict[str, Any]:
    """Hypervisors each of which sees what no other does."""
    return {"hypervisors": hypervisors, "ports": 4, "datapaths": 4, "spread": 1}


def update_rate(kind: str, scale: Scale, clients: int) -> float:
    """Updates per second that arrive, each at the one client whose condition it meets."""

    async def story(server: Server) -> float:
        async with simulated(server, conditional(clients), {}) as simulation:
            await simulation.connect()
            start = time.perf_counter()
            simulation.writer.burst(scale.updates)
            await simulation.drain()
            check(simulation)
            return scale.updates / (simulation.ledger.last_delivery - start)

    return float(served(kind, scale, story))


def conditions(kind: str, scale: Scale) -> float:
    return update_rate(kind, scale, scale.clients)


def more_conditions(kind: str, scale: Scale) -> float:
    """The rate with ten times as many conditions, in percent of that with as many as usual."""
    few = statistics.median(update_rate(kind, scale, scale.clients) for _ in range(3))
    return 100 * update_rate(kind, scale, scale.many_conditions) / few


def paced(kind: str, scale: Scale) -> float:
    """The 99th percentile of milliseconds to the last of all monitors, at a rate that C can do."""

    async def story(server: Server) -> float:
        plan = {"hypervisors": scale.clients, "whole_table": True, "ports": 4}
        async with simulated(server, plan, {}) as simulation:
            await simulation.connect()
            seconds = scale.updates / scale.paced
            await simulation.writer.pace(scale.paced, seconds, simulation.stopping)
            await simulation.drain()
            check(simulation)
            spread = Spread.of(simulation.ledger.latencies)
            assert spread is not None
            return spread.p99

    return float(served(kind, scale, story))


@dataclass(frozen=True)
class Fleet:
    """What thousands of conditional hypervisors saw, and what they took."""

    p99_msec: float
    disconnected: int
    megabytes: float
    reconnect_seconds: float


@functools.cache
def fleet(kind: str, scale: Scale) -> Fleet:
    """Updates at a rate; then all reconnect at once, after a restart of the server."""

    async def story(server: Server) -> Fleet:
        load = {
            "writes_per_second": scale.fleet_rate,
            "duration": scale.fleet_seconds,
            "update_interval": 60.0,
            "replug_interval": 60.0,
        }
        async with simulated(server, {"hypervisors": scale.fleet}, load) as simulation:
            await simulation.connect()
            meter = simulation.server_meter()
            assert meter is not None
            run = await simulation.work(
                Series(simulation.ledger, simulation.swarm, simulation.writer, meter)
            )
            check(simulation)
            assert run.delivery is not None
            back = await simulation.storm(lambda: asyncio.to_thread(server.restart))
            check(simulation)
            assert back.found == scale.fleet or kind == "c"
            return Fleet(run.delivery.p99, run.disconnects, meter.usage().max_bytes / 1e6,
                         back.seconds)  # fmt: skip

    result: Fleet = served(kind, scale, story)
    return result


def peak(kind: str, scale: Scale) -> float:
    """Seconds from the last of many updates to the last delivery; all must arrive."""

    async def story(server: Server) -> float:
        async with simulated(server, conditional(scale.clients), {}) as simulation:
            await simulation.connect()
            await simulation.writer.pace(scale.peak, scale.peak_seconds, simulation.stopping)
            await simulation.drain()
            check(simulation)
            return max(0.0, simulation.ledger.last_delivery - simulation.writer.last_write)

    return float(served(kind, scale, story))


def check(simulation: Simulation) -> None:
    """A figure for deliveries that did not come would be none."""
    assert not simulation.ledger.outstanding, "deliveries were lost"
    assert not simulation.writer.failed, simulation.writer.failure
