"""The database `_Server`, which tells clients about the databases themselves (ovsdb-server(5))."""

from collections.abc import Callable
from typing import Any

from ovncp.ovsdb.database import Database, Settings
from ovncp.ovsdb.schema import DatabaseSchema

_OPTIONAL_UUID = {"key": "uuid", "min": 0, "max": 1}
_SCHEMA: dict[str, Any] = {
    "name": "_Server",
    "version": "1.2.0",
    "cksum": "3009684573 744",
    "tables": {
        "Database": {
            "columns": {
                "name": {"type": "string"},
                "model": {
                    "type": {
                        "key": {
                            "type": "string",
                            "enum": ["set", ["standalone", "clustered", "relay"]],
                        }
                    }
                },
                "connected": {"type": "boolean"},
                "leader": {"type": "boolean"},
                "schema": {"type": {"key": "string", "min": 0, "max": 1}},
                "cid": {"type": _OPTIONAL_UUID},
                "sid": {"type": _OPTIONAL_UUID},
                "index": {"type": {"key": "integer", "min": 0, "max": 1}},
            },
        }
    },
}

NAME = "_Server"
_HISTORY_BYTES = 4 << 20  # for clients that are slow to read; each change has a whole schema


def make(new_uuid: Callable[[], str]) -> Database:
    """An empty `_Server` database."""
    return Database(DatabaseSchema.from_json(_SCHEMA), new_uuid, Settings(_HISTORY_BYTES))


def names(database: Database) -> list[str]:
    """The names of the databases that `_Server` shows."""
    table = database.tables["Database"]
    place = table.columns["name"].index
    return [row.values[place] for row in table.rows.values()]


def row_change(database: Database, name: str, columns: dict[str, Any] | None) -> dict[str, Any]:
    """The transaction that gives the row of the database `name` these `columns`; None removes it.

    `columns` are in JSON form.
    """
    table = database.tables["Database"]
    place = table.columns["name"].index
    uuids = [row.uuid for row in table.rows.values() if row.values[place] == name]
    uuid = uuids[0] if uuids else database.new_uuid()
    return {"Database": {uuid: None if columns is None else {"name": name, **columns}}}
