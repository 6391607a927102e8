"""What became of rows, as JSON and in words: of each row the columns that changed, old and new."""

from collections.abc import Iterator, Sequence
from typing import Any

from ovncp.ops.db.row_json import datum_json
from ovncp.ovsdb.history import Kept
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.table import Table

INSERTED, CHANGED, DELETED = "inserted", "changed", "deleted"

_SIGNS = {"old": "-", "new": "+"}

Json = dict[str, Any]


def kind(change: Kept) -> str:
    """`INSERTED`, `CHANGED` or `DELETED`."""
    if change.old is None:
        return INSERTED
    return DELETED if change.new is None else CHANGED


def row_name(table: Table, values: Values) -> str:
    """What people call a row: its `name`, or the column that alone is an index; "" if neither."""
    column = table.columns.get("name")
    for columns in table.schema.indexes:
        if column is None and len(columns) == 1:
            column = columns[0]
    if column is None:
        return ""
    datum = values[column.index]
    return datum if type(datum) is str else column.type.to_string(datum)


def names(change: Kept) -> list[str]:
    """What the row was called before and after."""
    return [row_name(change.table, each) for each in (change.old, change.new) if each is not None]


def counts(changes: Sequence[Kept]) -> dict[str, dict[str, int]]:
    """How many rows were inserted, changed and deleted, by table name."""
    found: dict[str, dict[str, int]] = {}
    for change in changes:
        of_table = found.setdefault(change.table.name, {INSERTED: 0, CHANGED: 0, DELETED: 0})
        of_table[kind(change)] += 1
    return dict(sorted(found.items()))


def counts_text(found: dict[str, dict[str, int]]) -> str:
    """`counts` in one line."""
    return ", ".join(f"{table} {_signed(of_table)}" for table, of_table in found.items())


def _signed(of_table: dict[str, int]) -> str:
    parts = zip("+~-", of_table.values(), strict=True)
    return " ".join(f"{sign}{n}" for sign, n in parts if n)


def change_json(change: Kept) -> Json:
    """The change of a row: its columns have `old` where it was there before, `new` if it is now."""
    types = {name: to_json for name, _, _, to_json in change.table.stored}
    return {
        "table": change.table.name,
        "uuid": change.uuid,
        "name": names(change)[-1],
        "change": kind(change),
        "columns": {
            name: {side: datum_json(datum, types[name]) for side, datum in sides.items()}
            for name, sides in _columns(change)
        },
    }


def _columns(change: Kept) -> Iterator[tuple[str, dict[str, Any]]]:
    """The datums of columns that differ, or are not the defaults in a row that is new or gone."""
    old, new = change.old, change.new
    for name, index, default, _ in change.table.stored:
        before = default if old is None else old[index]
        after = default if new is None else new[index]
        if before != after:
            sides = {} if old is None else {"old": before}
            yield name, sides if new is None else {**sides, "new": after}


def change_lines(change: Kept) -> Iterator[str]:
    """The change of a row as a patch."""
    name = names(change)[-1]
    title = f' "{name}"' if name else ""
    yield f"{change.table.name} {change.uuid}{title} {kind(change)}"
    for column, sides in _columns(change):
        to_string = change.table.columns[column].type.to_string
        for side, datum in sides.items():
            yield f"  {_SIGNS[side]} {column}: {to_string(datum)}"
