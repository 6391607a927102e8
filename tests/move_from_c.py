"""A C Raft cluster is moved to three servers of ours while clients are at work, as documented.

docs/clustering.md ("How to move from a C Raft cluster") has the steps; here they are done, by the
same commands.  Two of the new servers take the place of C's at their addresses, the third has
another one, so that clients have a list of old and new.  A client knows what it was told to be
stored, and finds out by reading what became of a transaction to which it got no answer.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import cycle, pairwise
from typing import Any

from c_cluster import CCluster
from engines import free_port
from servers import OVNCP, Client, Closed, Server, Timeout

NAME = "Moved"
SCHEMA: dict[str, Any] = {
    "name": NAME,
    "version": "1.0.0",
    "tables": {
        "Row": {
            "columns": {
                "name": {"type": "string"},
                "number": {"type": "integer"},
                "parts": {
                    "type": {
                        "key": {"type": "uuid", "refTable": "Part"},
                        "min": 0,
                        "max": "unlimited",
                    }
                },
            },
            "isRoot": True,
        },
        "Part": {"columns": {"size": {"type": "integer"}}},
        "Count": {
            "columns": {"writer": {"type": "string"}, "number": {"type": "integer"}},
            "isRoot": True,
            "indexes": [["writer"]],
        },
    },
}
PATIENCE_S = 60.0
_ROWS_AT_ONCE = 500
_NO_ID = "00000000-0000-0000-0000-000000000000"
_LOST = (OSError, Closed, Timeout)

Address = tuple[str, int]


def insert(table: str, row: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    named = {} if name is None else {"uuid-name": name}
    return {"op": "insert", "table": table, "row": row, **named}


def fill(client: Client, n_rows: int) -> None:
    """Have so many rows."""
    for first in range(0, n_rows, _ROWS_AT_ONCE):
        numbers = range(first, min(first + _ROWS_AT_ONCE, n_rows))
        client.transact(NAME, *(insert("Row", {"name": f"old {n}", "number": n}) for n in numbers))


class Session(threading.Thread):
    """What one client does, at the first of `addresses` that is there, until `end`."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        super().__init__(daemon=True)
        self._addresses = addresses
        self._is_over = threading.Event()
        self.n_sessions = 0
        self.address: Address | None = None

    def run(self) -> None:
        for address in cycle(self._addresses):
            if self._is_over.is_set():
                return
            with contextlib.suppress(*_LOST), Client(address) as client:
                if self._is_connected(client):
                    self.n_sessions += 1
                    self.address = address
                    while not self._is_over.is_set():
                        self.work(client)
            time.sleep(0.005)

    def _is_connected(self, client: Client) -> bool:
        where = [["name", "==", NAME]]
        select = {"op": "select", "table": "Database", "where": where, "columns": ["connected"]}
        rows = client.transact("_Server", select)[0]["rows"]
        return bool(rows and rows[0]["connected"])

    def work(self, client: Client) -> None:
        """Do the next thing."""
        raise NotImplementedError

    def end(self) -> None:
        """Have it ended."""
        self._is_over.set()
        self.join()


class Writer(Session):
    """Inserts rows and counts them, in a transaction each; `stored` are the names of its rows.

    `answered` is when it was told of each, on the monotonic clock.
    """

    def __init__(self, name: str, addresses: Sequence[Address]) -> None:
        super().__init__(addresses)
        self.name = name
        self.stored: list[str] = []
        self.answered: list[float] = []
        self.n_unanswered = 0
        self._open: str | None = None

    def work(self, client: Client) -> None:
        if self._open is not None and self._is_there(client, self._open):
            self.note(self._open)
        row = f"{self.name} {len(self.stored)}"
        # A follower of C's may not know yet that it was stored: then this fails, and we look again.
        only_if_not_stored = [_until_absent(row)] if self._open is not None else []
        self._open = row
        try:
            results = client.transact(NAME, *only_if_not_stored, *self._operations(row))
        except _LOST:
            self.n_unanswered += 1
            raise
        if not any(result and "error" in result for result in results):
            self.note(row)

    def note(self, row: str) -> None:
        """Note that the row is known to be stored."""
        self.stored.append(row)
        self.answered.append(time.monotonic())
        self._open = None

    def _operations(self, row: str) -> list[dict[str, Any]]:
        number = len(self.stored)
        count = {"table": "Count", "where": [["writer", "==", self.name]]}
        counting = {"op": "mutate", **count, "mutations": [["number", "+=", 1]]}
        first = insert("Count", {"writer": self.name, "number": 1})
        parts = ["named-uuid", "part"]
        return [
            insert("Part", {"size": number}, "part"),
            insert("Row", {"name": row, "number": number, "parts": parts}),
            counting if number else first,
        ]

    @staticmethod
    def _is_there(client: Client, row: str) -> bool:
        select = {"op": "select", "table": "Row", "where": [["name", "==", row]]}
        return bool(client.transact(NAME, select)[0]["rows"])

    def wait_for(self, n_answers: int) -> None:
        """Return when it was told of so many more."""
        goal, deadline = len(self.stored) + n_answers, time.monotonic() + PATIENCE_S
        while len(self.stored) < goal:
            assert time.monotonic() < deadline, f"{self.name} comes to nothing"
            time.sleep(0.01)

    def pause(self, start: float, end: float) -> float:
        """The longest time without an answer of which a part was in this span, in seconds."""
        pairs = pairwise(self.answered)
        return max(later - earlier for earlier, later in pairs if later > start and earlier < end)


