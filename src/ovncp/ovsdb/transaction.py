"""A transaction: changes to rows that take effect together or not at all.

Operations change the tables in place through `insert`, `modify` and `delete`. `precommit` then
runs the steps that RFC 7047 section 4.1.3 asks for at commit; each of them works on the rows that
the transaction changed, never on whole tables. `commit` brings indexes and reference counts up to
date. `abort` undoes an uncommitted transaction, `revert` one that was committed in memory and
could not be made durable.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from ovncp.ovsdb.errors import OvsdbError, constraint_violation
from ovncp.ovsdb.row import Change, Row, Values
from ovncp.ovsdb.schema import VERSION, Column
from ovncp.ovsdb.table import Reference, Table


class Transaction:
    """The changes of one transaction, in the order in which rows were first touched.

    `has_dropped` is whether it left out weak references to rows that do not exist.
    """

    __slots__ = ("changes", "comments", "deleted", "has_dropped", "tables")

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.tables: dict[str, Table] = {}
        self.deleted: dict[tuple[str, str], Change] = {}
        self.comments: list[str] = []
        self.has_dropped = False

    def _touch(self, table: Table, row: Row, old: Values | None) -> Change:
        change = row.change = Change(table, row, old, row.values)
        self.changes.append(change)
        table.changes.append(change)
        self.tables[table.name] = table
        return change

    def change_of(self, table: Table, row: Row) -> Change:
        """The change of `row`, begun now if there is none."""
        return row.change or self._touch(table, row, row.values)

    def insert(self, table: Table, row: Row, datums: dict[int, Any]) -> None:
        """Add `row` to `table`; the places of columns that are no default are keys of `datums`."""
        table.rows[row.uuid] = row
        self._touch(table, row, None).touched = datums

    def modify(self, table: Table, row: Row, datums: dict[int, Any]) -> None:
        """Give the columns whose places are the keys of `datums` new values."""
        change = self.change_of(table, row)
        values = list(row.values)
        for index, datum in datums.items():
            values[index] = datum
        row.values = change.new = tuple(values)
        change.touched = {**change.touched, **datums} if change.touched else datums

    def delete(self, table: Table, row: Row) -> Change:
        """Take `row` out of `table`."""
        change = self.change_of(table, row)
        del table.rows[row.uuid]
        change.new = None
        if change.old is not None:
            self.deleted[table.name, row.uuid] = change
        return change

    def may_insert(self, table: Table, uuid: str) -> bool:
        """Whether `uuid` is free: not in the table, nor deleted from it by this transaction."""
        deleted = self.deleted.get((table.name, uuid))
        return uuid not in table.rows and (deleted is None or deleted.old is None)

    def find(self, table: Table, uuid: str) -> Change | None:
        """The change of the row `uuid`, which this transaction may have deleted."""
        row = table.rows.get(uuid)
        if row is not None:
            return self.change_of(table, row)
        return self.deleted.get((table.name, uuid))

    def precommit(self, new_version: Callable[[], int]) -> None:
        """Check and complete the transaction. Raises OvsdbError when it may not be committed."""
        find_changes(self)
        if not self.changes:
            return
        for step in PRECOMMIT:
            step(self)
        self._finish(new_version)

    def precommit_in_steps(self, new_version: Callable[[], int]) -> Iterator[None]:
        """As `precommit`, with a pause after each step, for a transaction on which each is long."""
        find_changes(self)
        yield
        for step in PRECOMMIT:
            step(self)
            yield
        self._finish(new_version)
        yield

    def _finish(self, new_version: Callable[[], int]) -> None:
        for change in self.changes:
            if change.columns and change.new is not None:
                values = list(change.new)
                values[VERSION] = new_version()
                change.row.values = change.new = tuple(values)
                change.columns = (VERSION, *change.columns)

    def commit(self) -> list[Change]:
        """Complete the transaction in memory, and return the changes that others see."""
        self._forget()
        for change in self.changes:
            row = change.row
            row.n_refs, change.n_refs = change.n_refs, row.n_refs
        visible = [change for change in self.changes if change.is_visible]
        _relink(visible)
        return visible

    def abort(self) -> None:
        """Undo everything."""
        self._forget()
        for change in self.changes:
            _restore(change)

    def _forget(self) -> None:
        for table in self.tables.values():
            table.changes.clear()
        for change in self.changes:
            change.row.change = None

    def revert(self) -> None:
        """Undo a committed transaction; those committed after it are undone already."""
        for change in self.changes:
            row = change.row
            row.n_refs, change.n_refs = change.n_refs, row.n_refs
        visible = [change for change in self.changes if change.is_visible]
        for change in visible:
            change.old, change.new = change.new, change.old
            if change.old is None:
                # A row that comes back has all its references anew, touched or not.
                change.touched = dict(enumerate(change.row.values))
        _relink(visible)
        for change in visible:
            change.old, change.new = change.new, change.old
            _restore(change)


def _restore(change: Change) -> None:
    """Give the row of `change` the state that it had before."""
    row = change.row
    if change.old is None:
        change.table.rows.pop(row.uuid, None)
    else:
        row.values = change.old
        change.table.rows[row.uuid] = row


def footprint(transaction: Transaction) -> set[str] | None:
    """The uuids of the rows that a committed transaction touched, or began or ended to refer to.

    None if what it did may depend on other rows: on whether one refers to what it deleted, has the
    key that it gave up, or is the one to which it could not refer.
    """
    uuids: set[str] = set()
    if transaction.deleted or transaction.has_dropped:
        return None
    for change in transaction.changes:
        table = change.table
        if change.old is not None and any(place in table.key_places for place in change.columns):
            return None
        uuids.add(change.row.uuid)
        for reference in table.weak.touched_by(change):
            uuids.update(*_reference_difference(change, reference))
    return uuids


def find_changes(transaction: Transaction) -> None:
    """Find out which columns differ, and drop the rows of which none does."""
    changes: list[Change] = []
    for change in transaction.changes:
        if change.old is None or change.new is None:
            if change.old is change.new:
                continue
        else:
            change.columns = _differences(change)
            if not change.columns:
                change.row.change = None
                continue
        changes.append(change)
    if len(changes) != len(transaction.changes):
        transaction.changes = changes
        for table in transaction.tables.values():
            table.changes = [change for change in changes if change.table is table]


def _differences(change: Change) -> tuple[int, ...]:
    old, new = change.old, change.new
    assert old is not None and new is not None
    return tuple([i for i in sorted(change.touched) if old[i] != new[i]])


def count_references(transaction: Transaction) -> None:
    """Bring the counts of strong references up to date, and check that all of them lead somewhere.

    Changes that this step itself adds hold no references that changed.
    """
    for change in transaction.changes[:]:
        for reference in change.table.strong.touched_by(change):
            removed, added = _reference_difference(change, reference)
            _count(transaction, change, reference, removed, -1)
            _count(transaction, change, reference, added, 1)
    for change in transaction.changes:
        if change.new is None and change.n_refs:
            raise OvsdbError(
                "referential integrity violation",
                f"cannot delete {change.table.name} row {change.row.uuid} because "
                f"of {change.n_refs} remaining reference(s)",
            )


def _reference_difference(
    change: Change, reference: Reference
) -> tuple[Collection[str], Collection[str]]:
    """The uuids of one column that `change` refers to no more, and those that it newly does."""
    index = reference.place
    old, new = change.old, change.new
    if old is None:
        return (), reference.uuids(new[index]) if new is not None and new[index] else ()
    if new is None:
        return reference.uuids(old[index]) if old[index] else (), ()
    if index not in change.columns:
        return (), ()
    return reference.difference(old[index], new[index])


def _count(
    transaction: Transaction,
    change: Change,
    reference: Reference,
    uuids: Collection[str],
    delta: int,
) -> None:
    for uuid in uuids:
        if uuid == change.row.uuid:
            # A row does not keep itself alive.
            continue
        target = transaction.find(reference.target, uuid)
        if target is None:
            raise OvsdbError(
                "referential integrity violation",
                f"Table {change.table.name} column {reference.column.name} "
                f"row {change.row.uuid} references nonexistent row {uuid} "
                f"in table {reference.target.name}.",
            )
        target.n_refs += delta


def collect_garbage(transaction: Transaction) -> None:
    """Delete the rows of non-root tables that nothing refers to, and what only they refer to."""
    doubtful = [
        change
        for table in transaction.tables.values()
        if not table.schema.is_root
        for change in table.changes
        if _is_garbage(change)
    ]
    while doubtful:
        change = doubtful.pop()
        if change.new is None:
            continue
        values = change.new
        transaction.delete(change.table, change.row)
        for reference in change.table.strong.all:
            for uuid in reference.uuids(values[reference.column.index]):
                if uuid == change.row.uuid:
                    continue
                target = transaction.find(reference.target, uuid)
                if target is None:
                    continue
                target.n_refs -= 1
                if _is_garbage(target):
                    doubtful.append(target)


def _is_garbage(change: Change) -> bool:
    return change.new is not None and not change.n_refs and not change.table.schema.is_root


def check_row_limits(transaction: Transaction) -> None:
    """Check "maxRows"."""
    for table in transaction.tables.values():
        if len(table.rows) > table.schema.max_rows:
            raise constraint_violation(
                f'transaction causes "{table.name}" table to contain {len(table.rows)} rows, '
                f"greater than the schema-defined limit of {table.schema.max_rows} row(s)"
            )


def drop_dead_references(transaction: Transaction) -> None:
    """Take weak references to rows that do not exist out of the columns that hold them."""
    for change in transaction.changes:
        if change.new is not None:
            for reference in change.table.weak.touched_by(change):
                _, added = _reference_difference(change, reference)
                rows = reference.target.rows
                gone = {uuid for uuid in added if uuid not in rows}
                _drop_references(transaction, change, reference, gone)
    if not transaction.deleted:
        return
    for row, (table, dead) in _references_to_deleted(transaction).items():
        change = transaction.change_of(table, row)
        for reference in table.weak.all:
            gone = dead.get(reference.target.name, set())
            _drop_references(transaction, change, reference, gone)


def _references_to_deleted(
    transaction: Transaction,
) -> dict[Row, tuple[Table, dict[str, set[str]]]]:
    """The rows that refer weakly to rows that the transaction deletes.

    Each with its table, and with the uuids to drop by the name of the table that they were in.
    """
    dead: dict[Row, tuple[Table, dict[str, set[str]]]] = {}
    for change in transaction.deleted.values():
        for source, (table, _) in change.table.referrers.get(change.row.uuid, {}).items():
            if source.uuid in table.rows:
                uuids = dead.setdefault(source, (table, {}))[1]
                uuids.setdefault(change.table.name, set()).add(change.row.uuid)
    return dead


def _drop_references(
    transaction: Transaction, change: Change, reference: Reference, gone: set[str]
) -> None:
    assert change.new is not None
    if not gone:
        return
    transaction.has_dropped = True
    column = reference.column
    kind = column.type
    datum = change.new[column.index]
    if kind.is_map:
        place = 1 if reference.by_value else 0
        kept: Any = dict(pair for pair in datum.items() if pair[place] not in gone)
    else:
        kept = tuple(atom for atom in kind.keys(datum) if atom not in gone)
    if len(kept) == kind.size(datum):
        return
    if len(kept) < kind.n_min:
        raise _emptied(change, column, kind.size(datum) - len(kept), gone)
    transaction.modify(change.table, change.row, {column.index: kept})
    if change.old is not None:
        change.columns = _differences(change)


def _emptied(change: Change, column: Column, n_dropped: int, gone: set[str]) -> OvsdbError:
    table, uuid, inserted = change.table.name, change.row.uuid, change.old is None
    if inserted and not all(int(gone_uuid.replace("-", ""), 16) for gone_uuid in gone):
        return constraint_violation(
            f'Weak reference column "{column.name}" in "{table}" row {uuid} (inserted within '
            "this transaction) contained all-zeros UUID (probably as the default value for this "
            "column) but deleting this value caused a constraint volation because this column is "
            "not allowed to be empty."
        )
    when = "(inserted within this transaction) " if inserted else ""
    return constraint_violation(
        f"Deletion of {n_dropped} weak reference(s) to deleted (or never-existing) rows from "
        f'column "{column.name}" in "{table}" row {uuid} {when}caused this column to become '
        "empty, but constraints on this column disallow an empty column."
    )


def check_indexes(transaction: Transaction) -> None:
    """Check that no two rows have the same values in the columns of an index."""
    for table in transaction.tables.values():
        for number in range(len(table.indexes)):
            _check_index(table, number)


def _check_index(table: Table, number: int) -> None:
    index = table.indexes[number]
    key_of = table.index_keys[number]
    claimed: dict[Any, Row] = {}
    for change in table.changes:
        if change.new is None:
            continue
        key = key_of(change.new)
        other = claimed.setdefault(key, change.row)
        if other is change.row:
            holder = index.get(key)
            if holder is None or holder.change is not None:
                continue
            other = holder
        raise _duplicate(table, table.schema.indexes[number], other, change.row)


def _duplicate(table: Table, index: tuple[Column, ...], a: Row, b: Row) -> OvsdbError:
    def order(row: Row) -> list[Any]:
        # Of their own columns alone, since the error then does not vary with random uuids.
        columns = table.column_list[VERSION + 1 :]
        return [column.type.sort_key(row.values[column.index]) for column in columns]

    first, second = sorted((a, b), key=order, reverse=True)
    names = [f'"{column.name}"' for column in index]
    return constraint_violation(
        f'Transaction causes multiple rows in "{table.name}" table to have identical values '
        f"({_columns_text(index, a.values)}) for index on "
        f"{'column' if len(names) == 1 else 'columns'} {_enumeration(names)}.  "
        f"First row, {_history(first, index)}  Second row, {_history(second, index)}"
    )


def _enumeration(items: list[str]) -> str:
    """`items` as English lists them."""
    if len(items) <= 2:
        return " and ".join(items)
    return f"{', '.join(items[:-1])}, and {items[-1]}"


def _columns_text(columns: tuple[Column, ...], values: Values) -> str:
    return _enumeration([column.type.to_string(values[column.index]) for column in columns])


def _history(row: Row, index: tuple[Column, ...]) -> str:
    """What the transaction did to `row`, in the words of the index's error."""
    change = row.change
    who = f"with UUID {row.uuid}, "
    if change is None or not change.is_visible:
        return (
            f"{who}existed in the database before this transaction and was not modified by the "
            "transaction."
        )
    if change.old is None:
        return f"{who}was inserted by this transaction."
    if not any(column.index in change.columns for column in index):
        return (
            f"{who}existed in the database before this transaction, which modified some of the "
            "row's columns but not any columns in this index."
        )
    before = _columns_text(index, change.old)
    return f"{who}had the following index values before the transaction: {before}."


