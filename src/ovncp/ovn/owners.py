"""Whose the rows are that a transaction changed, those included that it deleted.

Of a row that is gone nothing says any more whose it was. Those that held it have let go of it in
the same transaction, which tells; and a row of the Southbound outlives what it was made of by a
moment, for which that is remembered.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from ovncp.ovn.replica import Replica
from ovncp.ovn.rows import Rows
from ovncp.ovn.tenancy import IDS, View, datapaths_of, tenant_of
from ovncp.ovsdb.row import Change

_MOST_REMEMBERED = 10_000
_DATAPATH = "Datapath_Binding"
_MADE_OF = ("logical-switch", "logical-router")
"""Where a datapath's `external_ids` name the row of the Northbound (ovn-sb(5))."""

Tenants = frozenset[str]
NOBODY: Tenants = frozenset()


class Owners:
    """The owners of what changes in `nb` and `sb`."""

    def __init__(self, nb: Replica, sb: Replica) -> None:
        self._sb = sb
        self._view = View(nb, sb, None)
        self._gone: OrderedDict[str, Tenants] = OrderedDict()

    def of(self, replica: Replica, changes: Sequence[Change]) -> list[Tenants]:
        """Whose each of the rows is that a transaction of `replica` changed."""
        holders = _Holders(replica.rows, changes)
        owners = {id(change): self._of(replica, change, holders) for change in _by_need(changes)}
        return [owners[id(change)] for change in changes]

    def _of(self, replica: Replica, change: Change, holders: "_Holders") -> Tenants:
        rows = replica.rows[change.table.name]
        found = frozenset(self._view.owners(rows, change.row))
        if change.new is not None or change.old is None:
            return found
        if replica is self._sb:
            found |= self._of_what_it_was_made_of(change)
        elif change.table.schema.is_root:
            tenant = tenant_of(change.table, change.old)
            found = NOBODY if tenant is None else frozenset((tenant,))
        else:
            for holder in holders.of(change):
                found |= self._of(replica, holder, holders)
        if found:
            self._remember(change.row.uuid, found)
        return found

    def _of_what_it_was_made_of(self, change: Change) -> Tenants:
        if change.table.name == _DATAPATH:
            assert change.old is not None
            ids = change.old[change.table.columns[IDS].index]
            uuids: Iterable[str] = [ids[key] for key in _MADE_OF if key in ids]
        else:
            uuids = datapaths_of(self._sb, change.table, change.row)
        return NOBODY.union(*(self._gone.get(uuid, NOBODY) for uuid in uuids))

    def _remember(self, uuid: str, tenants: Tenants) -> None:
        self._gone[uuid] = tenants
        self._gone.move_to_end(uuid)
        if len(self._gone) > _MOST_REMEMBERED:
            self._gone.popitem(last=False)


def _by_need(changes: Sequence[Change]) -> Iterable[Change]:
    """Datapaths first, since others are asked about them."""
    return sorted(changes, key=lambda change: change.table.name != _DATAPATH)


class _Holders:
    """Which of the changed rows have let go of others; found out when that is asked for."""

    def __init__(self, rows: Mapping[str, Rows], changes: Sequence[Change]) -> None:
        self._rows = rows
        self._changes = changes
        self._released: dict[tuple[str, str], list[Change]] | None = None

    def of(self, change: Change) -> Iterable[Change]:
        """The changes of the rows that have let go of a row."""
        if self._released is None:
            self._released = {}
            for each in self._changes:
                self._note(each, self._released)
        return self._released.get((change.table.name, change.row.uuid), ())

    def _note(self, change: Change, released: dict[tuple[str, str], list[Change]]) -> None:
        for reference in change.table.strong.all:
            if change.old is None or reference.by_value:
                continue
            column = reference.column
            old = change.old[column.index]
            new = () if change.new is None else change.new[column.index]
            if column.type.is_scalar:
                removed = [old] if old != new else []
            else:
                removed, _ = column.type.removed_and_added(old, new)
            for uuid in removed:
                released.setdefault((reference.target.name, uuid), []).append(change)