def _until_absent(row: str) -> dict[str, Any]:
    """What fails if the row is there."""
    rows = {"table": "Row", "where": [["name", "==", row]], "columns": ["name"], "rows": []}
    return {"op": "wait", **rows, "until": "==", "timeout": 0}


class Watcher(Session):
    """Monitors the rows; `rows` are their names by uuid."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        super().__init__(addresses)
        self.rows: dict[str, str] = {}
        self._last_id = _NO_ID
        self._client: Client | None = None

    def work(self, client: Client) -> None:
        if client is not self._client:
            self._client = client
            request = [NAME, "m", {"Row": [{"columns": ["name"]}]}, self._last_id]
            found, self._last_id, updates = client.request("monitor_cond_since", request)["result"]
            if not found:
                self.rows = {}
            self._take(updates)
        with contextlib.suppress(Timeout):
            method, params = map(client.notification(0.2).get, ("method", "params"))
            assert method == "update3", method
            self._last_id = params[1]
            self._take(params[2])

    def wait_for(self, names: list[str]) -> None:
        """Return when it has seen the rows of these names, and no others."""
        deadline = time.monotonic() + PATIENCE_S
        while sorted(self.rows.values()) != names:
            assert time.monotonic() < deadline, f"{len(self.rows)} rows seen, of {len(names)}"
            time.sleep(0.02)

    def _take(self, updates: dict[str, Any]) -> None:
        for uuid, update in updates.get("Row", {}).items():
            assert update.keys() <= {"initial", "insert"}, update
            [row] = update.values()
            self.rows[uuid] = row["name"]


class Import:
    """`ovncp db import --follow`, and what it says."""

    def __init__(self, source: str, url: str, *options: str) -> None:
        command = [OVNCP, "db", "import", "--follow", *options, source, url]
        self._result_is_output = "--json" in options
        self._files = contextlib.ExitStack()
        # Of the two, the one that nobody reads before the end: a pipe may get full.
        self._rest = self._files.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
        output, complaints = subprocess.PIPE, self._rest
        if self._result_is_output:
            output, complaints = complaints, output
        self._process = subprocess.Popen(command, stdout=output, stderr=complaints, text=True)
        said = self._process.stdout or self._process.stderr
        assert said is not None
        self._said = self._files.enter_context(said)

    def __enter__(self) -> Import:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._files.close()

    def wait_for(self, words: str) -> None:
        """Return when it says these words in the next line."""
        line = self._said.readline()
        assert words in line, line + str(self.result())

    def end(self, number: int = signal.SIGTERM) -> None:
        """Tell it that the source's clients are gone."""
        self._process.send_signal(number)

    def result(self) -> tuple[int, str, str]:
        """The exit status, and what it printed since, and complained of."""
        status = self._process.wait(PATIENCE_S)
        self._rest.seek(0)
        said, rest = self._said.read(), self._rest.read()
        return (status, rest, said) if self._result_is_output else (status, said, rest)


