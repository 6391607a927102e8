"""Whose a row is, and what a tenant's members see.

A row is the tenant's that its `external_ids` name under KEY. A row that lives by another's
reference is whose that one is; a row of the Southbound is whose the row of the Northbound is that
it was made of. All other rows are nobody's, and no tenant sees them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ovncp.ovn.replica import Replica
from ovncp.ovn.rows import Rows
from ovncp.ovn.values import refuse
from ovncp.ovsdb.row import Row, Values
from ovncp.ovsdb.table import Table

KEY = "ovncp:tenant"
IDS = "external_ids"

Origin = tuple[str, str]
"""A table of the Northbound, and the uuid of the row of it that a row was made of."""
Find = Callable[[Replica, Replica, Table, Row], Iterator[Origin]]


def has_tenants(table: Table) -> bool:
    """Whether rows of `table` can say whose they are."""
    column = table.columns.get(IDS)
    return column is not None and column.type.is_map


def tenant_of(table: Table, values: Values) -> str | None:
    """Whose a row with `values` says that it is."""
    if not has_tenants(table):
        return None
    tenant: str | None = values[table.columns[IDS].index].get(KEY)
    return tenant


class View:
    """What `tenant` sees of the databases; None sees everything."""

    def __init__(self, nb: Replica, sb: Replica, tenant: str | None) -> None:
        self.tenant = tenant
        self._nb = nb
        self._sb = sb

    def sees(self, rows: Rows, row: Row) -> bool:
        """Whether `row` of `rows` is one that the tenant may know of."""
        return self.tenant is None or self.tenant in self.owners(rows, row)

    def owners(self, rows: Rows, row: Row) -> Iterator[str]:
        """Whose the row is: nobody's, a tenant's, or that of several."""
        if self._is_southbound(rows):
            yield from self._owners_of_origins(rows, row)
        elif not rows.table.schema.is_root:
            for holding, _, holder in rows.holders(row.uuid):
                yield from self.owners(holding, holder)
        else:
            tenant = tenant_of(rows.table, row.values)
            if tenant is not None:
                yield tenant

    def _is_southbound(self, rows: Rows) -> bool:
        return self._sb.rows.get(rows.table.name) is rows

    def _owners_of_origins(self, rows: Rows, row: Row) -> Iterator[str]:
        find = _ORIGINS.get(rows.table.name)
        for table, uuid in find(self._nb, self._sb, rows.table, row) if find else ():
            origin = self._nb.rows[table].get(uuid)
            if origin is not None:
                yield from self.owners(self._nb.rows[table], origin)

    def all(self, rows: Rows) -> Iterable[Row] | None:
        """The tenant's rows, if they are found without going through the table."""
        if self.tenant is None or self._is_southbound(rows):
            return None
        table = rows.table
        if not table.schema.is_root:
            return self._held(rows)
        if not has_tenants(table):
            return ()
        return rows.where(table.columns[IDS], "includes", {KEY: self.tenant})

    def count(self, rows: Rows) -> int:
        """How many rows of a table of the Northbound are the tenant's."""
        if rows.table.schema.is_root:
            return sum(1 for _ in self.all(rows) or ())
        held: set[str] = set()
        for holding, column in rows.holding:
            data = (holder.values[column.index] for holder in self.all(holding) or ())
            held.update(data) if column.type.is_scalar else held.update(*data)
        return len(held)

    def _held(self, rows: Rows) -> Iterator[Row]:
        """The rows that rows of the tenant hold."""
        for holding, column in rows.holding:
            for holder in self.all(holding) or ():
                datum = holder.values[column.index]
                for uuid in (datum,) if column.type.is_scalar else datum:
                    row = rows.get(uuid)
                    if row is not None:
                        yield row

    # Changes

    def stamp(self, table: Table, fields: Mapping[str, Any], belongs: bool) -> Mapping[str, Any]:
        """The fields of a new row, which becomes the tenant's. Raises Invalid.

        A row that `belongs` to another is whose that one is.
        """
        self.check(fields)
        if self.tenant is None or belongs:
            return fields
        if not has_tenants(table):
            raise refuse("", "tenant", f"rows of {table.name} cannot be a tenant's")
        given = fields.get(IDS)
        ids = given if type(given) is dict else {}
        return {**fields, IDS: {**ids, KEY: self.tenant}} if type(given) in _MAPS else fields

    def check(self, fields: Mapping[str, Any]) -> None:
        """See that a member of a tenant does not say whose a row is. Raises Invalid."""
        given = fields.get(IDS)
        if self.tenant is not None and type(given) is dict and KEY in given:
            raise refuse(f"{IDS}.{KEY}", "readOnly", "whose a row is follows from who made it")

    def check_change(self, fields: Mapping[str, Any]) -> None:
        """See that neither do they leave it to nobody. Raises Invalid."""
        self.check(fields)
        if self.tenant is not None and IDS in fields and type(fields[IDS]) is not dict:
            raise refuse(IDS, "type", "an object is wanted, with the members that are to change")


_MAPS = (dict, type(None))


# What rows of the Southbound were made of

_KEYS = (("logical-switch", "Logical_Switch"), ("logical-router", "Logical_Router"))


def _of_datapath(nb: Replica, sb: Replica, table: Table, row: Row) -> Iterator[Origin]:
    ids = row.values[table.columns[IDS].index]
    return ((origin, ids[key]) for key, origin in _KEYS if key in ids)


def _of_its_datapath(nb: Replica, sb: Replica, table: Table, row: Row) -> Iterator[Origin]:
    datapaths = sb.rows["Datapath_Binding"]
    for uuid in datapaths_of(sb, table, row):
        datapath = datapaths.get(uuid)
        if datapath is not None:
            yield from _of_datapath(nb, sb, datapaths.table, datapath)


def datapaths_of(sb: Replica, table: Table, row: Row) -> Iterator[str]:
    """The uuids of the datapaths that a row of the Southbound is about."""
    for name in ("datapath", "logical_datapath"):
        if name in table.columns:
            column = table.columns[name]
            datum = row.values[column.index]
            yield from (datum,) if column.type.is_scalar else datum
    if "logical_dp_group" in table.columns:
        groups = sb.rows["Logical_DP_Group"]
        for uuid in row.values[table.columns["logical_dp_group"].index]:
            group = groups.get(uuid)
            if group is not None:
                yield from group.values[groups.table.columns["datapaths"].index]


def _of_its_port(nb: Replica, sb: Replica, table: Table, row: Row) -> Iterator[Origin]:
    name = row.values[table.columns["logical_port"].index]
    for port_table in ("Logical_Switch_Port", "Logical_Router_Port"):
        rows = nb.rows[port_table]
        for port in rows.where(rows.table.columns["name"], "==", name):
            yield port_table, port.uuid


_ORIGINS: dict[str, Find] = {
    "Datapath_Binding": _of_datapath,
    "IGMP_Group": _of_its_datapath,
    "Logical_Flow": _of_its_datapath,
    "MAC_Binding": _of_its_datapath,
    "Port_Binding": _of_its_datapath,
    "Service_Monitor": _of_its_port,
}
