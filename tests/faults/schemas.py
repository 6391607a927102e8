"""The small schema of these tests, and the requests on it."""

from __future__ import annotations

import json
from typing import Any

from servers import Client, run

NAMES: dict[str, Any] = {
    "name": "Names",
    "version": "1.0.0",
    "tables": {
        "Name": {
            "columns": {"name": {"type": "string"}, "text": {"type": "string"}},
            "indexes": [["name"]],
            "isRoot": True,
        }
    },
}


def insert(name: str, text: str = "") -> dict[str, Any]:
    return {"op": "insert", "table": "Name", "row": {"name": name, "text": text}}


def select() -> dict[str, Any]:
    return {"op": "select", "table": "Name", "where": [], "columns": ["name"]}


def names(client: Client) -> set[str]:
    """All names in the database, as a client sees them."""
    (result,) = client.transact("Names", select())
    return {row["name"] for row in result["rows"]}


def names_in(path: object) -> set[str]:
    """All names in a database file, as the C server's `ovsdb-tool` reads it."""
    (result,) = json.loads(run("ovsdb-tool", "query", str(path), json.dumps(["Names", select()])))
    return {row["name"] for row in result["rows"]}
