"""What is in a database, in forms to compare, and whether its books are in order."""

from collections import Counter
from typing import Any

from model.naive import PYTHON_TYPES, State
from ovncp.ovsdb.column_type import ColumnType
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.row import Row
from ovncp.ovsdb.schema import UUID, VERSION, Column
from ovncp.ovsdb.table import Reference, Table


def state_of(database: Database) -> State:
    """The content, as the naive model has it."""
    return {
        name: {uuid: row_of(table, row) for uuid, row in table.rows.items()}
        for name, table in database.tables.items()
    }


def row_of(table: Table, row: Row) -> dict[str, frozenset[Any]]:
    return {
        column.name: elements_of(column.type, row.values[column.index])
        for column in table.column_list
        if column.index != VERSION
    }


def elements_of(kind: ColumnType, datum: Any) -> frozenset[Any]:
    return frozenset(datum.items() if kind.is_map else kind.keys(datum))


def picture(database: Database) -> dict[str, Any]:
    """All that a transaction may change and that undoing it has to bring back."""
    return {
        name: (
            {uuid: (row.values, row.n_refs) for uuid, row in table.rows.items()},
            [{key: row.uuid for key, row in index.items()} for index in table.indexes],
            {
                uuid: {(source.name, row.uuid): n for row, (source, n) in rows.items()}
                for uuid, rows in table.referrers.items()
            },
        )
        for name, table in database.tables.items()
    }


def check(database: Database) -> None:
    """What is kept beside the rows is what counting anew would find."""
    n_refs: Counter[Row] = Counter()
    referrers: dict[str, dict[str, Counter[Row]]] = {name: {} for name in database.tables}
    for table in database.tables.values():
        for row in table.rows.values():
            for reference in table.strong.all:
                n_refs.update(_targets(reference, row))
            for reference in table.weak.all:
                for uuid in reference.uuids(row.values[reference.place]):
                    counts = referrers[reference.target.name].setdefault(uuid, Counter())
                    counts[row] += 1
    for name, table in database.tables.items():
        _check_rows(table)
        assert table.changes == []
        for row in table.rows.values():
            assert row.n_refs == n_refs[row], (name, row.uuid)
        assert {
            uuid: Counter({row: n for row, (_, n) in rows.items()})
            for uuid, rows in table.referrers.items()
        } == referrers[name]
        for index, key_of in zip(table.indexes, table.index_keys, strict=True):
            assert index == {key_of(row.values): row for row in table.rows.values()}
            assert len(index) == len(table.rows)


def _targets(reference: Reference, row: Row) -> list[Row]:
    """The rows that `row` keeps alive by one of its columns, as often as it refers to them."""
    uuids = reference.uuids(row.values[reference.place])
    return [reference.target.rows[uuid] for uuid in uuids if uuid != row.uuid]


def _check_rows(table: Table) -> None:
    for uuid, row in table.rows.items():
        assert (row.uuid, row.values[UUID], row.change) == (uuid, uuid, None)
        for column in table.column_list:
            if column.index != VERSION:
                _check_datum(column, row.values[column.index])


def _check_datum(column: Column, datum: Any) -> None:
    """Elements are in order, of the right Python types, and as many as may be."""
    kind = column.type
    assert kind.conforms(datum)
    keys = list(kind.keys(datum))
    assert keys == sorted(set(keys))
    assert all(type(key) is PYTHON_TYPES[kind.key.kind] for key in keys)
    if kind.value is not None:
        assert all(type(value) is PYTHON_TYPES[kind.value.kind] for value in kind.values(datum))
