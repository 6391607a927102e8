"""The databases of the soak, and the values of their columns."""

from __future__ import annotations

from typing import Any

DATABASES = ("soak1", "soak2")
NOBODY = "00000000-0000-0000-0000-000000000000"

SET = {"key": "string", "min": 0, "max": "unlimited"}
MAP = {"key": "string", "value": "string", "min": 0, "max": "unlimited"}
OPTIONAL = {"key": "integer", "min": 0, "max": 1}
PEERS = {
    "key": {"type": "uuid", "refTable": "Item", "refType": "weak"},
    "min": 0,
    "max": "unlimited",
}
COLUMNS: dict[str, Any] = {
    "k": "integer",
    "kind": "string",
    "text": "string",
    "tags": SET,
    "ids": MAP,
    "tag": OPTIONAL,
    "peers": PEERS,
}
DEFAULTS: dict[str, Any] = {"k": 0, "kind": "", "text": ""}

# A row has a scalar, or a frozenset of elements or pairs, for each column.
Row = dict[str, Any]
Items = dict[str, Row]


def schema(name: str) -> dict[str, Any]:
    """The schema of a database of the soak."""
    columns = {column: {"type": kind} for column, kind in COLUMNS.items()}
    return {
        "name": name,
        "version": "1.0.0",
        "tables": {
            "Item": {"columns": columns, "isRoot": True},
            "State": {"columns": {"number": {"type": "integer"}}, "isRoot": True},
        },
    }


def parse(json_: Any) -> frozenset[Any]:
    """The elements of a `<value>`."""
    if isinstance(json_, list) and json_[0] in ("set", "map"):
        return frozenset(tuple(e) if json_[0] == "map" else atom(e) for e in json_[1])
    return frozenset([atom(json_)])


def atom(json_: Any) -> Any:
    return json_[1] if isinstance(json_, list) else json_


def shown(column: str, value: Any) -> Any:
    """The `<value>` of a column's value."""
    if column in DEFAULTS:
        return value
    if column == "ids":
        return ["map", sorted(map(list, value))]
    return ["set", [["uuid", e] if column == "peers" else e for e in sorted(value)]]


def value_of(column: str, json_: Any) -> Any:
    return json_ if column in DEFAULTS else parse(json_)


def changed(column: str, old: Any, json_: Any) -> Any:
    """What `<row-update2>` makes of a column that was `old`."""
    new = value_of(column, json_)
    if column in DEFAULTS or column == "tag":
        return new
    if column != "ids":
        return old ^ new
    keys = {key for key, _ in new}
    return frozenset(pair for pair in old if pair[0] not in keys) | (new - old)


def default(column: str) -> Any:
    return DEFAULTS.get(column, frozenset())
