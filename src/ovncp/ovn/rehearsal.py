"""What a transaction would change, found out without it: exactly, commit included.

The operations are executed on the rows that are here by the same code that a server of ours runs,
and taken back. What the commit does, collecting garbage, dropping weak references and so on, goes
by how many strong references each row has, which nobody counts here until it is asked for.
"""

from collections.abc import Sequence
from typing import Any

from ovncp.ovn.draft import Draft
from ovncp.ovn.replica import Replica
from ovncp.ovn.writer import Rejected, check, meaning
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.execution import Execution
from ovncp.ovsdb.row import Change, Row, Values
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.transaction import Transaction


class _Anybody:
    """Who may do everything (`ovncp.ovsdb.database.Client`)."""

    read_only = False
    role = ""
    identity = None

    def owns_lock(self, name: str) -> bool:
        return False


def rehearse(replica: Replica, draft: Draft) -> list[Change]:
    """The changes that `draft` would come to. Raises Rejected, Unmet."""
    try:
        return _rehearse(replica, draft.operations)
    except Rejected as error:
        raise meaning(error, draft) from error


def _rehearse(replica: Replica, operations: list[Any]) -> list[Change]:
    execution = Execution(replica.database, _Anybody(), 0, may_wait=False)
    transaction = execution.transaction
    try:
        results, _ = execution.run(operations)
        check(results, len(operations))
        _Counting(replica, transaction).count()
        transaction.precommit(replica.database.new_version)
        return [change for change in transaction.changes if change.is_visible]
    except OvsdbError as error:
        raise Rejected(error.tag, error.details or "", None) from error
    finally:
        transaction.abort()


class _Counting:
    """Counts the strong references to the rows that a transaction may touch as it commits."""

    def __init__(self, replica: Replica, transaction: Transaction) -> None:
        self._replica = replica
        self._transaction = transaction
        self._counted: set[str] = set()

    def count(self) -> None:
        """Set `n_refs` of the rows, and of their changes."""
        todo: list[tuple[Table, Row, Sequence[Values]]] = []
        for change in self._transaction.changes:
            both = [each for each in (change.old, change.new) if each is not None]
            todo.append((change.table, change.row, both))
        while todo:
            table, row, values = todo.pop()
            if row.uuid in self._counted:
                continue
            self._counted.add(row.uuid)
            self._count(table, row)
            for reference in table.strong.all:
                for datum in (each[reference.place] for each in values):
                    for uuid in reference.uuids(datum):
                        target = reference.target.rows.get(uuid)
                        if target is not None:
                            todo.append((reference.target, target, [target.values]))

    def _count(self, table: Table, row: Row) -> None:
        """Count the references of before the transaction; it adds its own at its commit."""
        # The indexes show what was before, but `holders` only the rows that are still there.
        holders = self._replica.rows[table.name].holders(row.uuid)
        gone = [c for c in self._transaction.deleted.values() if c.old is not None]
        n_refs = sum(1 for _, _, holder in holders if holder is not row)
        for change in gone:
            if change.row is not row:
                n_refs += sum(
                    row.uuid in reference.uuids((change.old or ())[reference.place])
                    for reference in change.table.strong.all
                    if reference.target is table and not reference.by_value
                )
        row.n_refs = n_refs
        if row.change is not None:
            row.change.n_refs = n_refs
        deleted = self._transaction.deleted.get((table.name, row.uuid))
        if deleted is not None:
            deleted.n_refs = n_refs
