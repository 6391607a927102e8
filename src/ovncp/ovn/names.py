"""Rows by their names: a reference is a uuid or a name, wherever one is asked for.

A name is what the column `name` has, where a table has one; the few others are listed here. Not all
names are unique in OVN, so that one may stand for several rows, which is an error that says so.
"""

from collections.abc import Callable, Iterator

from ovncp.ovn.replica import Replica
from ovncp.ovn.rows import Rows
from ovncp.ovn.values import Unresolved
from ovncp.ovsdb.atom import uuid_from_string
from ovncp.ovsdb.row import Row

_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "Chassis": ("name", "hostname"),
    "Chassis_Template_Var": ("chassis",),
    "Datapath_Binding": ("external_ids:name",),
    "HA_Chassis": ("chassis_name",),
    "Port_Binding": ("logical_port",),
}
"""Columns that name the rows of a table, where it is not `name`; of a map one key."""


def name_columns(table: str) -> tuple[str, ...]:
    """The columns that name the rows of `table`."""
    return _OTHER_NAMES.get(table, ("name",))


Sees = Callable[[Rows, Row], bool]


def _all(rows: Rows, row: Row) -> bool:
    return True


def find(replica: Replica, table: str, text: str, sees: Sees = _all) -> Row:
    """The row of `table` that `text`, its uuid or its name, stands for. Raises Unresolved.

    It is one of those that somebody `sees`.
    """
    rows = replica.rows.get(table)
    if rows is None:
        raise Unresolved(f"{replica.name} has no table {table}")
    uuid = uuid_from_string(text)
    row = None if uuid is None else rows.get(uuid)
    if row is not None and sees(rows, row):
        return row
    found = {row.uuid: row for row in named(rows, text) if sees(rows, row)}
    if not found:
        raise Unresolved(f"{table} has no row {text!r}")
    if len(found) > 1:
        raise Unresolved(f"{table} has {len(found)} rows {text!r}: {', '.join(sorted(found))}")
    return next(iter(found.values()))


def named(rows: Rows, name: str) -> Iterator[Row]:
    """The rows of that name."""
    for spec in name_columns(rows.table.name):
        column_name, _, key = spec.partition(":")
        column = rows.table.columns.get(column_name)
        if column is None or not name:
            continue
        if key:
            yield from rows.where(column, "includes", {key: name})
        else:
            datum = name if column.type.is_scalar else (name,)
            yield from rows.where(column, "==", datum)
