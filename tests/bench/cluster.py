"""`python -m tests.bench.cluster`: clusters of ours and C's, how fast, and for how long not at all.

    PYTHONPATH=tests python -m tests.bench.cluster [--quick] [--only TABLE] [--kills N]

Throughput is of single-row transactions, pipelined, the median of some rounds; all that were sent
are counted in the database afterwards. A pause is the longest time between two answers that say
that something was written, to a client that writes one row after another, waits for nothing but the
answers, and turns to the next server (of C's, to the leader) when it has lost its own. The move is
from a C cluster to one of ours (docs/clustering.md), with four such clients; theirs are the pauses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import pairwise

import asyncpg
from tests.bench.deployments import (
    DEPLOYMENTS,
    NAME,
    TABLE,
    Deployment,
    wait_until_usable,
)
from tests.bench.load import Connection, encode, pipelined_by_all

from engines import shared
from move_from_c import Move
from ovncp.log.etcd_client import PARAMETERS, EtcdClient, put
from ovncp.log.location import Location
from servers import Client, Closed, Timeout

ANSWER = b'"error":null'
N_INSERTS = 60_000
N_INSERTS_OF_C = 2_000
N_ROUNDS = 7
N_LONE = 300
N_KILLS = 20
N_MOVED = 50_000
STEADY_S = 1.5
"""How long a client has written without a pause before the next kill."""
LARGE_ENOUGH = 300
"""The bytes of an engine's own write, about those of a transaction's entry."""

Row = tuple[str, ...]


def insert(number: int) -> dict[str, object]:
    return {"op": "insert", "table": TABLE, "row": {"name": f"row {number}", "number": number}}


# Throughput


def throughput(deployment: Deployment, servers: Sequence[int], n_inserts: int) -> float:
    """Transactions per second, of `n_inserts` by clients at each of `servers`."""
    # C's members want each to have an id of its own.
    n_each = n_inserts // len(servers)
    requests = [encode("transact", [NAME, insert(n)], n) for n in range(n_each)]
    connections = [Connection(deployment.addresses[server], ANSWER) for server in servers]
    before = deployment.count()
    seconds = pipelined_by_all(connections, requests)
    for connection in connections:
        connection.socket.close()
    n_written = len(servers) * n_each
    n_stored = deployment.count() - before
    assert n_stored == n_written, f"{n_written} were answered, {n_stored} are there"
    return n_written / seconds


def throughputs(name: str, deployment: Deployment, share: float) -> list[Row]:
    """The rows of `deployment`."""
    # C's members take too long for more than one.
    n_inserts, n_rounds = (N_INSERTS_OF_C, 1) if name == "C" else (N_INSERTS, N_ROUNDS)
    n_inserts, n_rounds = int(n_inserts * share), max(1, int(n_rounds * share))
    leader = deployment.leader()
    everybody = list(range(len(deployment.addresses)))
    ways: dict[str, list[int]] = {"one server": [leader]}
    if len(everybody) > 1:
        ways = {"one server of three": [leader], "all three servers": everybody}
    if name == "C":
        ways = {"the leader": [leader], "a follower": [(leader + 1) % 3], **ways}
        del ways["one server of three"]
    rates: dict[str, list[float]] = {}
    if name != "C" and len(everybody) > 1:
        # On this machine the others have no cores of their own. First, with no more rows than the
        # file has when it is measured.
        for other in everybody[1:]:
            deployment.kill(other)
        rates = _in_turn(deployment, {"a server alone": [leader]}, n_inserts, n_rounds)
        for other in everybody[1:]:
            deployment.start(other)
        wait_until_usable(deployment)
    rates |= _in_turn(deployment, ways, n_inserts, n_rounds)
    return [
        (name, to, *(f"{rate:,.0f}" for rate in (statistics.median(found), min(found), max(found))))
        for to, found in rates.items()
    ]


def _in_turn(
    deployment: Deployment, ways: dict[str, list[int]], n_inserts: int, n_rounds: int
) -> dict[str, list[float]]:
    """The rates of each way, one after the other, again and again."""
    rates: dict[str, list[float]] = {to: [] for to in ways}
    for _ in range(n_rounds):
        for to, servers in ways.items():
            rates[to].append(throughput(deployment, servers, n_inserts))
    return rates


# Lone writes


def lone(deployment: Deployment, n_writes: int) -> list[float]:
    """The milliseconds of each of writes that come one after another."""
    with Client(deployment.addresses[deployment.leader()]) as client:
        return [_timed(lambda n=n: client.transact(NAME, insert(n))) for n in range(n_writes)]


def _timed(deed: Callable[[], object]) -> float:
    start = time.perf_counter()
    deed()
    return (time.perf_counter() - start) * 1e3


async def _own(write: Callable[[int], Awaitable[object]], n_writes: int) -> list[float]:
    found = []
    for number in range(n_writes):
        start = time.perf_counter()
        await write(number)
        found.append((time.perf_counter() - start) * 1e3)
    return found


async def own_of_etcd(deployment: Deployment, n_writes: int) -> list[float]:
    """As `lone`, of etcd itself: a bare put."""
    assert deployment.etcd is not None
    client = EtcdClient(Location.parse(deployment.etcd.url("own"), PARAMETERS))
    data = b"x" * LARGE_ENOUGH
    try:
        return await _own(lambda n: client.txn(then=[put(b"own/%d" % n, data)]), n_writes)
    finally:
        await client.close()


async def own_of_postgres(deployment: Deployment, n_writes: int) -> list[float]:
    """As `lone`, of PostgreSQL itself: an insertion that commits."""
    assert deployment.postgres is not None
    client = await asyncpg.connect(f"postgresql://ovncp@{deployment.postgres.host}/postgres")
    try:
        await client.execute("CREATE TABLE own (number int PRIMARY KEY, data bytea)")
        statement, data = "INSERT INTO own VALUES ($1, $2)", b"x" * LARGE_ENOUGH
        return await _own(lambda n: client.execute(statement, n, data), n_writes)
    finally:
        await client.close()


OWN = {"etcd": own_of_etcd, "postgresql": own_of_postgres}


def latencies(name: str, deployment: Deployment, share: float) -> list[Row]:
    """The rows of `deployment`, and its engine's own."""
    n_writes = int(N_LONE * share)
    rows = [(name, "a lone write", *shown(lone(deployment, n_writes), ".2f"))]
    if name in OWN:
        own = asyncio.run(OWN[name](deployment, n_writes))
        rows.append((name, "the engine's own", *shown(own, ".2f")))
    return rows


