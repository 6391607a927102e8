"""What finds rows and monitors by values finds what trying every condition on every row finds."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from model.pair import Pair
from model.strategies import Writer, below, free_schemas, pick
from ovncp.ovsdb import dump, gathering, monitor, row_index
from ovncp.ovsdb.aspect import AnyOf, any_of
from ovncp.ovsdb.condition import Clause, matches_any, parse
from ovncp.ovsdb.condition_index import ConditionIndex
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.monitor_request import MonitorRequest
from ovncp.ovsdb.row import Change, Row, Values
from ovncp.ovsdb.schema import VERSION
from ovncp.ovsdb.table import Table

# A failure is made small before it is shown, which takes its time.
pytestmark = pytest.mark.timeout(600)

Clauses = tuple[Clause, ...]


def clause_lists(data: Any, pair: Pair, n: int) -> Iterator[Clauses]:
    """The valid ones among `n` conditions on the table A."""
    writer = Writer(data.draw, pair.schema, pair.state)
    schema = pair.database.tables["A"].schema
    for _ in range(n):
        with suppress(OvsdbError):
            yield tuple(parse(schema, writer.condition("A"), None))


def filled(data: Any) -> Pair:
    pair = Pair(data.draw(free_schemas()))
    for _ in range(4):
        writer = Writer(data.draw, pair.schema, pair.state)
        pair.transact([{"op": "insert", "table": "A", "row": writer.row(pair.schema["A"])}])
    return pair


def conditions(data: Any, pair: Pair) -> dict[Clauses, AnyOf]:
    """Those that not every row meets, by their clauses."""
    found = {}
    for clauses in clause_lists(data, pair, 12):
        condition = any_of(clauses)
        if condition is not None:
            found[clauses] = condition
        else:
            rows = pair.database.tables["A"].rows.values()
            assert all(matches_any(clauses, row.values) for row in rows)
    return found


@examples(60)
@given(st.data())
def test_a_change_concerns_whom_it_concerns(data):
    pair = filled(data)
    table = pair.database.tables["A"]
    wishes = conditions(data, pair)
    index = ConditionIndex()
    for clauses, condition in wishes.items():
        index.add(clauses, condition)
    rows = [row.values for row in table.rows.values()]
    for clauses, condition in wishes.items():
        assert all(condition.matches(values) == matches_any(clauses, values) for values in rows)
    for old, new in product([None, *rows], repeat=2):
        found = list(index.concerned(change(table, old, new)))
        assert len({clauses for clauses, _, _ in found}) == len(found)
        assert set(found) == {
            (clauses, was_seen, is_seen)
            for clauses in wishes
            for was_seen, is_seen in [(seen(clauses, old), seen(clauses, new))]
            if was_seen or is_seen
        }
    for clauses, condition in wishes.items():
        index.remove(clauses, condition)
    assert len(index) == 0
    assert list(index.concerned(change(table, None, rows[0]))) == []


def change(table: Table, old: Values | None, new: Values | None) -> Change:
    result = Change(table, Row("", old or new or ()), old, new)
    if old is not None and new is not None:
        result.columns = tuple(n for n in range(len(old)) if old[n] != new[n])
    return result


def seen(clauses: Clauses, values: Values | None) -> bool:
    return values is not None and matches_any(clauses, values)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """What is done step by step is, even for the few rows here."""
    monkeypatch.setattr(dump, "ROWS_PER_PIECE", 2)
    monkeypatch.setattr(dump, "_FEWEST_ROWS", 2)
    monkeypatch.setattr(row_index, "_ROWS_PER_STEP", 1)
    monkeypatch.setattr(monitor, "_ROWS_PER_STEP", 1)
    monkeypatch.setattr(gathering, "_ROWS_PER_STEP", 1)


class Wanted:
    """Rows of the table A that a client may ask for."""

    def __init__(self, pair: Pair, columns: list[str], where: Any) -> None:
        self.pair = pair
        self.monitors = pair.database.monitors
        self.json = {"A": {"columns": columns, "where": where}}
        self.clauses = parse(pair.database.tables["A"].schema, where, None)
        self.request, self.steps = self._again()

    def _again(self) -> tuple[MonitorRequest, Iterator[None]]:
        request = self.monitors.parse(self.json, 2)
        return request, self.monitors.prepare(request)

    def check(self) -> None:
        """A client that asks now is shown what is there, and what an earlier one was is right."""
        table = self.pair.database.tables["A"]
        monitor = self.monitors.add(self, "m", self.request)
        self.request, self.steps = self._again()
        shown = orjson.loads(b"".join(self.monitors.initial(monitor))).get("A", {})
        assert shown == {
            row.uuid: {"initial": self._sparse(table, row)}
            for row in table.rows.values()
            if matches_any(self.clauses, row.values)
        }
        self.monitors.remove(monitor)

    def _sparse(self, table: Table, row: Row) -> dict[str, Any]:
        return orjson.loads(
            orjson.dumps(
                {
                    column.name: column.type.json(row.values[column.index])
                    for column in table.column_list
                    if column.index != VERSION and row.values[column.index] != column.type.default
                }
            )
        )


def wanted(data: Any, pair: Pair) -> list[Wanted]:
    """All rows of A, and those that meet some conditions."""
    columns = list(pair.schema["A"].columns)
    found = [Wanted(pair, columns, [])]
    writer = Writer(data.draw, pair.schema, pair.state)
    for _ in range(6):
        with suppress(OvsdbError):
            found.append(Wanted(pair, columns, writer.condition("A")))
    return found


@examples(150)
@given(st.data())
def test_rows_are_found_in_a_table_that_changes(data):
    """What is kept of it is made in pieces, from a table that is ahead of what is visible."""
    pair = filled(data)
    settle_all(pair)
    settled, clients = pair.state, wanted(data, pair)
    for _ in range(20 - data.draw(below(16))):
        action = pick(data.draw, ["transact"] * 3 + ["prepare"] * 3 + ["settle", "take back"])
        if action == "transact":
            pair.transact(Writer(data.draw, pair.schema, pair.state).operations())
        elif action == "prepare":
            next(pick(data.draw, clients).steps, None)
        else:
            if action == "take back":
                pair.database.revert()
                pair.state = settled
            settle_all(pair)
            settled = pair.state
            for client in clients[: data.draw(below(len(clients)))]:
                client.check()
    settle_all(pair)
    for client in clients:
        client.check()


def settle_all(pair: Pair) -> None:
    while not pair.database.is_settled:
        pair.database.settle()
