"""A copy that follows a database by its updates is that database."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

import orjson
import pytest

from ovncp.ovsdb import replica
from ovncp.ovsdb.database import Database, Settings
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.schema import DatabaseSchema

SCHEMA = {
    "name": "D",
    "version": "1.0.0",
    "tables": {
        "Parent": {
            "isRoot": True,
            "indexes": [["name"]],
            "columns": {
                "name": {"type": "string"},
                "children": {"type": {"key": {"type": "uuid", "refTable": "Child"},
                                      "min": 0, "max": "unlimited"}},
                "options": {"type": {"key": "string", "value": "integer",
                                     "min": 0, "max": "unlimited"}},
                "size": {"type": {"key": "integer", "min": 0, "max": 1}},
            },
        },
        "Child": {"columns": {"n": {"type": "integer", "ephemeral": True}}},
    },
}  # fmt: skip
EVERYTHING = {"Parent": [{}], "Child": [{}]}


class Anybody:
    """A client that may do everything."""

    read_only = False
    role = ""
    identity = None

    def owns_lock(self, name: str) -> bool:
        return False


class Pair:
    """A database, and a copy that is told of its changes by `follow` or by `start_over`."""

    def __init__(self, seed: int) -> None:
        self.numbers = numbers = count(seed << 64)
        self.chance = random.Random(seed)
        self.new_uuid = lambda: _uuid(next(numbers))
        schema = DatabaseSchema.from_json(SCHEMA)
        self.original = Database(schema, self.new_uuid, Settings(1 << 20))
        self.copy = Database(DatabaseSchema.from_json(SCHEMA), self.new_uuid, Settings(1 << 20))
        monitors = self.original.monitors
        self.monitor = monitors.add(self, "m", monitors.parse(EVERYTHING, 3))
        self.updates: list[bytes] = []

    def change(self) -> None:
        operations = [
            operation for _ in range(self.chance.randint(1, 4)) for operation in self.operations()
        ]
        outcome = self.original.transact(operations, Anybody(), now_msec=0)
        if outcome.commit is not None:
            _, notifications = self.original.settle()
            self.updates += [notification.message for notification in notifications]

    def operations(self) -> list[dict[str, Any]]:
        name = f"p{self.chance.randint(0, 5)}"
        parent = {"table": "Parent", "where": [["name", "==", name]]}
        options = ["map", [[f"k{n}", self.chance.randint(0, 2)] for n in self.some(4)]]
        row = {"options": options, "size": ["set", self.some(9)[:1]]}
        child = f"c{next(self.numbers)}"
        adoption = [["children", "insert", ["set", [["named-uuid", child]]]]]
        return self.chance.choice(
            [
                [{"op": "insert", "table": "Parent", "row": {"name": name, **row}}],
                [{"op": "update", **parent, "row": row}],
                [{"op": "delete", **parent}],
                [{"op": "update", "table": "Child", "where": [], "row": {"n": len(self.some(9))}}],
                [
                    {"op": "insert", "table": "Child", "uuid-name": child, "row": {"n": 7}},
                    {"op": "mutate", **parent, "mutations": adoption},
                ],
            ]
        )

    def some(self, n: int) -> list[int]:
        return [number for number in range(n) if self.chance.random() < 0.5]

    def follow(self) -> None:
        for message in self.updates:
            _, last_id, updates = orjson.loads(message)["params"]
            self.apply(
                replica.transaction_of(updates, self.copy.tables, self.copy.new_version), last_id
            )
        self.updates.clear()

    def apply(self, transaction: Any, last_id: str) -> None:
        self.copy.apply(transaction, last_id)

    def dump(self) -> Any:
        return orjson.loads(b"".join(self.original.monitors.initial(self.monitor)))

    def start_over(self) -> int:
        """Make the copy that of now from a whole dump; how many rows differed."""
        self.updates.clear()
        updates, tables = self.dump(), self.copy.tables
        items = replica.missing({name: set(rows) for name, rows in updates.items()}, tables)
        for part in replica.parse_dump(updates, tables, 3):
            items += replica.differing(part)
        transaction = replica.difference(items, self.copy.new_version)
        self.apply(transaction, self.original.transaction_id)
        return len(items)

    def check(self) -> None:
        assert self.copy.transaction_id == self.original.transaction_id
        for name, table in self.original.tables.items():
            other = self.copy.tables[name]
            assert _own(other) == _own(table)
            assert [{key: row.uuid for key, row in index.items()} for index in other.indexes] == [
                {key: row.uuid for key, row in index.items()} for index in table.indexes
            ]


def _own(table: Any) -> dict[str, Any]:
    """The rows without their versions."""
    return {uuid: (row.values[0], *row.values[2:]) for uuid, row in table.rows.items()}


def _uuid(number: int) -> str:
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@pytest.mark.parametrize("seed", range(20))
def test_updates_lead_to_the_same_rows(seed: int) -> None:
    pair = Pair(seed)
    for _ in range(40):
        pair.change()
        pair.follow()
        pair.check()
    versions = [
        {
            uuid: row.values[1]
            for table in database.tables.values()
            for uuid, row in table.rows.items()
        }
        for database in (pair.original, pair.copy)
    ]
    assert versions[0] == versions[1]


@pytest.mark.parametrize("seed", range(20))
def test_a_whole_dump_leads_to_the_same_rows_and_changes_only_what_differs(seed: int) -> None:
    pair = Pair(seed)
    for _ in range(10):
        for _ in range(pair.chance.randint(0, 6)):
            pair.change()
        pair.start_over()
        pair.check()
        assert pair.start_over() == 0


def test_a_new_copy_is_filled() -> None:
    pair = Pair(1)
    for _ in range(40):
        pair.change()
    for items in replica.parse_dump(pair.dump(), pair.copy.tables, 3):
        replica.fill(items, pair.copy.new_version)
    assert _own(pair.copy.tables["Parent"]) == _own(pair.original.tables["Parent"]) != {}


def test_a_client_of_the_copy_resumes_with_the_ids_of_the_original() -> None:
    pair = Pair(2)
    pair.change()
    pair.follow()
    known = pair.copy.transaction_id
    for _ in range(10):
        pair.change()
    pair.follow()
    there, here = pair.original.history.since(known), pair.copy.history.since(known)
    assert there is not None and here is not None
    assert there.keys() == here.keys() != set()


def test_an_original_that_goes_back_leaves_no_wrong_history() -> None:
    pair = Pair(3)
    ids = {}
    while len(ids) < 4:
        pair.change()
        pair.follow()
        ids[pair.copy.transaction_id] = None
    _, first, second, _ = ids
    items = [(t, uuid, None) for t in pair.copy.tables.values() for uuid in t.rows]
    pair.apply(replica.difference(items, pair.copy.new_version), first)
    assert pair.copy.history.since(second) is None
    assert pair.copy.history.since(first) == {}


ROW = "00000000-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    "updates",
    [
        {"Parent": {ROW: {"delete": None}}},
        {"Parent": {ROW: {"modify": {"name": "x"}}}},
        {"Parent": {ROW: {"insert": {"colour": "blue"}}}},
        {"Parent": {ROW: {"insert": {"name": 1}}}},
        {"Parent": {ROW: {"old": {}, "new": {}}}},
        {"Uncle": {ROW: {"insert": {}}}},
        {"Parent": {"": 1}},
        {"Parent": {ROW: {"insert": {}}}, "Child": {ROW: {"delete": None}}},
    ],
)
def test_what_does_not_fit_changes_nothing(updates: Any) -> None:
    pair = Pair(4)
    with pytest.raises(OvsdbError, match="consistency violation"):
        replica.transaction_of(updates, pair.copy.tables, pair.copy.new_version)
    assert not any(table.rows or table.changes for table in pair.copy.tables.values())
