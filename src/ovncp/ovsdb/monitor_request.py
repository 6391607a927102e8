"""What a client asks to monitor: `<monitor-requests>` and their later forms, parsed.

RFC 7047 section 4.1.5, and ovsdb-server(7) sections 4.1.12 and 4.1.13.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from ovncp.ovsdb import condition
from ovncp.ovsdb.aspect import AnyOf, any_of
from ovncp.ovsdb.condition import Clause
from ovncp.ovsdb.errors import OvsdbError, json_text, syntax_error
from ovncp.ovsdb.gathering import Gathering
from ovncp.ovsdb.parser import Member, is_array, is_boolean, is_object, parse
from ovncp.ovsdb.schema import VERSION, Column
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.update import DELETE, EVERYTHING, INITIAL, INSERT, MODIFY, Form

_SELECT = tuple(
    Member(name, is_boolean, True) for name in ("initial", "insert", "delete", "modify")
)
_SELECT_BITS = {"initial": INITIAL, "insert": INSERT, "delete": DELETE, "modify": MODIFY}
_REQUEST = (Member("columns", is_array, True), Member("select", is_object, True))
_COND_REQUEST = (Member("where", is_array, True), *_REQUEST)
_COND_CHANGE = (Member("columns", is_array, True), Member("where", is_array, True))

_TRUE = Clause(None, "true", None)
_ALL_ROWS = b""


class Where:
    """The rows of a table that are wanted: all if `condition` is None.

    Those of equal `digest` are equal.
    """

    __slots__ = ("condition", "digest")

    def __init__(self, clauses: list[Clause], json: Any) -> None:
        """`json` is what `clauses` were parsed from."""
        self.condition: AnyOf | None = any_of(clauses)
        self.digest = _ALL_ROWS if self.condition is None else _digest(json)


class TableRequest:
    """What is wanted of one table."""

    __slots__ = ("form", "table", "where")

    def __init__(self, table: Table, form: Form, where: Where) -> None:
        self.table = table
        self.form = form
        self.where = where

    @property
    def shows_unstored(self) -> bool:
        """Whether an ephemeral column is wanted; `_version` varies, but has no meaning."""
        columns = self.table.column_list
        _, selections, _ = self.form
        return any(i > VERSION and not columns[i].persistent for i, _ in selections)


class MonitorRequest:
    """What a monitor wants, by the tables' names. `version` is 1, 2 or 3 (see `Monitor`).

    `gathered` is what was put together for it beforehand, by the tables' names.
    """

    __slots__ = ("gathered", "tables", "version")

    def __init__(self, tables: dict[str, TableRequest], version: int) -> None:
        self.tables = tables
        self.version = version
        self.gathered: dict[str, Gathering] = {}

    @property
    def shows_unstored(self) -> bool:
        """Whether there is something to see that is not stored."""
        return any(wanted.table.rows and wanted.shows_unstored for wanted in self.tables.values())


def parse_request(tables: Mapping[str, Table], json: Any, version: int) -> MonitorRequest:
    """Parse the `<monitor-requests>` object `json`. Raises OvsdbError."""
    if type(json) is not dict:
        raise syntax_error(json, "monitor-requests must be object")
    wanted = {name: _table_request(tables, name, json[name], version) for name in json}
    return MonitorRequest(wanted, version)


def parse_change(
    tables: Mapping[str, Table], monitored: Mapping[str, Any], json: Any
) -> dict[str, Where]:
    """Parse the `<monitor-cond-update-requests>` object `json` for what is `monitored`.

    Raises OvsdbError.
    """
    if type(json) is not dict:
        raise OvsdbError("syntax error", "monitor-cond-change-requests must be object")
    found: dict[str, Where] = {}
    for name, requests in json.items():
        table = _table(tables, name)
        if name not in monitored:
            raise OvsdbError("syntax error", f"no table named {name} in monitor session")
        if type(requests) is not list:
            raise OvsdbError("syntax error", f"table {name} no monitor-cond-change JSON array")
        for request in requests:
            found[name] = _changed_where(table, request)
    return found


def _table(tables: Mapping[str, Table], name: str) -> Table:
    table = tables.get(name)
    if table is None:
        raise OvsdbError("syntax error", f"no table named {name}")
    return table


def _table_request(tables: Mapping[str, Table], name: str, json: Any, version: int) -> TableRequest:
    table = _table(tables, name)
    selections: dict[Column, int] = {}
    select = 0
    clauses: list[Clause] = []
    wheres: list[Any] = []
    for request in json if type(json) is list else [json]:
        select |= _parse_request(table, request, version, selections)
        where = request.get("where") if version > 1 else None
        clauses += condition.parse(table.schema, where, None) if where is not None else [_TRUE]
        wheres.append(where)
    columns = tuple(sorted((column.index, bits) for column, bits in selections.items()))
    form = (1 if version == 1 else 2, columns, select)
    return TableRequest(table, form, Where(clauses, wheres))


def _parse_request(table: Table, request: Any, version: int, selections: dict[Column, int]) -> int:
    """Add the columns of a `<monitor-request>` to `selections`; the kinds that it selects."""
    shape = _REQUEST if version == 1 else _COND_REQUEST
    members = parse(request, shape, f"table {table.name}")
    select = EVERYTHING
    if "select" in members:
        wanted = parse(members["select"], _SELECT, f"table {table.name} select")
        select = sum(bit for name, bit in _SELECT_BITS.items() if wanted.get(name, True))
    for column in _request_columns(table, members):
        if column in selections:
            message = f"column {column.name} mentioned more than once"
            raise OvsdbError("syntax error", message, *_given(members, "columns"))
        selections[column] = select
    return select


def _given(members: dict[str, Any], name: str) -> list[Any]:
    return [members[name]] if name in members else []


def _request_columns(table: Table, members: dict[str, Any]) -> Iterator[Column]:
    if "columns" not in members:
        yield from (column for name, column in table.columns.items() if name != "_uuid")
        return
    for name in members["columns"]:
        if type(name) is not str:
            raise syntax_error(members["columns"], "array of column names expected")
        column = table.columns.get(name)
        if column is None:
            raise syntax_error(members["columns"], f"{name} is not a valid column name")
        yield column


def _changed_where(table: Table, request: Any) -> Where:
    members = parse(request, _COND_CHANGE, f"table {table.name}")
    if "columns" in members:
        raise syntax_error(request, "changing columns is unsupported")
    where = members.get("where")
    return Where([] if where is None else condition.parse(table.schema, where, None), [where])


def _digest(json: Any) -> bytes:
    """What tells `json` from any other: a condition's text is long, and there are thousands."""
    try:
        text = orjson.dumps(json)
    except TypeError:  # for want of a form for what is no valid UTF-8
        text = json_text(json).encode()
    return hashlib.blake2b(text, digest_size=16).digest()