def shown(values: list[float], form: str) -> Row:
    """Least, median, 90 %, greatest."""
    of_ten = statistics.quantiles(values, n=10, method="inclusive")
    figures = min(values), statistics.median(values), of_ten[8], max(values)
    return tuple(format(figure, form) for figure in figures)


# Pauses


class Prober:
    """A client that writes one row after another, and knows when each was answered."""

    def __init__(self, deployment: Deployment):
        self._deployment = deployment
        self.server = deployment.leader()
        self.answered: list[float] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[Prober]:
        """In the block, it writes."""
        self._thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                with Client(self._deployment.addresses[self.server], timeout=2) as client:
                    self._write(client)
            except (OSError, Closed, Timeout):
                pass  # As when the server is dead.
            self.server = (self.server + 1) % len(self._deployment.addresses)
            time.sleep(0.005)

    def _write(self, client: Client) -> None:
        """Write for as long as the server says that it is connected, and leads, and does."""
        where = [["name", "==", NAME]]
        select = {"op": "select", "table": "Database", "where": where}
        [status] = client.transact("_Server", select)[0]["rows"]
        while status["connected"] and status["leader"] and not self._is_over.is_set():
            reply = client.request("transact", [NAME, insert(len(self.answered))])
            if reply["error"] is not None or "error" in reply["result"][-1]:
                return
            self.answered.append(time.monotonic())

    def wait(self, seconds: float) -> None:
        """Return when it has written without a pause of half a second for so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.05)
            if not self.answered or time.monotonic() - self.answered[-1] > 0.5:
                until = time.monotonic() + seconds

    def pause_since(self, moment: float) -> float:
        """The longest pause that ended after `moment`, in seconds."""
        pairs = pairwise(list(self.answered))
        return max(later - earlier for earlier, later in pairs if later > moment)


def pauses(
    deployment: Deployment, n_kills: int, steady_s: float, kill: Callable[[int], Callable[[], None]]
) -> Row:
    """The pauses in seconds, one for each `kill` at the server that the client is at."""
    found = []
    with Prober(deployment).at_work() as prober:
        for _ in range(n_kills):
            prober.wait(steady_s)
            moment = time.monotonic()
            start_again = kill(prober.server)
            prober.wait(1.0)
            found.append(prober.pause_since(moment))
            start_again()
            wait_until_usable(deployment)
    return shown(found, ".2f")


def all_pauses(name: str, deployment: Deployment, n_kills: int, share: float) -> list[Row]:
    """The rows of `deployment`."""

    def kill_server(number: int) -> Callable[[], None]:
        deployment.kill(number)
        return lambda: deployment.start(number)

    steady_s = STEADY_S * share
    what = "its leader" if name == "C" else "the client's server"
    rows = [(name, what, str(n_kills), *pauses(deployment, n_kills, steady_s, kill_server))]
    kill_leader = deployment.kill_engine_leader
    if kill_leader is not None:
        found = pauses(deployment, n_kills, steady_s, lambda _: kill_leader())
        rows.append((name, "etcd's leader", str(n_kills), *found))
    return rows


# Moving


def moves(name: str, share: float) -> list[Row]:
    """The pauses in seconds of the clients of a C cluster whose place servers over `name` take."""
    n_rows = int(N_MOVED * share)
    rows = []
    ways = ((False, "complete"), (True, "compared"))
    for compare_first, when in ways if share == 1 else ways[1:]:
        url = shared(name).url(f"move-{when}")
        with Move(url, n_rows) as move, move.under_load():
            importing = move.start_import()
            move.start_servers()
            move.wait_for_answers()
            move.switch(importing, compare_first=compare_first)
            move.check()
        rows.append((name, when, f"{n_rows:,}", *shown(move.pauses, ".2f")))
    return rows


TABLES: dict[str, tuple[Row, Sequence[str]]] = {
    "throughput": (
        ("", "written to", "transactions per second", "least", "most"),
        list(DEPLOYMENTS),
    ),
    "latency": (("", "", "least ms", "median", "90 %", "greatest"), list(DEPLOYMENTS)),
    "pauses": (
        ("", "killed", "times", "least s", "median", "90 %", "greatest"),
        ["etcd", "postgresql", "C"],
    ),
    "move": (
        ("from C to", "open when", "rows", "least s", "median", "90 %", "greatest"),
        ["etcd", "postgresql"],
    ),
}


def measure(table: str, name: str, args: argparse.Namespace) -> list[Row]:
    share = 0.1 if args.quick else 1.0
    if table == "move":
        return moves(name, share)
    with DEPLOYMENTS[name]() as deployment:
        wait_until_usable(deployment)
        if table == "throughput":
            return throughputs(name, deployment, share)
        if table == "latency":
            return latencies(name, deployment, share)
        return all_pauses(name, deployment, args.kills, share)


def markdown(rows: Sequence[Row]) -> str:
    """A table for the manual."""
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join((head, "|" + "---|" * len(rows[0]), *body))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure clusters, ours and C's.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the load, one move")
    parser.add_argument("--kills", type=int, default=N_KILLS, help="of each kind")
    parser.add_argument("--only", action="append", choices=TABLES, help="may be given again")
    parser.add_argument("deployments", nargs="*", metavar="DEPLOYMENT", help=", ".join(DEPLOYMENTS))
    args = parser.parse_args()
    for table in args.only or TABLES:
        heading, names = TABLES[table]
        wanted = [name for name in names if not args.deployments or name in args.deployments]
        rows = [row for name in wanted for row in measure(table, name, args)]
        print(f"{markdown([heading, *rows])}\n", flush=True)


if __name__ == "__main__":
    main()
