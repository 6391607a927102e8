"""Giving a database another schema, with the data that fit (ovsdb-server(7) section 4.1.19).

A column that both schemas have keeps its data; where its type is another, they have to be of that
type too, the defaults included.
"""

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from ovncp.ovsdb.column_type import ColumnType
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.schema import UUID, VERSION, type_to_json
from ovncp.ovsdb.snapshot_entry import TableRows
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.transaction import Transaction

_ROWS_PER_STEP = 200


class _Move:
    """A column's way from one table to another: from which place to which, and how."""

    __slots__ = ("_old_type", "new_place", "new_type", "old_place")

    def __init__(self, old: Table, new: Table, name: str) -> None:
        source, target = old.columns[name], new.columns[name]
        self.old_place = source.index
        self.new_place = target.index
        self.new_type: ColumnType = target.type
        is_same = type_to_json(source.type) == type_to_json(target.type)
        self._old_type = None if is_same else source.type

    def datum(self, datum: Any) -> Any:
        """The datum in the new column. Raises OvsdbError."""
        if self._old_type is None:
            return datum
        json = orjson.loads(orjson.dumps(self._old_type.json(datum)))
        return self.new_type.from_json(json, None)


def convert(
    content: list[TableRows],
    tables: dict[str, Table],
    transaction: Transaction,
    new_version: Callable[[], int],
) -> Iterator[None]:
    """Insert the rows of `content` into `tables` as far as they fit, with a pause after each step.

    Raises OvsdbError for data that are not of a column's new type; the transaction is then to be
    aborted.
    """
    for old, rows in content:
        new = tables.get(old.name)
        if new is None:
            continue
        moves = [_Move(old, new, name) for name in old.columns if name in new.columns]
        moves = [move for move in moves if move.new_place not in (UUID, VERSION)]
        for start in range(0, len(rows), _ROWS_PER_STEP):
            for values in rows[start : start + _ROWS_PER_STEP]:
                _insert(transaction, new, moves, values, new_version())
            yield


def _insert(
    transaction: Transaction, table: Table, moves: list[_Move], values: Values, version: int
) -> None:
    datums: dict[int, Any] = {}
    for move in moves:
        datum = move.datum(values[move.old_place])
        if datum != move.new_type.default:
            datums[move.new_place] = datum
    transaction.insert(table, table.make_row(values[UUID], datums, version), datums)
