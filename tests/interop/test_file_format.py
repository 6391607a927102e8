"""What a change of a column looks like in the file, as a difference and as a whole."""

import json
import re
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


def test_the_mark_of_differences_can_be_taken_out_with_its_comma() -> None:
    """As those do who compare files by their text."""
    with Server("ovncp", [("db", SCHEMA)]) as server:
        client = server.client()
        comment = {"op": "comment", "comment": "why"}
        client.transact("db", {"op": "insert", "table": "T", "row": {"s": "x"}}, comment)
        (path,) = server.directory.glob("*.db")
        assert "_is_diff" not in json.loads(
            path.read_text().splitlines()[-1].replace('"_is_diff":true,', "")
        )


def snapshots(kind: str, *options: str) -> list[tuple[Any, list[str]]]:
    """The records that a compaction and a conversion make, as values and as sorted characters.

    So two that are equal may differ in the order of their members alone, beside their dates.
    """
    with Server(kind, [("db", SCHEMA)], options=options) as server:
        client = server.client()
        for text in ("x", "y\n", "é"):
            row = {"s": ["set", [text, "all"]]}
            uuid = f"00000000-0000-4000-8000-0000000000{ord(text[0]):02x}"
            client.transact("db", {"op": "insert", "table": "T", "uuid": uuid, "row": row})
        server.appctl("ovsdb-server/compact", "db")
        texts = [server.files["db"].read_text().splitlines()[-1]]
        more = {"T": {"columns": {**TABLES["T"]["columns"], "i": {"type": "integer"}}}}
        reply = client.request("convert", ["db", SCHEMA | {"tables": more}])
        assert reply["error"] is None
        texts.append(server.files["db"].read_text().splitlines()[-1])
        texts = [re.sub(r'"_date":\d{13}', '"_date":0', text) for text in texts]
        return [(json.loads(text), sorted(text)) for text in texts]


@pytest.mark.parametrize("options", [(), ("--disable-file-column-diff",)])
def test_a_snapshot_is_what_the_c_server_writes(options: tuple[str, ...]) -> None:
    ours = snapshots("ovncp", *options)
    comments = [record["_comment"] for record, _ in ours]
    assert comments == ["compacting database online", "converted by ovsdb-server"]
    assert ours == snapshots("c", *options)
