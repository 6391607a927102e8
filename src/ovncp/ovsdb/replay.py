"""Entries of the log on their way back into the tables.

What an entry says is not trusted: the file that it comes from may have been written by anybody.
"""

from collections.abc import Callable
from typing import Any

from ovncp.ovsdb.atom import uuid_from_string
from ovncp.ovsdb.entry import Entry
from ovncp.ovsdb.errors import OvsdbError, syntax_error
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.transaction import Transaction


class Inapplicable(OvsdbError):
    """An entry makes sense, but breaks a rule of the schema on the data that are there."""


def precommit(transaction: Transaction, new_version: Callable[[], int]) -> None:
    """Complete the transaction of an entry; one that cannot be is undone, and Inapplicable."""
    try:
        transaction.precommit(new_version)
    except OvsdbError as error:
        transaction.abort()
        raise Inapplicable(error.tag, error.details) from error


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
                for text, json in _object(rows).items():
                    uuid = _uuid_of(text, rows)
                    if converting and type(json) is dict:
                        json = {name: json[name] for name in json if name in table.columns}
                    _replay_row(transaction, table, uuid, json, entry.is_diff, new_version)
            elif not converting:
                raise OvsdbError("unknown table", f"No table named {name}.", entry.json)
    except OvsdbError:
        transaction.abort()
        raise
    return transaction


def _object(rows: Any) -> dict[str, Any]:
    if type(rows) is not dict:
        raise OvsdbError("syntax error", "object expected", rows)
    return rows


def _uuid_of(text: str, rows: Any) -> str:
    uuid = uuid_from_string(text)
    if uuid is None:
        raise syntax_error(rows, f'"{text}" is not a valid UUID')
    return uuid


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
    elif row is None:
        datums = table.parse_row(json, None)
        transaction.insert(table, table.make_row(uuid, datums, new_version()), datums)
    else:
        transaction.modify(table, row, datums_of(table, row.values, json, is_diff))


def datums_of(table: Table, values: Values | None, json: Any, is_diff: bool) -> dict[int, Any]:
    """The datums that an entry gives a row, by the places of their columns.

    `values` is what the row was before, None for one that is new. Raises OvsdbError.
    """
    if values is None or not is_diff:
        return table.parse_row(json, None)
    diffs, columns = table.parse_diff(json), table.column_list
    return {i: columns[i].type.apply_diff(values[i], diffs[i]) for i in diffs}


def insert_rows(
    transaction: Transaction,
    tables: dict[str, Table],
    json: dict[str, Any],
    new_version: Callable[[], int],
) -> None:
    """Apply a piece of an entry that only inserts.

    Raises OvsdbError or ValueError for one that does not; the transaction is then to be aborted.
    """
    for name, rows in Entry(json).tables.items():
        table = tables.get(name)
        if table is None:
            raise ValueError(f"there is no table {name}")
        for text, row in _object(rows).items():
            uuid = _uuid_of(text, rows)
            if row is None or uuid in table.rows:
                raise ValueError(f"row {uuid} is not inserted")
            datums = table.parse_row(row, None)
            transaction.insert(table, table.make_row(uuid, datums, new_version()), datums)
