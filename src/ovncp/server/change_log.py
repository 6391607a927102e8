"""Committed changes of chosen tables in the log (`ovsdb-server/tlog-set`, ovsdb-server(1))."""

import logging
from collections.abc import Iterable

from ovncp.ovsdb.row import Change, Values
from ovncp.ovsdb.schema import VERSION, format_uuid
from ovncp.ovsdb.table import Table
from ovncp.server.rate_limit import RateLimit

_LOG = logging.getLogger("ovncp.transaction")


class ChangeLog:
    """Logs what happens to the rows of `tables`, a set of names, one line a row."""

    def __init__(self, limit: RateLimit) -> None:
        self.tables: set[str] = set()
        self._limit = limit

    def show(self, changes: Iterable[Change]) -> None:
        """Log those of `changes` that are of a chosen table and can be seen."""
        for change in changes:
            if change.table.name in self.tables and change.is_visible:
                self._limit.log(_LOG, logging.INFO, "%s", _text(change))


def _text(change: Change) -> str:
    if change.old is None:
        verb, values = "inserted", change.new
    else:
        verb = "deleted" if change.new is None else "updated"
        values = change.old if change.new is None else change.new
    assert values is not None
    return f"table:{change.table.name},op:{verb},{_row_text(change.table, values)}"


def _row_text(table: Table, values: Values) -> str:
    return ",".join(
        f"{column.name}:{format_uuid(values[VERSION])}"
        if column.index == VERSION
        else f"{column.name}:{column.type.to_string(values[column.index])}"
        for column in table.columns.values()
    )
