"""`ovncp db log|diff|at`: what a log tells of the past is what a client saw at the time."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ops.conftest import Command
from ovncp.log.registry import engine
from servers import Client, Server, run

NAME = "Things"
SCHEMA: dict[str, Any] = {
    "name": NAME,
    "version": "1.0.0",
    "tables": {
        "Thing": {
            "isRoot": True,
            "indexes": [["name"]],
            "columns": {
                "name": {"type": "string"},
                "number": {"type": "integer"},
                "map": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
                "seen": {"type": "integer", "ephemeral": True},
            },
        },
        "Other": {"isRoot": True, "columns": {"text": {"type": "string"}}},
    },
}

Rows = dict[str, dict[str, Any]]


def rows_of(client: Client) -> Rows:
    """What a client sees, as `at --json` has it: by table and uuid, without what is not stored."""
    found: Rows = {}
    for table in SCHEMA["tables"]:
        [selected] = client.transact(NAME, {"op": "select", "table": table, "where": []})
        found[table] = {}
        for row in selected["rows"]:
            uuid = row.pop("_uuid")[1]
            del row["_version"]
            row.pop("seen", None)
            found[table][uuid] = row
    return found


@dataclass
class Past:
    """A log at `url`, and what a client saw after each of its transactions."""

    url: str
    states: list[Rows] = field(default_factory=list)
    dates: list[float] = field(default_factory=list)

    def transact(self, client: Client, *operations: dict[str, Any]) -> None:
        comment = {"op": "comment", "comment": f"transaction {len(self.states)}"}
        client.transact(NAME, *operations, comment)
        self.states.append(rows_of(client))
        self.dates.append(time.time())
        time.sleep(0.003)  # So that each has a date of its own, in milliseconds.


def insert(name: str, number: int) -> dict[str, Any]:
    row = {"name": name, "number": number, "map": ["map", [["a", "1"]]], "seen": 3}
    return {"op": "insert", "table": "Thing", "row": row}


def where(name: str) -> list[Any]:
    return [["name", "==", name]]


@pytest.fixture
def past(url: str) -> Past:
    """Nine transactions; the log was compacted after the fifth."""
    if "://" in url:
        asyncio.run(engine(url).create(url, json.dumps(SCHEMA).encode()))
    else:
        schema = Path(url).with_suffix(".ovsschema")
        schema.write_text(json.dumps(SCHEMA))
        run("ovsdb-tool", "create", url, schema)
    past = Past(url)
    with Server("ovncp", options=[url]) as server:
        client = server.client()
        for number in range(4):
            past.transact(client, insert(f"thing {number}", number))
        past.transact(client, {"op": "delete", "table": "Thing", "where": where("thing 1")})
        server.appctl("ovsdb-server/compact")
        update = {"op": "update", "table": "Thing", "row": {"number": 77, "seen": 9}}
        past.transact(client, {**update, "where": where("thing 2")})
        add = ["map", "insert", ["map", [["b", "2"]]]]
        mutate = {"op": "mutate", "table": "Thing", "mutations": [add]}
        past.transact(client, {**mutate, "where": where("thing 2")})
        past.transact(client, {"op": "delete", "table": "Thing", "where": where("thing 0")})
        past.transact(client, {"op": "insert", "table": "Other", "row": {"text": "the last"}})
        server.stop()
    return past


def test_each_state_is_there_again(past: Past, db: Command) -> None:
    listed = db.well("log", past.url, "--json").json
    assert [each["comment"] for each in listed] == [f"transaction {i}" for i in range(9)]
    indexes = [each["index"] for each in listed]
    assert indexes == list(range(indexes[0], indexes[0] + 9))
    for place, word in ((0, "index"), (4, "transaction_id"), (5, "date"), (8, "index")):
        each = listed[place]
        found = db.well("at", past.url, each[word], "--json").json
        assert (found["index"], found["rows"]) == (each["index"], past.states[place])


def test_a_difference_leads_from_one_state_to_the_other(past: Past, db: Command) -> None:
    listed = db.well("log", past.url, "--json").json
    for first, last in ((0, 8), (3, 5)):
        moments = ("--from", listed[first]["index"], "--to", listed[last]["transaction_id"])
        done = db("diff", past.url, *moments, "--json")
        assert done.status == 1
        state = past.states[first]
        for row in done.json["rows"]:
            rows = state[row["table"]]
            before = rows.pop(row["uuid"], {})
            after = {name: sides.get("new") for name, sides in row["columns"].items()}
            if row["change"] == "changed":
                old = {name: sides["old"] for name, sides in row["columns"].items()}
                assert {name: before[name] for name in old} == old
            if row["change"] != "deleted":
                rows[row["uuid"]] = before | after
        assert without_defaults(state) == without_defaults(past.states[last])
    same = db("diff", past.url, "--from", listed[4]["index"], "--to", listed[4]["index"])
    assert (same.status, same.output.count("\n")) == (0, 2)


def without_defaults(rows: Rows) -> Rows:
    defaults = (0, "", ["map", []])
    return {
        table: {
            uuid: {name: value for name, value in row.items() if value not in defaults}
            for uuid, row in of_table.items()
        }
        for table, of_table in rows.items()
    }


def test_a_time_ago_is_the_state_of_then(past: Past, db: Command) -> None:
    listed = db.well("log", past.url, "--json").json
    then = past.dates[6] + 0.001
    date = datetime.fromtimestamp(then, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    assert db.well("at", past.url, date, "--json").json["index"] == listed[6]["index"]
    assert db.well("at", past.url, "-0s", "--json").json["index"] == listed[8]["index"]
    assert "not within what is kept" in db("at", past.url, "-1h").error


def test_a_past_state_is_a_file_that_c_opens(past: Past, db: Command) -> None:
    index = db.well("log", past.url, "--json").json[2]["index"]
    db.well("at", past.url, index, "-o", "then.db")
    with Server("c", [("then", db.directory / "then.db")]) as server:
        assert rows_of(server.client()) == past.states[2]
    again = db("at", past.url, index, "--output", "then.db")
    assert again.status == 2 and "File exists" in again.error


def test_what_is_not_kept_is_refused_with_what_is(past: Past, db: Command) -> None:
    listed = db.well("log", past.url, "--json").json
    first, last = listed[0]["index"] - 1, listed[8]["index"]
    for moment in (first - 1, last + 1, "2020-01-01", "deadbeef"):
        done = db("at", past.url, moment)
        assert done.status == 2
        assert f"from entry {first}" in done.error and f"to entry {last} of " in done.error
    assert "not within what is kept" in db("diff", past.url, "--from", "-2w").error
    backwards = db("diff", past.url, "--from", last, "--to", last - 2)
    assert "the end is before the start" in backwards.error


def test_transactions_are_found_by_table_row_and_time(past: Past, db: Command) -> None:
    listed = db.well("log", past.url, "--json").json

    def found(*options: object) -> list[int]:
        json = db.well("log", past.url, "--json", *options).json
        return [int(each["comment"].split()[1]) for each in json]

    assert found("--table", "Other") == [8]
    assert found("--row", "thing 2") == [2, 5, 6]
    uuid = next(uuid for uuid, row in past.states[8]["Thing"].items() if row["name"] == "thing 2")
    assert found("--row", uuid[:8]) == [2, 5, 6]
    assert found("-n", 2) == [7, 8]
    assert found("--since", listed[5]["date"], "--until", listed[6]["index"]) == [5, 6]
    assert found("--since", "-1h") == list(range(9))
    done = db("log", past.url, "--table", "Nothing")
    assert done.status == 2 and "there is no table 'Nothing'" in done.error


def test_a_patch_has_the_old_and_the_new_values(past: Past, db: Command) -> None:
    text = db.well("log", past.url, "--row", "thing 2", "-p", "-n1").output
    assert "transaction 6\n    Thing ~1\n" in text
    assert text.endswith('"thing 2" changed\n      - map: {a="1"}\n      + map: {a="1", b="2"}\n')


def test_the_dump_is_what_ovsdb_client_shows(db: Command) -> None:
    with Server("ovncp", [("nb", "/usr/share/ovn/ovn-nb.ovsschema")]) as server:
        for words in ("ls-add sw0", "lsp-add sw0 p1 -- lsp-add sw0 p2", "lr-add r0"):
            run("ovn-nbctl", f"--db={server.remote}", *words.split())
        path = server.files["nb"]
        # The server has the file open, and goes on with it.
        ours = tables_of(db.well("at", path, "-0s").output)
        theirs = tables_of(run("ovsdb-client", "dump", server.remote, "OVN_Northbound"))
        assert ours.keys() == theirs.keys()
        with_ephemeral = {"Connection table"}
        for table in ours.keys() - with_ephemeral:
            assert ours[table] == theirs[table]
        comments = [each["comment"] for each in db.well("log", path, "--json").json]
        assert comments[-1] == f"ovn-nbctl: ovn-nbctl --db={server.remote} lr-add r0"


def tables_of(text: str) -> dict[str, list[str]]:
    """The lines of each table, its rows in no order."""
    parts = [part.splitlines() for part in text.strip().split("\n\n")]
    return {part[0]: [*part[1:3], *sorted(part[3:])] for part in parts}


def test_a_member_of_a_c_cluster_has_a_past_too(db: Command) -> None:
    path, schema = db.directory / "cluster.db", db.directory / "s.ovsschema"
    schema.write_text(json.dumps(SCHEMA))
    run("ovsdb-tool", "create-cluster", path, schema, "tcp:127.0.0.1:1")
    with Server("c", options=[str(path)]) as server:
        run("ovsdb-client", "--timeout=60", "wait", server.remote, NAME, "connected")
        past = Past(str(path))
        for number in range(3):
            past.transact(server.client(), insert(f"thing {number}", number))
    listed = db.well("log", path, "--json").json
    assert [each["comment"] for each in listed] == [f"transaction {i}" for i in range(3)]
    found = db.well("at", path, listed[1]["index"], "--json").json
    for row in found["rows"]["Thing"].values():
        assert row.pop("seen") == 3  # A cluster stores what is ephemeral elsewhere.
    assert found["rows"] == past.states[1]
