"""Role-based access control (ovsdb-server(7) section 4.1, "Role-Based Access Control").

The tables RBAC_Role and RBAC_Permission of the database itself say which role may change what.
"""

import logging
from collections.abc import Iterable
from typing import Any

from ovncp.ovsdb.row import Row
from ovncp.ovsdb.table import Table

_LOG = logging.getLogger("ovncp.ovsdb_rbac")


class Rbac:
    """The rules of one database, read from its tables each time that they are asked for.

    A client is known by its `role` and its `identity`, the common name of its certificate.
    Every question is answered with yes for a database with no table RBAC_Role.
    """

    def __init__(self, tables: dict[str, Table]) -> None:
        self._roles = tables.get("RBAC_Role")
        self._permissions = tables.get("RBAC_Permission")

    def may_insert(self, client: Any, table: Table, row: Row) -> bool:
        """Whether `client` may insert `row` into `table`."""
        return self._may_insert_or_delete(client, table, (row,))

    def may_delete(self, client: Any, table: Table, rows: Iterable[Row]) -> bool:
        """Whether `client` may delete `rows` of `table`."""
        return self._may_insert_or_delete(client, table, rows)

    def may_modify(
        self, client: Any, table: Table, rows: Iterable[Row], columns: Iterable[str]
    ) -> bool:
        """Whether `client` may change `columns` of `rows` of `table`."""
        if self._roles is None:
            return True
        rules = self._rules(client, table)
        if rules is None:
            return False
        allowed = rules["update"]
        names = list(columns)
        return all(
            _is_authorized(rules, client.identity, table, row)
            and all(name in allowed for name in names)
            for row in rows
        )

    def _may_insert_or_delete(self, client: Any, table: Table, rows: Iterable[Row]) -> bool:
        if self._roles is None:
            return True
        rules = self._rules(client, table)
        return rules is not None and all(
            _is_authorized(rules, client.identity, table, row) and rules["insert_delete"]
            for row in rows
        )

    def _rules(self, client: Any, table: Table) -> dict[str, Any] | None:
        """The row of RBAC_Permission that holds for the client's role on `table`."""
        if client.identity is None or self._roles is None or self._permissions is None:
            return None
        for role in self._roles.rows.values():
            columns = _columns(self._roles, role)
            if columns["name"] == client.role:
                permission = self._permissions.rows.get(columns["permissions"].get(table.name))
                return None if permission is None else _columns(self._permissions, permission)
        _LOG.info('rbac: role "%s" not found in rbac roles table', client.role)
        return None


def _columns(table: Table, row: Row) -> dict[str, Any]:
    return {name: row.values[column.index] for name, column in table.columns.items()}


def _is_authorized(rules: dict[str, Any], identity: str, table: Table, row: Row) -> bool:
    """Whether a column that "authorization" names holds the client's identity.

    The empty name authorizes everyone; `COLUMN:KEY` names a value of a map.
    """
    return any(
        name == "" or identity in _named_values(name, table, row) for name in rules["authorization"]
    )


def _named_values(name: str, table: Table, row: Row) -> tuple[Any, ...]:
    column_name, _, key = name.partition(":")
    column = table.columns.get(column_name)
    if column is None:
        return ()
    datum = row.values[column.index]
    if key:
        return (datum.get(key),) if column.type.is_map else ()
    return tuple(column.type.keys(datum))
