"""What a change of a column looks like in the file, as a difference and as a whole."""

import json
from typing import Any

import pytest

from servers import Server

TABLES = {"T": {"columns": {"s": {"type": {"key": "string", "min": 0, "max": "unlimited"}}}}}
SCHEMA = {"name": "db", "version": "1.0.0", "tables": TABLES}


def last_record(kind: str, *options: str) -> tuple[bool, Any]:
    """Whether the record of an update says that it holds differences, and what it holds."""
    with Server(kind, [("db", SCHEMA)], options=options) as server:
        client = server.client()
        client.transact("db", {"op": "insert", "table": "T", "row": {"s": ["set", ["x", "y"]]}})
        row = {"s": ["set", ["y", "z"]]}
        client.transact("db", {"op": "update", "table": "T", "where": [], "row": row})
        (path,) = server.directory.glob("*.db")
        record = json.loads(path.read_text().splitlines()[-1])
        return record.get("_is_diff", False), next(iter(record["T"].values()))


@pytest.mark.parametrize(
    ("options", "stored"),
    [((), ["x", "z"]), (("--disable-file-column-diff",), ["y", "z"])],
)
def test_a_change_is_stored_as_the_c_server_stores_it(
    options: tuple[str, ...], stored: list[str]
) -> None:
    ours = last_record("ovncp", *options)
    assert ours == (not options, {"s": ["set", stored]})
    assert ours == last_record("c", *options)
