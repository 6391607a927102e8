"""The bound on the history is one of memory: what is counted is about what is kept."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from model.pair import Client
from ovncp.ovsdb.database import Database, Settings
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.window import LiveWindow, Restoration
from ovncp.server.uuids import make_source

MANY = {"min": 0, "max": "unlimited"}
TEXT = {"type": "string"}
TABLE = {
    "columns": {
        "name": TEXT,
        "set": {"type": {"key": "string", **MANY}},
        "map": {"type": {"key": "string", "value": "string", **MANY}},
        **{f"c{number}": TEXT for number in range(20)},
    }
}
SCHEMA = {"name": "db", "version": "1.0.0", "tables": {"T": TABLE}}
N_ROWS = 50
N_ELEMENTS = 300

Operations = Iterator[dict[str, Any]]


def row(number: int) -> dict[str, Any]:
    members = [f"row {number} has {place}" for place in range(N_ELEMENTS)]
    return {
        "name": f"n{number}",
        "set": ["set", members],
        "map": ["map", [[member, "x"] for member in members[:30]]],
        **{f"c{place}": f"row {number} says {place}" for place in range(20)},
    }


def where(number: int) -> list[Any]:
    return [["name", "==", f"n{number % N_ROWS}"]]


def texts() -> Operations:
    for number in range(800):
        values = {"c1": f"the text of {number}"}
        yield {"op": "update", "table": "T", "where": where(number), "row": values}


def mutation(number: int, column: str, value: Any) -> dict[str, Any]:
    mutations = [[column, "insert", value]]
    return {"op": "mutate", "table": "T", "where": where(number), "mutations": mutations}


def sets() -> Operations:
    for number in range(400):
        yield mutation(number, "set", f"new {number}")


def maps() -> Operations:
    for number in range(400):
        yield mutation(number, "map", ["map", [[f"new {number}", "x"]]])


def deletions() -> Operations:
    for number in range(N_ROWS):
        yield {"op": "delete", "table": "T", "where": where(number)}


def comings_and_goings() -> Operations:
    for number in range(300):
        yield {"op": "insert", "table": "T", "row": {"name": f"short-lived {number}"}}
        name = [["name", "==", f"short-lived {number}"]]
        yield {"op": "delete", "table": "T", "where": name}


def everything_at_once() -> Operations:
    for number in range(30):
        yield {"op": "update", "table": "T", "where": [], "row": {"c2": f"it is {number}"}}


def filled(max_bytes: int) -> Database:
    database = Database(DatabaseSchema.from_json(SCHEMA), make_source(b"x"), Settings(max_bytes))
    run(database, [{"op": "insert", "table": "T", "row": row(n)} for n in range(N_ROWS)])
    return database


def run(database: Database, *transactions: list[dict[str, Any]]) -> None:
    for operations in transactions:
        outcome = database.transact(operations, Client(), now_msec=0)
        assert not outcome.failed
        database.settle()


@pytest.mark.parametrize(
    "load", [texts, sets, maps, deletions, comings_and_goings, everything_at_once]
)
def test_what_is_counted_is_about_what_is_kept(load: Callable[[], Operations]) -> None:
    def kept(max_bytes: int) -> tuple[int, int]:
        """The bytes that Python allocated for all of it, and those that were counted."""
        gc.collect()
        tracemalloc.start()
        database = filled(max_bytes)
        for operation in load():
            run(database, [operation])
        gc.collect()
        allocated, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return allocated, database.history.n_bytes

    without, nothing = kept(0)
    allocated, counted = kept(10**9)
    assert nothing == 0
    assert 0.7 < (allocated - without) / counted < 1.3


def test_the_oldest_make_room_for_the_newest() -> None:
    database = filled(500_000)
    for operation in sets():
        run(database, [operation])
        assert database.history.n_bytes <= 500_000
    assert 100 < len(database.history) < 400
    steps = database.history.steps()
    assert database.history.since(database.transaction_id) == {}
    assert database.history.since(database.history.start_id) is not None
    assert database.history.since(steps[0].transaction_id) is not None
    assert sum(step.n_bytes for step in steps) == database.history.n_bytes


@pytest.mark.parametrize(("max_bytes", "meanwhile"), [(10**9, 200), (500_000, 20)])
def test_a_live_window_ends_in_the_state_of_its_end(max_bytes: int, meanwhile: int) -> None:
    """Whatever happens while it is made, as long as no more is forgotten than was taken in."""
    database = filled(max_bytes)
    operations = list(sets())
    for operation in operations[:200]:
        run(database, [operation])
    window = LiveWindow(database.history)
    first_id = database.history.start_id
    for _ in window.steps(lambda: database.stored_id):
        for operation in operations[200 : 200 + meanwhile]:
            run(database, [operation])
        meanwhile = 0
    assert window.text is not None
    text = "".join(orjson.loads(b"".join(window.text))).encode()
    tables, new_version = database.tables, database.new_version
    restoration = Restoration(text, tables, 10**9, new_version, orjson.loads)
    for _ in restoration.steps():
        pass
    assert restoration.history.start_id == first_id
    assert restoration.history.newest_id == database.transaction_id


def test_a_history_that_forgets_what_is_to_be_taken_in_has_no_live_window() -> None:
    database = filled(200_000)
    window = LiveWindow(database.history)
    for operation in sets():
        run(database, [operation])
    assert list(window.steps(lambda: database.stored_id)) == []
    assert window.text is None
