"""What is measured: one function for each row of the table, with its unit and its goal."""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench import large, scale
from tests.bench.database import NB_SCHEMA, PORT_BINDING_COLUMNS, southbound
from tests.bench.load import Connection, call, encode, exchange, pipelined
from tests.bench.scale import Scale
from tests.servers import Server

ANSWER = b'"error":null'
SWITCHES = 500
C_DUMPS_SHARE = 10
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
    large_rows: int
    scale: Scale


FULL = Size(30_000, 30_000, 40, 20_000, 100, 2_000, 100_000, 250_000, scale.FULL)
QUICK = Size(3_000, 3_000, 4, 2_000, 20, 300, 10_000, 25_000, scale.QUICK)


@dataclass(frozen=True)
class Case:
    """`measure(kind, size)` gives the figure of a kind of server.

    `goal` is what its ratio to the C server's figure should be, `own_goal` what ours should be;
    the least, or the greatest where `less_is_better`. `with_c` is whether C is measured at all.
    """

    title: str
    unit: str
    measure: Callable[[str, Size], float]
    goal: float | None = None
    less_is_better: bool = False
    own_goal: float | None = None
    with_c: bool = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """The servers that are measured."""
        return ("c", "ovncp") if self.with_c else ("ovncp",)

    def meets(self, limit: float | None, figure: float | None) -> bool:
        """Whether a figure or a ratio is within its goal, if there is one."""
        if limit is None:
            return True
        return figure is not None and (figure <= limit if self.less_is_better else figure >= limit)


def insert(number: int) -> dict[str, object]:
    row = {"name": f"switch-{number}", "external_ids": ["map", [["number", str(number)]]]}
    return {"op": "insert", "table": "Logical_Switch", "row": row}


def change(uuid: object, number: int) -> dict[str, object]:
    where = [["_uuid", "==", uuid]]
    row = {"external_ids": ["map", [["number", f"again {number}"]]]}
    return {"op": "update", "table": "Logical_Switch", "where": where, "row": row}


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
            transact(change(uuids[number % len(uuids)], number)) for number in range(size.updates)
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


def dump(kind: str, size: Size, clients: int) -> tuple[float, int]:
    """The seconds and bytes of `clients` asking for all rows at once, none having asked before."""
    request = encode("monitor_cond_since", ["OVN_Southbound", "m", MONITOR, NOTHING], "dump")
    # The answer to the echo comes after the dump, at whose end there is no mark of its own.
    request += encode("echo", ["end of dump"], "echo")
    with Server(kind, [("sb", southbound(size.dump_rows))]) as server:
        sessions = [Connection(server.socket_path, b'["end of dump"]') for _ in range(clients)]
        for session in sessions:
            session.todo = [request]
        seconds = exchange(sessions, 1)
    assert min(session.received for session in sessions) > 500 * size.dump_rows
    return seconds, sum(session.received for session in sessions)


def first_dump(kind: str, size: Size) -> float:
    return dump(kind, size, 1)[0] * 1e3


def many_dumps(kind: str, size: Size) -> float:
    """Megabytes per second, all sessions summed up.

    C makes each client's dump anew, at the same rate for few as for many, so that it has fewer.
    """
    clients = size.clients if kind == "ovncp" else size.clients // C_DUMPS_SHARE
    seconds, n_bytes = dump(kind, size, clients)
    return n_bytes / seconds / 1e6


def deliveries(kind: str, size: Size) -> float:
    """Changes of a row per second that arrive at `clients` monitors, all sessions summed up."""
    request = encode("monitor_cond", ["OVN_Northbound", "m", {"Logical_Switch": [{}]}], 1)
    with northbound(kind) as server:
        (rows,) = call(server.socket_path, [transact(*map(insert, range(SWITCHES)))])
        uuids = [row["uuid"] for row in rows]
        requests = [
            transact(change(uuids[number % SWITCHES], number)) for number in range(size.delivered)
        ]
        watchers = [Connection(server.socket_path, b'"modify":') for _ in range(size.clients)]
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


def with_rows(measure: Callable[[str, int], float]) -> Callable[[str, Size], float]:
    return lambda kind, size: measure(kind, size.rows)


def with_many_rows(measure: Callable[[str, int], float]) -> Callable[[str, Size], float]:
    return lambda kind, size: measure(kind, size.large_rows)


