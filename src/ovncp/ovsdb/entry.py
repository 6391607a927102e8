"""Entries of the log: a transaction's effect as JSON (ovsdb(5), "Record Format").

An entry names the rows that changed by table and uuid, with the difference of each changed column
(`_is_diff`), null for a deleted row, the date and the comment. A snapshot is an entry that inserts
every row of a database.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.parser import is_integer
from ovncp.ovsdb.row import Change, Row, Values
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.transaction import Transaction

_ID_IN_COMMENT = re.compile(r"\btransaction ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b").search


def encode(changes: list[Change], comment: str, date_msec: int) -> bytes | None:
    """The entry for `changes`; None when none of them is of a kind that is stored."""
    tables: dict[str, Any] = {}
    for change in changes:
        json = _change_json(change)
        if json is not _NOT_STORED:
            tables.setdefault(change.table.name, {})[change.row.uuid] = json
    if not tables:
        return None
    tables["_date"] = date_msec
    if comment:
        tables["_comment"] = comment
    tables["_is_diff"] = True
    return orjson.dumps(tables)


_NOT_STORED = object()


def _change_json(change: Change) -> Any:
    if change.new is None:
        return None
    if change.old is None:
        return row_json(change.table, change.new)
    columns = list(change.table.columns.values())
    json = {}
    for index in change.columns:
        column = columns[index]
        if column.persistent:
            diff = column.type.diff(change.old[index], change.new[index])
            json[column.name] = column.type.json(diff)
    return json or _NOT_STORED


def row_json(table: Table, values: Values) -> dict[str, Any]:
    """The columns of a row that are stored and differ from their defaults."""
    json = {}
    for name, index, default, to_json in table.stored:
        datum = values[index]
        if datum is not default and datum != default:
            json[name] = datum if to_json is None else to_json(datum)
    return json


def encode_rows(table: Table, rows: Iterable[tuple[str, Values]]) -> bytes:
    """The members of a snapshot's object for rows of `table`, with no braces."""
    json = {uuid: row_json(table, values) for uuid, values in rows}
    return orjson.dumps(json)[1:-1]


def snapshot_tail(comment: str, date_msec: int) -> bytes:
    """The last members of a snapshot's object."""
    return orjson.dumps({"_date": date_msec, "_comment": comment})[1:]


def next_id(previous_id: str, data: bytes) -> str:
    """The transaction id of the entry `data` that follows the transaction `previous_id`.

    It depends on nothing but the log's own content, so that it is the same after a restart and on
    every server of the log.
    """
    h = hashlib.sha1(previous_id.encode() + data, usedforsecurity=False).hexdigest()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:32]}"


def snapshot_comment(transaction_id: str) -> str:
    """The comment of a snapshot, which keeps the id of the last transaction that it includes."""
    return f"compacting database online (transaction {transaction_id})"


class Entry:
    """A parsed entry."""

    __slots__ = ("comment", "date_msec", "is_diff", "tables", "transaction_id")

    def __init__(self, json: Any) -> None:
        if type(json) is not dict:
            raise OvsdbError("syntax error", "object expected", json)
        self.date_msec: int | None = None
        self.comment: str | None = None
        self.transaction_id: str | None = None
        self.is_diff = bool(json.pop("_is_diff", False))
        if is_integer(json.get("_date")):
            self.date_msec = json.pop("_date")
        if type(json.get("_comment")) is str:
            self.comment = json.pop("_comment")
            match = _ID_IN_COMMENT(self.comment or "")
            self.transaction_id = match.group(1) if match else None
        self.tables: dict[str, Any] = json


def replay(entry: Entry, tables: dict[str, Table], *, converting: bool) -> Transaction:
    """The transaction of `entry`, applied to `tables` but not yet committed.

    With `converting`, tables and columns that the schema does not have are passed over. Raises
    OvsdbError for an entry that does not fit the database.
    """
    transaction = Transaction()
    try:
        for name, rows in entry.tables.items():
            table = tables.get(name)
            if table is not None:
                for uuid, json in _rows_of(rows):
                    _replay_row(transaction, table, uuid, json, entry.is_diff, converting)
            elif not converting:
                raise OvsdbError("syntax error", f"No table named {name}.", entry.tables)
    except OvsdbError:
        transaction.abort()
        raise
    return transaction


def _rows_of(rows: Any) -> Iterator[tuple[str, Any]]:
    if type(rows) is not dict:
        raise OvsdbError("syntax error", "object expected", rows)
    yield from rows.items()


def _replay_row(
    transaction: Transaction, table: Table, uuid: str, json: Any, is_diff: bool, converting: bool
) -> None:
    row = table.rows.get(uuid)
    if json is None:
        if row is None:
            raise _inconsistent("delete", uuid, table)
        transaction.delete(table, row)
        return
    if converting:
        json = {name: value for name, value in json.items() if name in table.columns}
    datums = table.parse_row(json, None)
    if row is None:
        values = table.defaults.copy()
        for index, datum in datums.items():
            values[index] = datum
        values[0] = uuid
        transaction.insert(table, Row(uuid, tuple(values)))
        return
    if is_diff:
        columns = list(table.columns.values())
        for index, diff in datums.items():
            datums[index] = columns[index].type.apply_diff(row.values[index], diff)
    transaction.modify(table, row, datums)


def _inconsistent(verb: str, uuid: str, table: Table) -> OvsdbError:
    return OvsdbError(
        "consistency violation", f"cannot {verb} missing row {uuid} from table {table.name}"
    )
