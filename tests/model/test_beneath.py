"""What executed before it was known what others wrote stays only if it comes out as after that."""

from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from model import naive
from model.bookkeeping import check, picture, state_of
from model.pair import DATE, Client, Uuids, draw_length, draw_pair, new_database
from model.strategies import transactions
from model.test_replay import without_ephemeral_columns
from ovncp.ovsdb.database import Database, Outcome, Overlap

# A failure is made small before it is shown, which takes its time.
pytestmark = pytest.mark.timeout(600)


@dataclass
class Request:
    """What was asked, the number that the uuids of new rows have, and what came of it."""

    number: int
    operations: Any
    outcome: Outcome

    @property
    def shown(self) -> Any:
        """What came of it, in a form to compare: without versions, and in no order of rows."""
        commit, results = self.outcome.commit, orjson.loads(orjson.dumps(self.outcome.results))
        for result in results:
            for row in result.get("rows", []) if result else ():
                row.pop("_version", None)
            if result and "rows" in result:
                result["rows"].sort(key=repr)
        return results, commit and commit.data and orjson.loads(commit.data)


class Servers:
    """Two databases of one log: `own`, and `others`, which is always ahead. `waiting` is own's."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.own, self.others = new_database(schema), new_database(schema)
        self.stored: list[bytes] = []
        self.waiting: list[Request] = []
        self.n_requests = 0
        self.n_stayed = 0

    def execute(self, database: Database, operations: Any) -> Request:
        self.n_requests += 1
        return self._execute(database, self.n_requests, operations)

    def _execute(self, database: Database, number: int, operations: Any) -> Request:
        database.new_uuid = Uuids(number)
        operations = orjson.loads(orjson.dumps(operations))
        return Request(number, operations, database.transact(operations, Client(), now_msec=DATE))

    def write(self, operations: Any) -> None:
        """Execute at `own`, and store it later."""
        request = self.execute(self.own, operations)
        if request.outcome.commit is not None:
            self.waiting.append(request)

    def write_elsewhere(self, operations: Any) -> None:
        """Execute and store at `others`, of which `own` learns then."""
        commit = self.execute(self.others, operations).outcome.commit
        if commit is not None:
            assert commit.data is not None
            self.others.settle()
            self.stored.append(commit.data)
            self._learn(commit.data)
            check(self.own)
            self._compare()

    def _learn(self, entry: bytes) -> None:
        own, before, footprint = self.own, picture(self.own), self.own.footprint
        try:
            if footprint is None:
                raise Overlap
            own.replay_beneath(orjson.loads(entry), entry, footprint)
            self.n_stayed += len(self.waiting)
        except Overlap:
            assert picture(own) == before
            own.revert()
            own.replay(orjson.loads(entry), entry)
            again = [self._execute(own, r.number, r.operations) for r in self.waiting]
            self.waiting = [request for request in again if request.outcome.commit is not None]

    def _compare(self) -> None:
        """What waits is what comes out where it executes after all that is stored."""
        after = new_database(self.schema)
        for entry in self.stored:
            after.replay(orjson.loads(entry), entry)
        for kept in self.waiting:
            request = self._execute(after, kept.number, kept.operations)
            assert request.shown == kept.shown
        assert state_of(after) == state_of(self.own)

    def store(self) -> None:
        """Store what waits."""
        while not self.own.is_settled:
            commit, _ = self.own.settle()
            assert commit.data is not None
            self.others.replay(orjson.loads(commit.data), commit.data)
            self.stored.append(commit.data)
        self.waiting = []
        assert self.own.transaction_id == self.others.transaction_id
        assert state_of(self.own) == state_of(self.others)


@examples(150)
@given(st.data())
def test_what_stays_would_have_come_out_the_same(data):
    servers = Servers(without_ephemeral_columns(draw_pair(data).json))
    schema = naive.schema_of(servers.schema)

    def draw(database: Database) -> Any:
        return data.draw(transactions(schema, state_of(database)), label="transact")

    for _ in draw_length(data, 6):
        for _ in draw_length(data, 2):
            servers.write(draw(servers.own))
        for _ in draw_length(data, 2):
            servers.write_elsewhere(draw(servers.others))
        servers.store()


STRONG = {"type": {"key": {"type": "uuid", "refTable": "Part"}, "min": 0, "max": "unlimited"}}
WEAK = {"type": {"key": {**STRONG["type"]["key"], "refType": "weak"}, "min": 0, "max": "unlimited"}}
SCHEMA = {
    "name": "db",
    "tables": {
        "T": {
            "columns": {"n": {"type": "integer"}, "parts": STRONG, "friends": WEAK},
            "isRoot": True,
            "maxRows": 4,
        },
        "Named": {"columns": {"name": {"type": "string"}}, "isRoot": True, "indexes": [["name"]]},
        "Part": {"columns": {"n": {"type": "integer"}}},
    },
}
ROWS = {
    "one": {"op": "insert", "table": "T", "row": {"parts": ["named-uuid", "p"]}},
    "two": {"op": "insert", "table": "T", "row": {}},
    "p": {"op": "insert", "table": "Part", "row": {}},
}
INSERT = {"op": "insert", "table": "T", "row": {"n": 7}}
NEW = ["uuid", "00000000-1111-4222-8333-444444444444"]


def at(name: str, **members: Any) -> dict[str, Any]:
    """An update, or what `members` say, of the row that `ROWS` calls so."""
    where = [["_uuid", "==", ["uuid", name]]]
    return {"op": "update", "table": ROWS[name]["table"], "where": where, **members}


def named(name: str) -> dict[str, Any]:
    return {"op": "insert", "table": "Named", "row": {"name": name}}


# What is written here, and what elsewhere.
APART = {
    "a new row beside a new row": (INSERT, INSERT),
    "a new row beside a change": (INSERT, at("one", row={"n": 1})),
    "a change beside that of another row": (at("one", row={"n": 1}), at("two", row={"n": 2})),
    "a new row beside a deletion": (INSERT, at("two", op="delete")),
    "other names": (named("a"), named("b")),
}
# What is written here, what elsewhere, and perhaps what is there before.
OVERLAPPING = {
    "changes of one row": (at("one", row={"n": 1}), at("one", row={"n": 2})),
    "the same change of one row": (at("one", row={"n": 1}), at("one", row={"n": 1})),
    "a change that was none before": (
        [at("one", row={"n": 0}), INSERT],
        at("one", row={"n": 2}),
    ),
    "a row that was not there": (
        [at("one", where=[["_uuid", "==", NEW]], row={"n": 1}), INSERT],
        {**INSERT, "uuid": NEW[1]},
    ),
    "all rows": ({"op": "update", "table": "T", "where": [], "row": {"n": 1}}, INSERT),
    "rows with a value": (
        {"op": "update", "table": "T", "where": [["n", "==", 0]], "row": {"n": 1}},
        INSERT,
    ),
    "the same name": (named("a"), named("a")),
    "the same uuid": ({**INSERT, "uuid": NEW[1]}, {**named("a"), "uuid": NEW[1]}),
    "the last row that there is room for": ([INSERT, INSERT], INSERT),
    "the last reference removed, and the row kept by another": (
        at("one", row={"parts": ["set", []]}),
        at("two", row={"parts": ["uuid", "p"]}),
    ),
    "one of two references each": (
        at("two", row={"parts": ["set", []]}),
        at("one", row={"parts": ["set", []]}),
        at("two", row={"parts": ["uuid", "p"]}),
    ),
    "a friend of what is deleted": (
        at("two", op="delete"),
        {"op": "insert", "table": "T", "row": {"friends": ["set", []]}},
    ),
    "a friend, who is deleted": (
        at("two", row={"friends": ["uuid", "p"]}),
        at("one", row={"parts": ["set", []]}),
    ),
    "a friend, who is changed": (
        at("two", row={"friends": ["uuid", "p"]}),
        at("p", row={"n": 1}),
    ),
    "a friend for a while, who is deleted": (
        [
            [at("two", row={"friends": ["uuid", "p"]})],
            [at("two", row={"friends": ["set", []]})],
        ],
        at("one", row={"parts": ["set", []]}),
    ),
    "a name for a while": (
        [
            [{**named("a"), "uuid": NEW[1]}],
            [
                {
                    "op": "update",
                    "table": "Named",
                    "where": [["_uuid", "==", NEW]],
                    "row": {"name": "b"},
                }
            ],
        ],
        named("a"),
    ),
    "a friend who is not there yet": (
        {"op": "insert", "table": "T", "row": {"n": 7, "friends": NEW}},
        [
            {"op": "insert", "table": "Part", "uuid": NEW[1], "row": {}},
            at("two", row={"parts": NEW}),
        ],
    ),
}


def servers_with_rows() -> tuple[Servers, dict[str, str]]:
    """Servers that have `ROWS`, and the uuids of these."""
    servers = Servers(SCHEMA)
    operations = [{**row, "uuid-name": name} for name, row in ROWS.items()]
    servers.write(operations)
    results = servers.waiting[0].outcome.results
    servers.store()
    return servers, {name: result["uuid"][1] for name, result in zip(ROWS, results, strict=True)}


@pytest.mark.parametrize("name", [*APART, *OVERLAPPING])
def test_what_has_to_do_with_what(name):
    servers, uuids = servers_with_rows()
    own, others, *before = (
        _with_uuids(each if isinstance(each, list) else [each], uuids)
        for each in (APART | OVERLAPPING)[name]
    )
    for operations in before:
        servers.write(operations)
        servers.store()
    for operations in own if isinstance(own[0], list) else [own]:
        servers.write(operations)
    assert servers.waiting
    servers.write_elsewhere(others)
    assert (servers.n_stayed == 1) == (name in APART)
    servers.store()


def _with_uuids(json: Any, uuids: dict[str, str]) -> Any:
    if isinstance(json, dict):
        return {key: _with_uuids(value, uuids) for key, value in json.items()}
    if isinstance(json, list):
        if len(json) == 2 and json[0] == "uuid":
            return ["uuid", uuids.get(json[1], json[1])]
        return [_with_uuids(each, uuids) for each in json]
    return json