def memory_after_dump(kind: str, size: Size) -> float:
    with Server(kind, [("sb", southbound(size.rows))]) as server:
        session = Connection(server.socket_path, b'["end of dump"]')
        session.todo = [
            encode("monitor_cond_since", ["OVN_Southbound", "m", MONITOR, NOTHING], "dump")
            + encode("echo", ["end of dump"], "echo")
        ]
        exchange([session], 1)
        return large.resident(server)


def resumed(part: str, restart: bool) -> Callable[[str, Size], float]:
    return lambda kind, size: float(getattr(scale.resume(kind, size.scale, restart), part))


def of_fleet(part: str) -> Callable[[str, Size], float]:
    return lambda kind, size: float(getattr(scale.fleet(kind, size.scale), part))


def scaled(measure: Callable[[str, Scale], float]) -> Callable[[str, Size], float]:
    return lambda kind, size: measure(kind, size.scale)


def ours(
    title: str, unit: str, measure: Callable[[str, Size], float], goal: float, less: bool = True
) -> Case:
    """A case with a goal of its own, which C is not measured by."""
    return Case(title, unit, measure, None, less, goal, False)


CASES = {
    "insert": Case("single-row inserts", "per second", inserts, 1.5),
    "update": Case("updates by _uuid", "per second", updates, 1.5),
    "bulk": Case("1,000-row inserts", "rows per second", bulk_inserts, 1),
    "dump": Case("first dump of 20,000 Port_Bindings", "ms", first_dump, 0.2, True, 150),
    "dumps": Case("100 clients' dumps at once", "MB/s in all", many_dumps, 20, False, 1_000),
    "resume": ours("100 clients resume after 10 changes", "ms", resumed("msec", False), 100),
    "resume-bytes": ours(
        "the most that one of them is sent", "kB", resumed("kilobytes", False), 10
    ),
    "restart": ours("the same after a restart", "ms", resumed("msec", True), 100),
    "restart-bytes": ours("the most then", "kB", resumed("kilobytes", True), 10),
    "deliver": Case("deliveries to 100 monitors", "per second", deliveries, 3),
    "deliver-p99": Case(
        "the last of them is told, 1,000 updates/s", "p99 ms", scaled(scale.paced),
        None, True, 50,
    ),
    "conditions": Case(
        "updates, 100 different conditions", "per second", scaled(scale.conditions), 3
    ),
    "conditions-1000": ours(
        "the same, 1,000 conditions", "% of that", scaled(scale.more_conditions), 50, False
    ),
    "peak": ours("10,000 updates/s for 10 s: recovered", "s", scaled(scale.peak), 5),
    "fleet": ours("5,000 clients, 1,000 updates/s for 60 s", "p99 ms", of_fleet("p99_msec"), 250),
    "fleet-lost": ours("disconnected of them", "clients", of_fleet("disconnected"), 0),
    "fleet-memory": ours("the server's memory", "MB", of_fleet("megabytes"), 2_000),
    "fleet-storm": ours("all reconnect after a restart", "s", of_fleet("reconnect_seconds"), 10),
    "open": Case("opening a 100,000-row file", "ms", with_rows(large.opening), None, True),
    "open-large": Case(
        "opening 250,000 Port_Bindings", "ms", with_many_rows(large.opening), 1, True
    ),
    "stall": Case(
        "longest wait while those are compacted", "ms", with_many_rows(large.compaction_stall),
        None, True, 100,
    ),
    "memory": Case("resident memory at 100,000 rows", "MB", with_rows(large.memory), 1.5, True),
    "memory-large": Case(
        "resident memory at 250,000", "MB", with_many_rows(large.memory), 1.3, True
    ),
    "memory-dump": Case("the same after one client's dump", "MB", memory_after_dump, None, True),
}  # fmt: skip


def compare(
    names: list[str], size: Size, rounds: int, progress: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """The median of `rounds` figures of each case and kind of server, which take turns."""
    result: dict[str, dict[str, float]] = {}
    for name in names:
        figures: dict[str, list[float]] = {kind: [] for kind in CASES[name].kinds}
        for _ in range(rounds):
            for kind, values in figures.items():
                progress(f"{name}: {kind}")
                values.append(CASES[name].measure(kind, size))
        result[name] = {kind: statistics.median(values) for kind, values in figures.items()}
    return result


def ratio(figures: dict[str, float]) -> float | None:
    """Ours to the C server's; None without one."""
    return figures["ovncp"] / figures["c"] if "c" in figures else None


def as_json(result: dict[str, dict[str, float]]) -> str:
    rows = [
        {"name": name, "unit": CASES[name].unit, **figures, "ratio": ratio(figures)}
        for name, figures in result.items()
    ]
    return json.dumps(rows, indent=2)
