"""Entries of the log: a transaction's effect as JSON (ovsdb(5), "Record Format").

An entry names the rows that changed by table and uuid, with the difference of each changed column
(`_is_diff`), null for a deleted row, the date and the comment. A snapshot is an entry that inserts
every row of a database.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson

from ovncp.ovsdb.atom import uuid_from_string
from ovncp.ovsdb.errors import OvsdbError, syntax_error
from ovncp.ovsdb.parser import is_integer
from ovncp.ovsdb.row import Change, Values
from ovncp.ovsdb.schema import VERSION
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.transaction import Transaction

_ID_IN_COMMENT = re.compile(
    r" \(transaction ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\)\Z"
).search


def encode(
    changes: list[Change], comment: str, date_msec: int, as_difference: bool
) -> bytes | None:
    """The entry for `changes`; None when none of them is of a kind that is stored.

    A column that changed is stored as the difference from before, or as a whole.
    """
    tables: dict[str, Any] = {}
    for change in changes:
        json = _change_json(change, as_difference)
        if json is not _NOT_STORED:
            tables.setdefault(change.table.name, {})[change.row.uuid] = json
    if not tables:
        return None
    tables["_date"] = date_msec
    if comment:
        tables["_comment"] = comment
    if as_difference:
        tables["_is_diff"] = True
    return orjson.dumps(tables)


_NOT_STORED = object()


def _change_json(change: Change, as_difference: bool) -> Any:
    if change.new is None:
        return None
    columns = change.table.column_list
    json = {}
    if change.old is None:
        for index in change.touched:
            column = columns[index]
            datum = change.new[index]
            if index > VERSION and column.persistent and datum != column.type.default:
                json[column.name] = column.type.json(datum)
        return json
    for index in change.columns:
        column = columns[index]
        if column.persistent:
            datum = change.new[index]
            if as_difference:
                datum = column.type.diff(change.old[index], datum)
            json[column.name] = column.type.json(datum)
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


def spell_out_defaults(json: Any, old: dict[str, Table], new: dict[str, Table]) -> None:
    """Add to a snapshot of `old` the defaults, which it leaves out, that may not do in `new`.

    Those are the ones of columns that have another type there.
    """
    for name in json.keys() & old.keys() & new.keys():
        columns = new[name].columns
        defaults = {
            column.name: column.type.json(column.type.default)
            for column in old[name].columns.values()
            if column.name in columns and columns[column.name].to_json() != column.to_json()
        }
        defaults = orjson.loads(orjson.dumps(defaults))
        for uuid, row in json[name].items():
            json[name][uuid] = defaults | row


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


def snapshot_comment(what: str, transaction_id: str) -> str:
    """The comment of a snapshot, which keeps the id of the last transaction that it includes.

    `what` says what the snapshot was made for.
    """
    return f"{what} (transaction {transaction_id})"


class Entry:
    """A parsed entry. `json` is the whole of it, `tables` what is not about the entry itself.

    `snapshot_id` is the id that the comment of a snapshot keeps. Clients can write such a comment
    too, so that only the first entry of a log may be taken at its word.
    """

    __slots__ = ("comment", "date_msec", "is_diff", "json", "snapshot_id", "tables")

    def __init__(self, json: Any) -> None:
        if type(json) is not dict:
            raise OvsdbError("syntax error", "object expected", json)
        self.date_msec: int | None = None
        self.comment: str | None = None
        self.snapshot_id: str | None = None
        self.json: dict[str, Any] = json
        self.tables = json.copy()
        self.is_diff = bool(self.tables.pop("_is_diff", False))
        if is_integer(json.get("_date")):
            self.date_msec = int(self.tables.pop("_date"))
        comment = self.tables.pop("_comment", None)
        if type(comment) is str:
            self.comment = comment
            match = None if self.is_diff else _ID_IN_COMMENT(comment)
            self.snapshot_id = match.group(1) if match else None


def replay(
    entry: Entry, tables: dict[str, Table], new_version: Callable[[], int], *, converting: bool
) -> Transaction:
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
                    if converting and type(json) is dict:
                        json = {name: json[name] for name in json if name in table.columns}
                    _replay_row(transaction, table, uuid, json, entry.is_diff, new_version)
            elif not converting:
                raise OvsdbError("unknown table", f"No table named {name}.", entry.json)
    except OvsdbError:
        transaction.abort()
        raise
    return transaction


def _rows_of(rows: Any) -> Iterator[tuple[str, Any]]:
    if type(rows) is not dict:
        raise OvsdbError("syntax error", "object expected", rows)
    for text, json in rows.items():
        uuid = uuid_from_string(text)
        if uuid is None:
            raise syntax_error(rows, f'"{text}" is not a valid UUID')
        yield uuid, json


def _replay_row(
    transaction: Transaction,
    table: Table,
    uuid: str,
    json: Any,
    is_diff: bool,
    new_version: Callable[[], int],
) -> None:
    row = table.rows.get(uuid)
    if json is None:
        if row is None:
            message = f"transaction deletes row {uuid} that does not exist"
            raise OvsdbError("syntax error", message)
        transaction.delete(table, row)
        return
    if row is None:
        datums = table.parse_row(json, None)
        transaction.insert(table, table.make_row(uuid, datums, new_version()), datums)
    elif is_diff:
        diffs = table.parse_diff(json)
        values, columns = row.values, table.column_list
        datums = {i: columns[i].type.apply_diff(values[i], diffs[i]) for i in diffs}
        transaction.modify(table, row, datums)
    else:
        transaction.modify(table, row, table.parse_row(json, None))
