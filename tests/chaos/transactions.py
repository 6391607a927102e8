"""The database of a run, and its transactions in JSON; `chaos.history` says what a write does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from chaos.history import Answer, KeyState, View, Write

NAME = "chaos"
LOCK = "chaos"
KEYS = tuple(f"key {number}" for number in range(8))

Json = Any
Row = dict[str, Json]
Tables = dict[str, dict[str, Row]]
"""Rows by table and UUID."""

SCHEMA = {
    "name": NAME,
    "version": "1.0.0",
    "tables": {
        "Total": {"columns": {"number": {"type": "integer"}}, "maxRows": 1, "isRoot": True},
        "Key": {
            "columns": {
                "key": {"type": "string"},
                "version": {"type": "integer"},
                "last": {"type": "string"},
                "parts": {
                    "type": {
                        "key": {"type": "uuid", "refTable": "Part"},
                        "min": 0,
                        "max": "unlimited",
                    }
                },
            },
            "indexes": [["key"]],
            "isRoot": True,
        },
        "Part": {
            "columns": {
                "key": {"type": "string"},
                "write": {"type": "string"},
                "part": {"type": "integer"},
                "text": {"type": "string"},
            }
        },
        "Write": {
            "columns": {"id": {"type": "string"}, "holding": {"type": "string"}},
            "isRoot": True,
        },
    },
}

MONITORED = {
    "Total": ["number"],
    "Key": ["key", "version", "last"],
    "Part": ["key", "write", "part"],
    "Write": ["id"],
}
"""The columns that matter of each table."""

EMPTY: list[Json] = [
    {"op": "insert", "table": "Total", "row": {"number": 0}},
    *({"op": "insert", "table": "Key", "row": {"key": key}} for key in KEYS),
]

NUMBER: Json = {"op": "select", "table": "Total", "where": [], "columns": ["number"]}
VERSIONS: Json = {"op": "select", "table": "Key", "where": [], "columns": ["key", "version"]}
EVERYTHING: list[Json] = [
    {"op": "select", "table": table, "where": [], "columns": ["_uuid", *columns]}
    for table, columns in MONITORED.items()
]
STATUS: Json = {
    "op": "select",
    "table": "Database",
    "where": [["name", "==", NAME]],
    "columns": ["connected", "leader"],
}

REFUSALS: list[list[Json]] = [
    [{"op": "abort"}],
    [{"op": "insert", "table": "Key", "row": {"key": KEYS[0]}}],
    [{"op": "insert", "table": "Total", "row": {"number": 1}}],
    [{"op": "update", "table": "Key", "where": [], "row": {"parts": ["uuid", str(UUID(int=1))]}}],
]
"""What makes a transaction fail at its end, after everything else was right."""


def operations(write: Write, n_bytes: int = 0) -> list[Json]:
    """The operations of `write`, with parts of `n_bytes` each."""
    where = [["key", "==", write.key]]
    parts = [f"part{part}" for part in range(write.n_parts)]
    row = {"last": write.id, "parts": ["set", [["named-uuid", part] for part in parts]]}
    text = "x" * n_bytes
    held = [{"op": "assert", "lock": LOCK}] if write.holding else []
    name = write.holding.name if write.holding else ""
    return [
        *held,
        {"op": "mutate", "table": "Total", "where": [], "mutations": [["number", "+=", 1]]},
        {"op": "mutate", "table": "Key", "where": where, "mutations": [["version", "+=", 1]]},
        {"op": "update", "table": "Key", "where": where, "row": row},
        *(
            {
                "op": "insert",
                "table": "Part",
                "uuid-name": name,
                "row": {"key": write.key, "write": write.id, "part": part, "text": text},
            }
            for part, name in enumerate(parts)
        ),
        {"op": "insert", "table": "Write", "row": {"id": write.id, "holding": name}},
        {"op": "comment", "comment": write.id},
        NUMBER,
        VERSIONS | {"where": where},
    ]


def expecting(version: int, key: str) -> Json:
    """The operation that fails unless `key` has that version."""
    where, rows = [["key", "==", key]], [{"version": version}]
    return {"op": "wait", "table": "Key", "where": where, "columns": ["version"],
            "until": "==", "rows": rows, "timeout": 0}  # fmt: skip


_UNKNOWN = ("not known", "no longer be found out")
"""What the details of an error say when nobody knows whether the transaction was done."""


def answered(write: Write, message: Json, end: float) -> tuple[Write, str]:
    """`write` with its answer, and the error that was in it, if any."""
    if message.get("error") is not None:
        return write, str(message["error"])
    results = message["result"]
    errors = [result for result in results if result and "error" in result]
    if errors:
        details = str(errors[0].get("details"))
        if any(words in details for words in _UNKNOWN):
            return write, details
        refused = replace(write, end=end, answer=Answer.REFUSED)
        return refused, f"{errors[0]['error']}: {details}"
    *_, numbers, versions = [result["rows"] for result in results if "rows" in result]
    number, version = numbers[0]["number"], versions[0]["version"]
    done = replace(write, end=end, answer=Answer.DONE, number=number, version=version)
    return done, ""


@dataclass(slots=True)
class Replica:
    """The rows that a monitor knows."""

    tables: Tables

    @classmethod
    def empty(cls) -> Replica:
        return cls({table: {} for table in MONITORED})

    @property
    def number(self) -> int:
        """How many writes there were."""
        return next((row["number"] for row in self.tables["Total"].values()), 0)

    def update(self, updates: Json) -> tuple[tuple[str, ...], set[str]]:
        """Apply `<table-updates2>`; the writes that are new, and the keys that have changed."""
        ids: list[str] = []
        keys: set[str] = set()
        for table, rows in updates.items():
            known = self.tables[table]
            for uuid, change in rows.items():
                ((kind, row),) = change.items()
                before = known.pop(uuid, None)
                assert (before is None) == (kind in ("insert", "initial")), (table, change, before)
                after = None if kind == "delete" else (before or _NEW[table]) | row
                if after is not None:
                    known[uuid] = after
                for state in (before, after):
                    if state is not None and "key" in state:
                        keys.add(state["key"])
                if table == "Write" and after is not None:
                    ids.append(after["id"])
        return tuple(ids), keys

    def states(self, keys: set[str]) -> dict[str, KeyState]:
        """The states of `keys`."""
        parts: dict[str, list[tuple[str, int]]] = {key: [] for key in keys}
        for row in self.tables["Part"].values():
            if row["key"] in parts:
                parts[row["key"]].append((row["write"], row["part"]))
        return {
            row["key"]: KeyState(row["version"], row["last"], frozenset(parts[row["key"]]))
            for row in self.tables["Key"].values()
            if row["key"] in keys
        }


_NEW: dict[str, Row] = {
    "Total": {"number": 0},
    "Key": {"key": "", "version": 0, "last": ""},
    "Part": {"key": "", "write": "", "part": 0},
    "Write": {"id": ""},
}


def whole_view(time: float, results: Sequence[Mapping[str, Json]]) -> View:
    """The state that EVERYTHING has found."""
    replica = Replica.empty()
    for (table, _), result in zip(MONITORED.items(), results, strict=True):
        for row in result["rows"]:
            replica.tables[table][row["_uuid"][1]] = row
    ids = tuple(row["id"] for row in replica.tables["Write"].values())
    return View(time, replica.number, ids, replica.states(set(KEYS)))
