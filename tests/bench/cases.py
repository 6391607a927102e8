"""What is measured: one function for each row of the table, with its unit and its goal."""

from __future__ import annotations

import functools
import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.database import NB_SCHEMA, PORT_BINDING_COLUMNS, southbound
from tests.bench.load import Connection, call, encode, exchange, pipelined
from tests.servers import Server

ANSWER = b'"error":null'
NOTHING = "00000000-0000-0000-0000-000000000000"
southbound = functools.lru_cache(maxsize=2)(southbound)


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    inserts: int
    updates: int
    bulks: int
    dump_rows: int
    clients: int
    delivered: int
    rows: int


FULL = Size(30_000, 30_000, 40, 20_000, 100, 3_000, 100_000)
QUICK = Size(3_000, 3_000, 4, 2_000, 20, 300, 10_000)


@dataclass(frozen=True)
class Case:
    """`measure(kind, size)` gives the figure; `goal` is what the ratio to the C server should be.

    A goal is a least ratio, or a greatest one where `less_is_better`.
    """

    title: str
    unit: str
    measure: Callable[[str, Size], float]
    goal: float | None = None
    less_is_better: bool = False


def insert(number: int) -> dict[str, object]:
    row = {"name": f"switch-{number}", "external_ids": ["map", [["number", str(number)]]]}
    return {"op": "insert", "table": "Logical_Switch", "row": row}


def transact(*operations: dict[str, object]) -> bytes:
    return encode("transact", ["OVN_Northbound", *operations], 1)


def northbound(kind: str) -> Server:
    return Server(kind, [("nb", NB_SCHEMA)])


def inserts(kind: str, size: Size) -> float:
    requests = [transact(insert(number)) for number in range(size.inserts)]
    with northbound(kind) as server:
        seconds = pipelined(Connection(server.socket_path, ANSWER), requests)
    return size.inserts / seconds


def updates(kind: str, size: Size) -> float:
    with northbound(kind) as server:
        rows = [transact(*map(insert, range(start, start + 500))) for start in range(0, 5000, 500)]
        uuids = [each["uuid"] for result in call(server.socket_path, rows) for each in result]
        requests = [
            transact(
                {
                    "op": "update",
                    "table": "Logical_Switch",
                    "where": [["_uuid", "==", uuids[number % len(uuids)]]],
                    "row": {"external_ids": ["map", [["number", f"again {number}"]]]},
                }
            )
            for number in range(size.updates)
        ]
        seconds = pipelined(Connection(server.socket_path, ANSWER), requests)
    return size.updates / seconds


def bulk_inserts(kind: str, size: Size) -> float:
    requests = [
        transact(*map(insert, range(start * 1000, start * 1000 + 1000)))
        for start in range(size.bulks)
    ]
    with northbound(kind) as server:
        connection = Connection(server.socket_path, ANSWER)
        connection.todo = requests
        seconds = exchange([connection], len(requests))
    return size.bulks * 1000 / seconds


MONITOR = {"Port_Binding": [{"columns": PORT_BINDING_COLUMNS, "where": [True]}]}


def dump(kind: str, size: Size, clients: int) -> float:
    """Megabytes per second to `clients` that ask for all rows at once, none having asked before."""
    request = encode("monitor_cond_since", ["OVN_Southbound", "m", MONITOR, NOTHING], "dump")
    # The answer to the echo comes after the dump, at whose end there is no mark of its own.
    request += encode("echo", ["end of dump"], "echo")
    with Server(kind, [("sb", southbound(size.dump_rows))]) as server:
        sessions = [Connection(server.socket_path, b'["end of dump"]') for _ in range(clients)]
        for session in sessions:
            session.todo = [request]
        seconds = exchange(sessions, 1)
    assert min(session.received for session in sessions) > 500 * size.dump_rows
    return sum(session.received for session in sessions) / seconds / 1e6


def first_dump(kind: str, size: Size) -> float:
    return dump(kind, size, 1)


