"""A client that monitors, and what it should be told (RFC 7047 sections 4.1.5 and 4.1.6).

`<row-update>` is the form of version 1, `<row-update2>` of ovsdb-server(7) section 4.1.14 that of
versions 2 and 3.  Expectations are worked out from whole states, row by row and clause by clause.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

from model import naive
from model.naive import UNLIMITED, Datum, Failure, Row, State, Test
from model.pair import Pair
from ovncp.ovsdb.monitor import METHODS, Monitor
from ovncp.ovsdb.monitor_request import MonitorRequest, Where

KINDS = ("initial", "insert", "delete", "modify")
Updates = dict[str, dict[str, Any]]


def no_names(name: str) -> str:
    raise Failure("syntax error")


@dataclass
class Watched:
    """What a monitor wants of a table: of each column some kinds of change, of some rows."""

    table: naive.Table
    wanted: dict[str, set[str]]
    kinds: set[str]
    tests: list[Test]

    def shown(self, row: Row | None) -> Row | None:
        if row is None or (self.tests and not any(test(row) for test in self.tests)):
            return None
        return row

    def columns(self, kind: str, row: Row) -> Row:
        return {name: row[name] for name, kinds in self.wanted.items() if kind in kinds}

    def sparse(self, kind: str, row: Row) -> Row:
        defaults = {name: self.table.columns[name].type.default for name in row}
        return {n: d for n, d in self.columns(kind, row).items() if d != defaults[n]}

    def update(self, version: int, kind: str, old: Row | None, new: Row | None) -> Any:
        """The update of a row from `old` to `new`; None where there is none."""
        if old is not None and new is not None:
            kind = "modify"
            if all(old[name] == new[name] for name in self.wanted):
                return None
        elif old is not None:
            kind = "delete"
        if kind not in self.kinds or (old is None and new is None):
            return None
        return (self._full if version == 1 else self._differences)(kind, old, new)

    def _full(self, kind: str, old: Row | None, new: Row | None) -> Any:
        if new is None:
            return {"old": self.columns(kind, old or {})}
        update = {"new": self.columns(kind, new)}
        if old is not None:
            before = self.columns(kind, old)
            update["old"] = {name: d for name, d in before.items() if d != new[name]}
        return update

    def _differences(self, kind: str, old: Row | None, new: Row | None) -> Any:
        if new is None:
            return {"delete": None}
        if old is None:
            return {kind: self.sparse(kind, new)}
        return {
            kind: {
                name: naive.difference(self.table.columns[name].type, old[name], datum)
                for name, datum in self.columns(kind, new).items()
                if datum != old[name]
            }
        }

    def parse(self, update: Any) -> Any:
        """An update as it came, with its values as datums."""
        return {
            kind: None if row is None else {name: self.datum(name, row[name]) for name in row}
            for kind, row in update.items()
        }

    def datum(self, name: str, json: Any) -> Datum:
        kind = self.table.columns[name].type
        return naive.parse(kind._replace(n_min=0, n_max=UNLIMITED), json, no_names)

    def applied(self, known: Row | None, update: Any) -> Row | None:
        """The row that a client knows after `update`, of which it knew `known`."""
        if "modify" in update:
            assert known is not None
            return known | {
                name: naive.apply_difference(self.table.columns[name].type, known[name], diff)
                for name, diff in update["modify"].items()
            }
        assert (known is not None) == ("old" in update or "delete" in update)
        if "old" in update:
            assert known is not None and known.items() >= update["old"].items()
        row: Row | None = update.get("new", update.get("insert", update.get("initial")))
        if row is None:
            return None
        return {name: self.table.columns[name].type.default for name in self.wanted} | row


@dataclass(eq=False)
class Watcher:
    """A client with one monitor. `known` is what it knows, where it wants to be told all."""

    pair: Pair
    name: str
    version: int
    requests: dict[str, list[Any]]
    watched: dict[str, Watched] = field(init=False)
    known: State = field(init=False)
    monitor: Monitor = field(init=False)
    # While it does not read: the id of the state that it knows, and that state.
    asleep_since: tuple[str, State] | None = None

    def __post_init__(self) -> None:
        """Raises Failure where the server has to refuse the requests."""
        self.watched = {name: self._watched(name, each) for name, each in self.requests.items()}
        self.known = naive.empty(self.watched)

    def _watched(self, name: str, requests: list[Any]) -> Watched:
        wanted: dict[str, set[str]] = {}
        for request in requests:
            select = {kind for kind in KINDS if request.get("select", {}).get(kind, True)}
            wanted |= dict.fromkeys(request["columns"], select)
        kinds = {kind for r in requests for kind in KINDS if r.get("select", {}).get(kind, True)}
        where = requests[0].get("where", [])
        return Watched(self.pair.schema[name], wanted, kinds, self.tests(name, where))

    def tests(self, name: str, where: Any) -> list[Test]:
        return naive.parse_condition(self.pair.schema[name], where, no_names)

    @property
    def wants_all(self) -> bool:
        """Whether what it is told is enough to know the rows that it wants."""
        return all(
            kinds == set(KINDS)
            for watched in self.watched.values()
            for kinds in [watched.kinds, *watched.wanted.values()]
        )

    def begin(self, request: MonitorRequest) -> None:
        """Monitor as in `request`, and take in the first dump."""
        monitors = self.pair.database.monitors
        self.monitor = monitors.add(self, self.name, request)
        empty = naive.empty(self.pair.schema)
        expected = self.expected(empty, self.pair.state, "initial")
        self.take(orjson.loads(b"".join(monitors.initial(self.monitor))), expected)

    def resume(self, past_id: str, past: State) -> bool:
        """Monitor with what was known of the state `past`; false when that is forgotten."""
        database = self.pair.database
        if not database.history.includes(past_id):
            return False
        request = database.monitors.parse(self.requests, self.version)
        self.monitor = database.monitors.add(self, self.name, request)
        self.known = self.visible(past)
        updates = orjson.loads(database.monitors.since(self.monitor, database.history, past_id))
        self.take(updates, self.expected(past, self.pair.state))
        return True

    def change_condition(self, name: str, tests: list[Test], wanted: dict[str, Where]) -> None:
        """Change the condition on the table `name` to `tests`, which is what is `wanted`."""
        state = self.pair.state
        before = {n: {u: w.shown(r) for u, r in state[n].items()} for n, w in self.watched.items()}
        self.watched[name].tests = tests
        expected = {
            n: {
                uuid: update
                for uuid, row in state[n].items()
                if (before[n][uuid] is None) != (w.shown(row) is None)
                and (update := w.update(self.version, "insert", before[n][uuid], w.shown(row)))
            }
            for n, w in self.watched.items()
        }
        self.name += "'"
        monitors = self.pair.database.monitors
        updates = monitors.change_conditions(self.monitor, self.name, wanted)
        self.take(orjson.loads(b"".join(updates) or b"{}"), expected)

    def wake(self) -> bool:
        """Take in, as one update, all that it missed; false when that is forgotten."""
        assert self.asleep_since is not None
        (past_id, past), self.asleep_since = self.asleep_since, None
        database = self.pair.database
        if not database.history.includes(past_id):
            return False
        updates = orjson.loads(database.monitors.since(self.monitor, database.history, past_id))
        self.take(updates, self.expected(past, self.pair.state))
        return True

    def told(self, message: bytes, before: State, after: State) -> None:
        """Take in a notification of the transaction from `before` to `after`."""
        json = orjson.loads(message)
        assert json["method"] == METHODS[self.version]
        last_id = [self.pair.database.transaction_id] if self.version == 3 else []
        assert json["params"][:-1] == [self.name, *last_id]
        assert json["params"][-1], "an update of nothing"
        self.take(json["params"][-1], self.expected(before, after))

    def not_told(self, before: State, after: State) -> None:
        self.take({}, self.expected(before, after))

    def expected(self, before: State, after: State, kind: str = "insert") -> Updates:
        return {
            name: {
                uuid: update
                for uuid in before[name].keys() | after[name].keys()
                if (
                    update := watched.update(
                        self.version,
                        kind,
                        watched.shown(before[name].get(uuid)),
                        watched.shown(after[name].get(uuid)),
                    )
                )
                is not None
            }
            for name, watched in self.watched.items()
        }

    def take(self, updates: Any, expected: Updates) -> None:
        """Apply `updates`, after a look whether they are as they should be."""
        parsed = {
            name: {uuid: self.watched[name].parse(update) for uuid, update in rows.items()}
            for name, rows in updates.items()
        }
        assert parsed == {name: rows for name, rows in expected.items() if rows}
        if not self.wants_all:
            return
        for name, rows in parsed.items():
            for uuid, update in rows.items():
                row = self.watched[name].applied(self.known[name].pop(uuid, None), update)
                if row is not None:
                    self.known[name][uuid] = row
        assert self.known == self.visible(self.pair.state)

    def visible(self, state: State) -> State:
        """What it should know of `state`."""
        return {
            name: {
                uuid: {column: row[column] for column in watched.wanted}
                for uuid, row in state[name].items()
                if watched.shown(row) is not None
            }
            for name, watched in self.watched.items()
        }
