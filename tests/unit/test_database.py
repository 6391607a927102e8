"""What a database does about a defect of its own."""

from __future__ import annotations

import pytest

from model.pair import Client
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.server.uuids import make_source

COLUMNS = {"name": {"type": "string"}}
SCHEMA = {"name": "db", "tables": {"T": {"columns": COLUMNS, "indexes": [["name"]]}}}
SELECT = {"op": "select", "table": "T", "where": [], "columns": ["_uuid", "name"]}


def insert(name: str) -> dict[str, object]:
    return {"op": "insert", "table": "T", "row": {"name": name}}


def test_a_defect_leaves_nothing_of_its_transaction_behind() -> None:
    new_uuid, defects = make_source(b"x"), iter([False, False, False, True])

    def sometimes_defective() -> str:
        if next(defects, False):
            raise RuntimeError("a defect")
        return new_uuid()

    database = Database(DatabaseSchema.from_json(SCHEMA), sometimes_defective)
    assert not database.transact([insert("a")], Client(), now_msec=0).failed
    with pytest.raises(RuntimeError):
        database.transact([insert("b"), insert("c")], Client(), now_msec=0)
    outcome = database.transact([insert("b"), SELECT], Client(), now_msec=0)
    assert [row["name"] for row in outcome.results[1]["rows"]] == ["a", "b"]