def many_dumps(kind: str, size: Size) -> float:
    return dump(kind, size, size.clients)


def deliveries(kind: str, size: Size) -> float:
    """Changes of a row per second that arrive at `clients` monitors, all sessions summed up."""
    request = encode("monitor_cond", ["OVN_Northbound", "m", {"Logical_Switch": [{}]}], 1)
    requests = [transact(insert(number)) for number in range(size.delivered)]
    with northbound(kind) as server:
        watchers = [Connection(server.socket_path, b'"insert":') for _ in range(size.clients)]
        for watcher in watchers:
            watcher.todo = [request]
        exchange(watchers, 0)
        settle(watchers)
        writer = Connection(server.socket_path, ANSWER)
        writer.todo = [b"".join(requests)]
        start = time.perf_counter()
        exchange([writer, *watchers], size.delivered)
        seconds = time.perf_counter() - start
    return size.delivered * size.clients / seconds


def settle(sessions: list[Connection]) -> None:
    """Returns when every session has been answered."""
    while any(not session.received or session.todo or session.rest for session in sessions):
        exchange(sessions, 0)
        time.sleep(0.01)


READY = encode("transact", ["OVN_Southbound", {"op": "comment", "comment": "ready"}], 1)


def opening(kind: str, size: Size) -> float:
    """Milliseconds from the start of the process to its first answer."""
    with Server(kind, [("sb", southbound(size.rows))], start=False) as server:
        start = time.perf_counter()
        server.start()
        call(server.socket_path, [READY])
        return (time.perf_counter() - start) * 1e3


def resident(server: Server) -> float:
    """Megabytes of resident memory."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1e3


def memory(kind: str, size: Size) -> float:
    with Server(kind, [("sb", southbound(size.rows))]) as server:
        call(server.socket_path, [READY])
        return resident(server)


def memory_after_dump(kind: str, size: Size) -> float:
    with Server(kind, [("sb", southbound(size.rows))]) as server:
        session = Connection(server.socket_path, b'["end of dump"]')
        session.todo = [
            encode("monitor_cond_since", ["OVN_Southbound", "m", MONITOR, NOTHING], "dump")
            + encode("echo", ["end of dump"], "echo")
        ]
        exchange([session], 1)
        return resident(server)


CASES = {
    "insert": Case("single-row inserts", "per second", inserts, 1),
    "update": Case("updates by _uuid", "per second", updates, 1),
    "bulk": Case("1,000-row inserts", "rows per second", bulk_inserts, 1),
    "dump": Case("first dump of 20,000 Port_Binding rows", "MB/s", first_dump, 3),
    "dumps": Case("100 clients' dumps at once", "MB/s in all", many_dumps, 20),
    "deliver": Case("deliveries to 100 monitors", "per second", deliveries),
    "open": Case("opening a 100,000-row file", "ms", opening, None, True),
    "memory": Case("resident memory at 100,000 rows", "MB", memory, 1.5, True),
    "memory-dump": Case("the same after one client's dump", "MB", memory_after_dump, None, True),
}


def compare(
    names: list[str], size: Size, rounds: int, progress: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """The median of `rounds` figures of each case and kind of server, which take turns."""
    result: dict[str, dict[str, float]] = {}
    for name in names:
        figures: dict[str, list[float]] = {"c": [], "ovncp": []}
        for _ in range(rounds):
            for kind, values in figures.items():
                progress(f"{name}: {kind}")
                values.append(CASES[name].measure(kind, size))
        result[name] = {kind: statistics.median(values) for kind, values in figures.items()}
    return result


def as_json(result: dict[str, dict[str, float]]) -> str:
    rows = [
        {
            "name": name,
            "unit": CASES[name].unit,
            **figures,
            "ratio": figures["ovncp"] / figures["c"],
        }
        for name, figures in result.items()
    ]
    return json.dumps(rows, indent=2)