PRECOMMIT: Final[tuple[Callable[[Transaction], None], ...]] = (
    count_references,
    collect_garbage,
    check_row_limits,
    drop_dead_references,
    check_indexes,
)


def _relink(changes: list[Change]) -> None:
    """Bring indexes and weak references' sources from the old to the new values."""
    by_table: dict[Table, list[Change]] = {}
    for change in changes:
        by_table.setdefault(change.table, []).append(change)
    for table, table_changes in by_table.items():
        for number in range(len(table.indexes)):
            _reindex(table.indexes[number], table.index_keys[number], table_changes)
        for change in table_changes:
            for reference in table.weak.touched_by(change):
                _relink_reference(change, reference)


def _reindex(index: dict[Any, Row], key_of: Callable[[Any], Any], changes: list[Change]) -> None:
    for change in changes:
        if change.old is not None:
            key = key_of(change.old)
            if index.get(key) is change.row:
                del index[key]
    for change in changes:
        if change.new is not None:
            index[key_of(change.new)] = change.row


def _relink_reference(change: Change, reference: Reference) -> None:
    referrers = reference.target.referrers
    removed, added = _reference_difference(change, reference)
    for uuid in removed:
        sources = referrers.get(uuid)
        if sources is not None and change.row in sources:
            n_left = sources[change.row][1] - 1
            if n_left:
                sources[change.row] = (change.table, n_left)
            else:
                del sources[change.row]
                if not sources:
                    del referrers[uuid]
    for uuid in added:
        sources = referrers.setdefault(uuid, {})
        n_present = sources[change.row][1] if change.row in sources else 0
        sources[change.row] = (change.table, n_present + 1)