class Move:
    """A C cluster, new servers over `url`, and clients of the one that become clients of the other.

    `pauses` are the seconds for which each writer got no answer, once it is done.
    """

    def __init__(
        self,
        url: str,
        n_rows: int = 0,
        n_writers: int = 4,
        n_watchers: int = 2,
        writer: type[Writer] = Writer,
    ) -> None:
        self.url = url
        self._ending = contextlib.ExitStack()
        self.cluster = self._ending.enter_context(CCluster(SCHEMA))
        self.old = [_address(endpoint) for endpoint in self.cluster.endpoints]
        self.new = [*self.old[:2], ("127.0.0.1", free_port())]
        self.servers: list[Server] = []
        fill(self.cluster.client(self.cluster.wait_for_leader()), n_rows)
        addresses = list(dict.fromkeys([*self.old, *self.new]))
        places = [addresses[n % 3 :] + addresses[: n % 3] for n in range(n_writers)]
        self.writers = [writer(f"writer {n}", place) for n, place in enumerate(places)]
        self.watchers = [Watcher(addresses) for _ in range(n_watchers)]
        self.pauses: list[float] = []
        self.n_rows = n_rows

    def __enter__(self) -> Move:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_clients()
        self._ending.close()

    def end_clients(self) -> None:
        """Have all clients ended."""
        for client in self.clients:
            if client.is_alive():
                client.end()

    @property
    def clients(self) -> list[Session]:
        """All of them."""
        return [*self.writers, *self.watchers]

    @contextlib.contextmanager
    def under_load(self) -> Iterator[None]:
        """In the block, the clients are at work."""
        for client in self.clients:
            client.start()
        try:
            self.wait_for_answers()
            yield
        finally:
            self.end_clients()

    def wait_for_answers(self) -> None:
        """Return when every writer has been told of some more."""
        for writer in self.writers:
            writer.wait_for(20)

    def door(self, member: int) -> str:
        """Another address of a member, which no client knows."""
        path = self.cluster.directory / f"door{member}"
        self.cluster.appctl(member, "ovsdb-server/add-remote", f"punix:{path}")
        return f"unix:{path}"

    def start_import(self) -> Import:
        """The import, once it follows what the cluster does."""
        doors = ",".join(self.door(member) for member in self.cluster.running)
        importing = self._ending.enter_context(Import(doors, self.url))
        importing.wait_for("following")
        return importing

    def start_servers(self) -> None:
        """Start the new servers, which no client can reach yet."""
        for _ in self.new:
            server = Server("ovncp", options=[self.url], patience=PATIENCE_S)
            self.servers.append(self._ending.enter_context(server))

    def close_old(self) -> None:
        """Have the old servers serve no client any more."""
        for member, (host, port) in enumerate(self.old):
            self.cluster.appctl(member, "ovsdb-server/remove-remote", f"ptcp:{port}:{host}")

    def open_new(self) -> None:
        """Have the new servers serve clients."""
        for server, (host, port) in zip(self.servers, self.new, strict=True):
            server.own_appctl("ovsdb-server/add-remote", f"ptcp:{port}:{host}")

    def switch(self, importing: Import, *, compare_first: bool = False) -> None:
        """The clients change over; with `compare_first`, they wait for the comparison, too."""
        start = time.monotonic()
        self.close_old()
        importing.end()
        importing.wait_for("complete")
        if compare_first:
            check_result(importing)
        self.open_new()
        end = time.monotonic()
        self.wait_for_answers()
        if not compare_first:
            check_result(importing)
        self.pauses = [writer.pause(start, end) for writer in self.writers]

    def check(self) -> None:
        """See that all that any client was told of is there, once, at every new server.

        The writers are ended first, and the watchers when they have seen all.
        """
        for writer in self.writers:
            writer.end()
        for server in self.servers:
            check_content(server.client(timeout=PATIENCE_S), self.writers, self.n_rows)
        names = sorted(_names(self.servers[0].client(timeout=PATIENCE_S)))
        for watcher in self.watchers:
            watcher.wait_for(names)
            watcher.end()


def check_result(importing: Import) -> None:
    """See that the import compared the two, and found them to be the same."""
    status, output, complaint = importing.result()
    assert status == 0, output + complaint
    assert "rows are the same" in output


def stored_twice(client: Client) -> set[str]:
    """The names of the rows that are there more than once."""
    return {name for name, n_rows in Counter(_names(client)).items() if n_rows > 1}


def check_content(
    client: Client, writers: Sequence[Writer], n_rows: int, twice: Collection[str] = ()
) -> None:
    """See that there are the rows that the writers were told of, and `n_rows` more.

    Each is there once, but for `twice`.
    """
    found = Counter(_names(client))
    assert stored_twice(client) == set(twice)
    stored = {row for writer in writers for row in writer.stored}
    assert not (lost := sorted(stored - found.keys())), f"lost: {lost}"
    unknown = {name for name in found.keys() - stored if not name.startswith("old ")}
    # The last one of a writer, of which it was not told any more.
    assert len(unknown) <= len(writers), unknown
    assert len(found) == n_rows + len(stored | unknown)
    select = {"op": "select", "table": "Count", "where": []}
    for row in client.transact(NAME, select)[0]["rows"]:
        mine = [name for name in found.elements() if name.startswith(f"{row['writer']} ")]
        assert row["number"] == len(mine)


def _names(client: Client) -> list[str]:
    # Rows that look alike are given once only.
    select = {"op": "select", "table": "Row", "where": [], "columns": ["_uuid", "name"]}
    return [row["name"] for row in client.transact(NAME, select)[0]["rows"]]


def _address(endpoint: str) -> Address:
    _, host, port = endpoint.split(":")
    return host, int(port)
