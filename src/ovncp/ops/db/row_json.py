"""Rows as JSON that is the same for the same stored content (RFC 7047, <row> and <value>)."""

from typing import Any

from ovncp.ovsdb.row import Values
from ovncp.ovsdb.table import Table


def row_json(table: Table, values: Values) -> dict[str, Any]:
    """All columns of a row that are stored, those with their defaults too."""
    return {name: datum_json(values[place], to_json) for name, place, _, to_json in table.stored}


def datum_json(datum: Any, to_json: Any) -> Any:
    """A datum as JSON; `to_json` is its type's."""
    return datum if to_json is None else to_json(datum)
