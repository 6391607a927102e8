"""What a database says of its own server: `db:DB,TABLE,COLUMN` (ovsdb-server(1), --remote).

A column of strings holds connection methods, or the names of TLS files. A column that refers to
rows of another table holds connections with options, and the server keeps the status columns of
those rows.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ovncp.ovsdb.column_type import UNLIMITED
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.row import Row
from ovncp.ovsdb.schema import Column
from ovncp.ovsdb.table import Table
from ovncp.server.configuration import ConfigurationError, RemoteOptions

PREFIX = "db:"
DEFAULT_DSCP = 48


class RemoteStatus(NamedTuple):
    """A remote as the columns "is_connected" and "status" show it."""

    is_connected: bool
    details: dict[str, str]


class Place(NamedTuple):
    """What `spec` names. `target` is the table that the column refers to, if it does."""

    spec: str
    database: Database
    table: Table
    column: Column
    target: Table | None

    @property
    def tables(self) -> set[str]:
        """The names of the tables that have a say."""
        return {table.name for table in (self.table, self.target) if table is not None}


def find(spec: str, databases: Mapping[str, Database]) -> Place:
    """The column that `spec` names. Raises ConfigurationError, in the C server's words."""
    names = [name for name in spec.removeprefix(PREFIX).split(",") if name][:3]
    if len(names) < 3:
        raise ConfigurationError(f'"{spec}": invalid syntax')
    database = databases.get(names[0])
    if database is None:
        raise ConfigurationError(f'"{spec}": no database named {names[0]}')
    table = database.tables.get(names[1])
    if table is None:
        raise ConfigurationError(f'"{spec}": no table named {names[1]}')
    column = table.columns.get(names[2])
    if column is None:
        raise ConfigurationError(f'"{spec}": table "{names[1]}" has no column "{names[2]}"')
    target = None
    if column.type.key.ref_table is not None and column.type.value is None:
        target = database.tables[column.type.key.ref_table]
    return Place(spec, database, table, column, target)


def _is_strings(column: Column) -> bool:
    return column.type.key.kind == "string" and column.type.value is None


def first_string(place: Place) -> str | None:
    """The first nonempty string of the column, None if there is none.

    Raises ConfigurationError if it is not a column of strings.
    """
    if not _is_strings(place.column):
        table, column = place.table.name, place.column.name
        reason = f'table "{table}" column "{column}" is not string or set of strings'
        raise ConfigurationError(f'"{place.spec}": {reason}')
    return next((text for text in _atoms(place) if text), None)


def _atoms(place: Place) -> Iterator[Any]:
    kind, index = place.column.type, place.column.index
    for row in place.table.rows.values():
        yield from kind.keys(row.values[index])


def _connections(place: Place) -> Iterator[Row]:
    """The rows that the column refers to."""
    if place.target is not None:
        rows = place.target.rows
        yield from (rows[uuid] for uuid in _atoms(place) if uuid in rows)


def remotes(place: Place) -> Iterator[tuple[str, RemoteOptions]]:
    """The targets in the column, with the options that their rows give them."""
    if _is_strings(place.column):
        yield from ((target, RemoteOptions()) for target in _atoms(place) if target)
    for row in _connections(place):
        assert place.target is not None
        target = _scalar(place.target, row, "target", "string")
        if target:
            yield target, _options(place.target, row)


def _options(table: Table, row: Row) -> RemoteOptions:
    """What the row sets; `dscp` is in a map, as text."""
    dscp = _integer(_string_map(table, row, "other_config").get("dscp", str(DEFAULT_DSCP)))
    return RemoteOptions(
        max_backoff_msec=_scalar(table, row, "max_backoff", "integer"),
        inactivity_probe_msec=_scalar(table, row, "inactivity_probe", "integer"),
        read_only=bool(_scalar(table, row, "read_only", "boolean")),
        role=_scalar(table, row, "role", "string") or "",
        dscp=dscp if 0 <= dscp < 64 else DEFAULT_DSCP,
    )


def _integer(text: str) -> int:
    """As C's atoi has it: the number that `text` begins with, or 0."""
    number = re.match(r"\s*[+-]?[0-9]+", text)
    return int(number[0]) if number else 0


def _scalar(table: Table, row: Row, name: str, kind: str) -> Any:
    """The atom in the column `name`; None if it is empty, absent, or of another type."""
    column = table.columns.get(name)
    if column is None or not _is_single(column, kind):
        return None
    return next(iter(column.type.keys(row.values[column.index])), None)


def _string_map(table: Table, row: Row, name: str) -> Mapping[str, str]:
    """The map in the column `name`; empty if that is absent, or of another type."""
    column = table.columns.get(name)
    if column is None or not _is_string_map(column):
        return {}
    pairs: Mapping[str, str] = row.values[column.index]
    return pairs


def _is_single(column: Column, kind: str) -> bool:
    return column.type.key.kind == kind and column.type.value is None and column.type.n_max == 1


def _is_string_map(column: Column) -> bool:
    kind = column.type
    kinds = (kind.key.kind, kind.value.kind if kind.value is not None else None)
    return kinds == ("string", "string") and kind.n_max == UNLIMITED


def status_operations(
    place: Place, status_of: Callable[[str], RemoteStatus]
) -> Iterator[dict[str, Any]]:
    """The "update" operations that bring the status columns up to date, where they are not.

    `status_of` gives the status of a target.
    """
    for row in _connections(place):
        assert place.target is not None
        target = _scalar(place.target, row, "target", "string")
        if target is not None:
            changed = dict(_changed_columns(place.target, row, status_of(target)))
            if changed:
                where = [["_uuid", "==", ["uuid", row.uuid]]]
                table = place.target.name
                yield {"op": "update", "table": table, "where": where, "row": changed}


def _changed_columns(table: Table, row: Row, status: RemoteStatus) -> Iterator[tuple[str, Any]]:
    is_connected, details = table.columns.get("is_connected"), table.columns.get("status")
    if is_connected is not None and _is_single(is_connected, "boolean"):
        shown = tuple(is_connected.type.keys(row.values[is_connected.index]))
        if shown != (status.is_connected,):
            yield "is_connected", status.is_connected
    if details is None or not _is_string_map(details):
        return
    if row.values[details.index] != status.details:
        yield "status", ["map", [list(pair) for pair in status.details.items()]]
