"""A copy of another server's database, kept by its updates (ovsdb-server(7) section 4.1.14).

A `<table-updates2>` object becomes a transaction. What the other server committed is not checked
again: its constraints hold, its garbage is collected, and the rows keep their `_version`. What does
not fit the rows that are here, as an insertion of one that is there, shows that the copy is none.

A whole dump is taken in slices, since there may be many rows: either into a database that nobody
sees yet, or as a difference from what is here.
"""

from collections.abc import Callable, Iterator
from typing import Any

from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.schema import VERSION
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.transaction import Transaction, find_changes

Tables = dict[str, Table]
# A row: its table, its uuid, and its datums by their columns' places; None for one to delete.
Item = tuple[Table, str, dict[int, Any] | None]


def transaction_of(updates: Any, tables: Tables, new_version: Callable[[], int]) -> Transaction:
    """The transaction that the `<table-updates2>` object `updates` stands for, not yet committed.

    Raises OvsdbError for one that does not fit, and then has changed nothing.
    """
    transaction = Transaction()
    try:
        for name, rows in updates.items():
            table = _table(tables, name)
            for uuid, update in rows.items():
                ((kind, json),) = update.items()
                _KINDS[kind](transaction, table, uuid, json, new_version)
    except (OvsdbError, KeyError, ValueError, TypeError, AttributeError) as error:
        transaction.abort()
        raise _inconsistency(str(error) or repr(error)) from error
    find_changes(transaction)
    return transaction


def _table(tables: Tables, name: str) -> Table:
    table = tables.get(name)
    if table is None:
        raise _inconsistency(f"there is no table {name}")
    return table


def _inconsistency(details: str) -> OvsdbError:
    return OvsdbError("consistency violation", details)


def _insert(
    transaction: Transaction, table: Table, uuid: str, json: Any, new_version: Callable[[], int]
) -> None:
    if uuid in table.rows:
        raise _inconsistency(f"row {uuid} of {table.name} is there already")
    datums = table.parse_row(json, None)
    _put(transaction, table, uuid, datums, new_version)


def _put(
    transaction: Transaction,
    table: Table,
    uuid: str,
    datums: dict[int, Any],
    new_version: Callable[[], int],
) -> None:
    version = datums.pop(VERSION, None)
    row = table.make_row(uuid, datums, new_version() if version is None else version)
    transaction.insert(table, row, datums)


def _modify(
    transaction: Transaction, table: Table, uuid: str, json: Any, new_version: Callable[[], int]
) -> None:
    row = table.rows.get(uuid)
    if row is None:
        raise _inconsistency(f"there is no row {uuid} of {table.name} to modify")
    diffs = table.parse_diff(json)
    columns = table.column_list
    values = row.values
    datums = {index: columns[index].type.apply_diff(values[index], diffs[index]) for index in diffs}
    datums.setdefault(VERSION, new_version())
    transaction.modify(table, row, datums)


def _delete(
    transaction: Transaction, table: Table, uuid: str, json: Any, new_version: Callable[[], int]
) -> None:
    row = table.rows.get(uuid)
    if row is None:
        raise _inconsistency(f"there is no row {uuid} of {table.name} to delete")
    transaction.delete(table, row)


_KINDS: dict[str, Callable[[Transaction, Table, str, Any, Callable[[], int]], None]] = {
    "initial": _insert,
    "insert": _insert,
    "modify": _modify,
    "delete": _delete,
}


def parse_dump(updates: Any, tables: Tables, n_rows: int) -> Iterator[list[Item]]:
    """The rows of the dump `updates`, `n_rows` at a time. Raises OvsdbError."""
    items: list[Item] = []
    try:
        for name, rows in updates.items():
            table = _table(tables, name)
            for uuid, update in rows.items():
                items.append((table, uuid, table.parse_row(update["initial"], None)))
                if len(items) == n_rows:
                    yield items
                    items = []
    except (KeyError, TypeError, AttributeError) as error:
        raise _inconsistency(repr(error)) from error
    yield items


def fill(items: list[Item], new_version: Callable[[], int]) -> None:
    """Add rows to tables that nobody looks at yet."""
    transaction = Transaction()
    for table, uuid, datums in items:
        assert datums is not None
        _put(transaction, table, uuid, datums, new_version)
    transaction.commit()


def differing(items: list[Item]) -> list[Item]:
    """Those of `items` that are not here, or are other than here."""
    return [item for item in items if _differs(item)]


def _differs(item: Item) -> bool:
    table, uuid, datums = item
    row = table.rows.get(uuid)
    if row is None or datums is None:
        return True
    values = row.values
    return any(
        values[column.index] != datums.get(column.index, column.type.default)
        for column in table.column_list[VERSION + 1 :]
    )


def _in_full(table: Table, datums: dict[int, Any]) -> dict[int, Any]:
    own = table.column_list[VERSION + 1 :]
    defaults = {column.index: column.type.default for column in own}
    return defaults | datums


def missing(known: dict[str, set[str]], tables: Tables) -> list[Item]:
    """The rows that are here and not among `known`, the uuids in a dump by table."""
    return [
        (table, uuid, None)
        for name, table in tables.items()
        for uuid in table.rows.keys() - known.get(name, set())
    ]


def difference(items: list[Item], new_version: Callable[[], int]) -> Transaction:
    """The transaction that makes the rows of `items` what these say, not yet committed."""
    transaction = Transaction()
    for table, uuid, datums in items:
        row = table.rows.get(uuid)
        if datums is None:
            if row is not None:
                transaction.delete(table, row)
        elif row is None:
            _put(transaction, table, uuid, datums, new_version)
        else:
            transaction.modify(table, row, _in_full(table, datums))
    find_changes(transaction)
    return transaction
