"""Columns of a cluster: all are stored, and none tells how one server fares; as on C's clusters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from c_cluster import CCluster
from clustered.conftest import ENGINES
from servers import OVNCP, Client, Server, run

STRING_MAP = {"key": "string", "value": "string", "min": 0, "max": "unlimited"}
SCHEMA: dict[str, Any] = {
    "name": "Local",
    "version": "1.0.0",
    "tables": {
        "Connection": {
            "isRoot": True,
            "columns": {
                "target": {"type": "string"},
                "is_connected": {"type": "boolean", "ephemeral": True},
                "status": {"type": STRING_MAP, "ephemeral": True},
                "self": {"type": {"key": {"type": "uuid", "refTable": "Connection"}}},
            },
        },
    },
}
OPTIONS = ["--remote=db:Local,Connection,self"]
LONGER_THAN_BETWEEN_STATUSES_S = 3.0


@pytest.fixture(params=ENGINES)
def spread(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, [("local", SCHEMA)], options=OPTIONS) as server:
        yield server


def connect(client: Client, target: str) -> None:
    row = {"target": target, "self": ["named-uuid", "it"]}
    [result] = client.transact(
        "Local", {"op": "insert", "table": "Connection", "row": row, "uuid-name": "it"}
    )
    assert "uuid" in result


def shown(client: Client) -> tuple[bool, dict[str, str]]:
    select = {"op": "select", "table": "Connection", "where": []}
    [result] = client.transact("Local", select)
    [row] = result["rows"]
    return row["is_connected"], dict(row["status"][1])


def test_what_the_schema_calls_ephemeral_is_shared_and_kept(spread: Server) -> None:
    writer, reader = spread.client(), spread.client()
    connect(writer, "none")
    row = {"is_connected": True, "status": ["map", [["a", "b"]]]}
    update = {"op": "update", "table": "Connection", "where": [], "row": row}
    assert writer.transact("Local", update) == [{"count": 1}]
    assert shown(reader) == (True, {"a": "b"})
    schema = reader.request("get_schema", ["Local"])["result"]
    columns = schema["tables"]["Connection"]["columns"]
    assert [name for name, column in columns.items() if "ephemeral" in column] == []
    run(OVNCP, "db", "verify", spread.remote, spread.files["local"])
    spread.kill9()
    spread.restart()
    assert shown(spread.client()) == (True, {"a": "b"})


def test_no_server_writes_how_its_remotes_fare(spread: Server) -> None:
    connect(spread.client(), "ptcp:0:127.0.0.1")
    for member in spread.members:
        Client(("127.0.0.1", member.own_port)).close()
    time.sleep(LONGER_THAN_BETWEEN_STATUSES_S)
    assert shown(spread.client()) == (False, {})
    with CCluster(SCHEMA, n_members=1, options=OPTIONS) as theirs:
        client = theirs.client(0)
        connect(client, "ptcp:0:127.0.0.1")
        time.sleep(LONGER_THAN_BETWEEN_STATUSES_S)
        assert shown(client) == (False, {})
