"""A change of a row as others are told of it: what it was, and what a filter has to know of it.

Of a row that was changed, `changes` has what a PATCH would take that makes the same change: the new
value of a column, the elements that a set lost and gained, the members of a map that are others. So
an event stays as small as the change, however large the row.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from ovncp.ovn.names import name_columns
from ovncp.ovn.owners import Tenants
from ovncp.ovn.resources import BY_TABLE, NORTHBOUND, SOUTHBOUND
from ovncp.ovn.rows import Rows, encode
from ovncp.ovsdb.row import Change, Values
from ovncp.ovsdb.schema import VERSION, Column
from ovncp.ovsdb.table import Table

SHORT = {NORTHBOUND: "nb", SOUTHBOUND: "sb"}

UNTOLD = frozenset(
    [
        (SOUTHBOUND, "Logical_Flow"),
        (SOUTHBOUND, "Logical_DP_Group"),
        (SOUTHBOUND, "Chassis_Private"),
    ]
)
"""Tables whose changes are not told: ovn-northd derives dozens of flows from one change, and every
chassis counts `nb_cfg` on there; all others would drown in that."""

INSERT, UPDATE, DELETE, RELOAD = "insert", "update", "delete", "reload"


class Head(NamedTuple):
    """What a filter has to know of an event. `table` is "" for one about a whole database.

    `at` is when the change was seen, in seconds since the epoch.
    """

    database: str
    table: str
    resource: str | None
    uuid: str
    name: str
    tenants: Sequence[str]
    at: float


class Told(NamedTuple):
    """An event: whose change, in which version it left the row, and the texts of head and body."""

    row: str
    version: str
    head: bytes
    body: bytes


def of_change(
    database: str, rows: Rows, change: Change, tenants: Tenants, at: float
) -> Told | None:
    """The event for a change that was seen `at` seconds since the epoch; None if there is none."""
    table = change.table
    if (database, table.name) in UNTOLD or not _says_anything(change):
        return None
    known = BY_TABLE.get((database, table.name))
    resource = None if known is None else known.name
    uuid = change.row.uuid
    values = change.old if change.new is None else change.new
    assert values is not None
    name = _name(table, values)
    head = Head(SHORT[database], table.name, resource, uuid, name, sorted(tenants), at)
    body = _about(head) | _content(rows, change)
    row = f"{head.database}/{table.name}/{uuid}"
    return Told(row, _version(change.new), orjson.dumps(tuple(head)), encode(body))


def of_reload(database: str, version: str, at: float) -> Told:
    """The event for a database of which everything is to be loaded anew."""
    head = Head(SHORT[database], "", None, "", "", (), at)
    body = {"type": RELOAD, "database": head.database, "at": at}
    return Told(head.database, version, orjson.dumps(tuple(head)), orjson.dumps(body))


def _says_anything(change: Change) -> bool:
    is_modified = change.old is not None and change.new is not None
    return not is_modified or any(place != VERSION for place in change.columns)


def _name(table: Table, values: Values) -> str:
    column_name, _, key = name_columns(table.name)[0].partition(":")
    column = table.columns.get(column_name)
    if column is None:
        return ""
    value = values[column.index]
    if key:
        value = value.get(key, "")
    elif not column.type.is_scalar:
        value = value[0] if value else ""
    return str(value)


def _about(head: Head) -> dict[str, Any]:
    told = {name: value for name, value in head._asdict().items() if name != "tenants"}
    return {"type": "", **told}


def _content(rows: Rows, change: Change) -> dict[str, Any]:
    if change.new is None:
        return {"type": DELETE}
    if change.old is None:
        return {"type": INSERT, "row": rows.object(change.new)}
    old, new = change.old, change.new
    columns = [change.table.column_list[place] for place in change.columns]
    return {
        "type": UPDATE,
        "changes": {column.name: _patch(rows, column, old, new) for column in columns},
    }


def _patch(rows: Rows, column: Column, old: Values, new: Values) -> Any:
    """What makes the column of a row what it is now, as `Draft.change` takes it."""
    kind = column.type
    if kind.is_scalar or kind.n_max == 1:
        return rows.object(new, (column.name,))[column.name]
    removed, added = kind.removed_and_added(old[column.index], new[column.index])
    if kind.is_map:
        return {key: None for key, _ in removed} | dict(added)
    return {"remove": sorted(removed), "add": sorted(added)}


def _version(new: Values | None) -> str:
    """What tells the states of a row apart, alike at all who follow it.

    Not `_version`: servers of one cluster give a row different ones.
    """
    if new is None:
        return DELETE
    text = orjson.dumps(new[VERSION + 1 :], option=orjson.OPT_NON_STR_KEYS)
    return hashlib.blake2b(text, digest_size=12).hexdigest()
