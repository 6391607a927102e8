"""The log: reading its entries again leads to the same content and the same transaction ids."""

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.bookkeeping import check, state_of
from model.naive import Schema, State
from model.pair import DATE, Pair, draw_length, draw_pair, draw_transaction, new_database
from model.strategies import DANGLING, examples
from ovncp.ovsdb.database import Database, Settings
from ovncp.ovsdb.entry import snapshot_comment
from ovncp.server.snapshot import Moment

# A failure is made small before it is shown, which takes its time.
pytestmark = pytest.mark.timeout(600)

SETTINGS = [Settings(10**9, stores_differences=stored) for stored in (True, False)]


def stored(schema: Schema, state: State) -> State:
    """What the log has of `state`: ephemeral columns have their defaults."""
    defaults = {
        name: {column: table.columns[column].type.default for column in ephemeral(schema, name)}
        for name, table in schema.items()
    }
    return {
        name: {uuid: row | defaults[name] for uuid, row in rows.items()}
        for name, rows in state.items()
    }


def ephemeral(schema: Schema, table: str) -> set[str]:
    """The columns that the log does not have.

    References that keep rows are always stored, whatever the schema says.
    """
    return {
        name
        for name, column in schema[table].columns.items()
        if column.ephemeral
        and not any(
            base.get("refType", "strong") == "strong" and not schema[base["refTable"]].is_root
            for base in (column.type.key, column.type.value or {})
            if "refTable" in base
        )
    }


def run(data: Any, pair: Pair) -> list[tuple[bytes, str]]:
    """Random transactions; their entries, each with the id of the state after it."""
    entries = []
    for _ in draw_length(data, 8):
        if draw_transaction(data, pair) is not None:
            commit, _ = pair.database.settle()
            if commit.data is not None:
                entries.append((commit.data, commit.transaction_id))
                check_entry(pair, commit.data)
    return entries


def check_entry(pair: Pair, data: bytes) -> None:
    """No column that is not to be stored is there."""
    for name, rows in orjson.loads(data).items():
        for row in rows.values() if not name.startswith("_") else ():
            assert not ephemeral(pair.schema, name) & set(row or ())


def replay(database: Database, data: bytes) -> None:
    database.replay(orjson.loads(data), data)
    check(database)


@examples(70)
@given(st.data(), st.sampled_from(SETTINGS))
def test_entries(data, settings):
    pair = draw_pair(data, settings)
    again = new_database(pair.json, settings)
    for entry, transaction_id in run(data, pair):
        replay(again, entry)
        if settings.stores_differences:
            # Else the first entry may pass for a snapshot, which a client has to want.
            assert again.transaction_id == again.stored_id == transaction_id
    assert state_of(again) == stored(pair.schema, pair.state)


@examples(70)
@given(st.data())
def test_snapshot_and_the_entries_after_it(data):
    pair = draw_pair(data)
    run(data, pair)
    text = asyncio.run(Moment(pair.database, 0, DATE).text())
    again = new_database(pair.json)
    replay(again, text)
    assert again.transaction_id == pair.database.stored_id
    assert state_of(again) == stored(pair.schema, pair.state)
    for entry, transaction_id in run(data, pair):
        replay(again, entry)
        assert again.transaction_id == transaction_id
    assert state_of(again) == stored(pair.schema, pair.state)


def test_a_difference_may_have_more_elements_than_its_column():
    kinds = {"s": {"key": "integer", "max": 2}, "m": {"key": "integer", "value": "integer"}}
    columns = {name: {"type": {**kind, "min": 0, "max": 2}} for name, kind in kinds.items()}
    pair = Pair({"name": "db", "tables": {"T": {"columns": columns}}})
    again = new_database(pair.json)
    for a, b in ((1, 2), (3, 4)):
        row = {"s": ["set", [a, b]], "m": ["map", [[a, a], [b, b]]]}
        empty = {"op": "insert", "table": "T", "row": row}
        change = {"op": "update", "table": "T", "where": [], "row": row}
        assert pair.transact([change if pair.state["T"] else empty])
        entry = pair.database.settle()[0].data
        assert entry is not None
        replay(again, entry)
    (row_json,) = orjson.loads(entry)["T"].values()
    assert len(row_json["s"][1]) == len(row_json["m"][1]) == 4
    assert state_of(again) == pair.state


def test_a_comment_that_looks_like_that_of_a_snapshot():
    """Only the first entry may keep an id, in just the form that a snapshot has."""
    pair = Pair({"name": "db", "tables": {"T": {"columns": {"i": {"type": "integer"}}}}})
    again = new_database(pair.json)
    comments = [
        f"sync transaction {DANGLING}",
        snapshot_comment("compacting database online", DANGLING),
    ]
    for comment in comments[::-1] + comments:
        pair.transact(
            [{"op": "comment", "comment": comment}, {"op": "insert", "table": "T", "row": {}}]
        )
        commit, _ = pair.database.settle()
        assert commit.data is not None
        replay(again, commit.data)
        assert again.transaction_id == commit.transaction_id != DANGLING


def test_a_snapshot_is_believed_once():
    pair = Pair({"name": "db", "tables": {"T": {"columns": {"i": {"type": "integer"}}}}})
    again = new_database(pair.json)
    comment = snapshot_comment("compacting database online", DANGLING)
    for number in range(2):
        entry = orjson.dumps({"_date": DATE + number, "_comment": comment})
        replay(again, entry)
        assert (again.transaction_id == DANGLING) == (number == 0)
