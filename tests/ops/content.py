"""A schema with columns of every kind, transactions that fill it, and what a server shows of it."""

from __future__ import annotations

from typing import Any

from servers import Client

NAME = "Things"

SCHEMA: dict[str, Any] = {
    "name": NAME,
    "version": "1.2.3",
    "tables": {
        "Thing": {
            "isRoot": True,
            "indexes": [["name"]],
            "columns": {
                "name": {"type": "string"},
                "number": {"type": {"key": {"type": "integer", "minInteger": 0}}},
                "real": {"type": "real"},
                "flag": {"type": "boolean"},
                "choice": {"type": {"key": {"type": "string", "enum": ["set", ["a", "b"]]}}},
                "maybe": {"type": {"key": "integer", "min": 0, "max": 1}},
                "many": {"type": {"key": "string", "min": 0, "max": "unlimited"}},
                "map": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
                "parts": {
                    "type": {
                        "key": {"type": "uuid", "refTable": "Part"},
                        "min": 0,
                        "max": "unlimited",
                    }
                },
                "friend": {
                    "type": {
                        "key": {"type": "uuid", "refTable": "Thing", "refType": "weak"},
                        "min": 0,
                        "max": 1,
                    }
                },
                "seen": {"type": "integer", "ephemeral": True},
            },
        },
        "Part": {"columns": {"size": {"type": "integer"}}},
    },
}

# A new-line, quotes, and what the ends of rows look like in a snapshot's text.
_ODD = 'a"b\\c\n\u00e4\U0001f600},"x":{'


def fill(client: Client) -> None:
    """Some transactions, of which the latest change and delete what earlier ones inserted."""
    for number in range(5):
        client.transact(
            NAME,
            {"op": "insert", "table": "Part", "row": {"size": number}, "uuid-name": "part"},
            {
                "op": "insert",
                "table": "Thing",
                "row": {
                    "name": f"thing {number}",
                    "number": 2**62 + number,
                    "real": number / 3,
                    "flag": number % 2 == 0,
                    "choice": "ab"[number % 2],
                    "maybe": ["set", [-number] if number else []],
                    "many": ["set", ["", _ODD, f"{number}"]],
                    "map": ["map", [[_ODD, "1"], ["k", _ODD]]],
                    "parts": ["set", [["named-uuid", "part"]]],
                    "seen": number + 1,
                },
            },
        )
    things = client.transact(NAME, {"op": "select", "table": "Thing", "where": []})[0]["rows"]
    uuids = {thing["name"]: thing["_uuid"] for thing in things}
    client.transact(
        NAME,
        {
            "op": "update",
            "table": "Thing",
            "where": [["name", "==", "thing 0"]],
            "row": {"friend": uuids["thing 1"], "map": ["map", [["k", "v"]]]},
        },
        {"op": "delete", "table": "Thing", "where": [["name", "==", "thing 4"]]},
        {"op": "comment", "comment": "the last one"},
    )


def shown(client: Client) -> dict[str, dict[str, Any]]:
    """Every row as a server shows it, by uuid, without what differs from server to server."""
    rows = {}
    for table in SCHEMA["tables"]:
        [selected] = client.transact(NAME, {"op": "select", "table": table, "where": []})
        for row in selected["rows"]:
            del row["_version"]
            rows[row["_uuid"][1]] = row
    assert len(rows) == 8
    return rows


def stored(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`rows` as they are after a restart: what is ephemeral has its default."""
    return {uuid: row | ({"seen": 0} if "seen" in row else {}) for uuid, row in rows.items()}
