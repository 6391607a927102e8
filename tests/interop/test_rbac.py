"""What a client with a role may do: the same as on the C server, and refused in the same words.

Over a connection with no certificate, so that the client is nobody; test_tls.py has clients that
the rules know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from interop.programs import wait_for
from servers import Client, Server, relay_of

STRINGS = {"key": "string", "min": 0, "max": "unlimited"}
SCHEMA: dict[str, Any] = {
    "name": "Guarded",
    "version": "1.0.0",
    "tables": {
        "RBAC_Role": {
            "isRoot": True,
            "columns": {
                "name": {"type": "string"},
                "permissions": {
                    "type": {
                        "key": "string",
                        "value": {"type": "uuid", "refTable": "RBAC_Permission"},
                        "min": 0,
                        "max": "unlimited",
                    }
                },
            },
        },
        "RBAC_Permission": {
            "isRoot": True,
            "columns": {
                "table": {"type": "string"},
                "authorization": {"type": STRINGS},
                "insert_delete": {"type": "boolean"},
                "update": {"type": STRINGS},
            },
        },
        "Connection": {
            "isRoot": True,
            "columns": {
                "target": {"type": "string"},
                "role": {"type": "string"},
                "self": {"type": {"key": {"type": "uuid", "refTable": "Connection"}}},
            },
        },
        "Open": {"isRoot": True, "columns": {"name": {"type": "string"}}},
        "Closed": {"isRoot": True, "columns": {"name": {"type": "string"}}},
    },
}

ATTEMPTS: list[dict[str, Any]] = [
    {"op": "select", "table": "Closed", "where": [], "columns": ["name"]},
    {"op": "insert", "table": "Closed", "row": {"name": "new"}},
    {"op": "insert", "table": "Open", "row": {"name": "new"}},
    {"op": "update", "table": "Closed", "where": [], "row": {"name": "new"}},
    {"op": "update", "table": "Open", "where": [], "row": {"name": "new"}},
    {"op": "update", "table": "Closed", "where": [["name", "==", "none"]], "row": {"name": "new"}},
    {"op": "mutate", "table": "RBAC_Permission", "where": [],
     "mutations": [["update", "insert", "name"]]},
    {"op": "delete", "table": "Closed", "where": []},
    {"op": "delete", "table": "Closed", "where": [["name", "==", "none"]]},
    {"op": "delete", "table": "RBAC_Role", "where": []},
    {"op": "wait", "table": "Closed", "where": [], "columns": ["name"], "until": "==",
     "rows": [{"name": "old"}], "timeout": 0},
    {"op": "comment", "comment": "hello"},
    {"op": "assert", "lock": "none"},
]  # fmt: skip


def guarded(kind: str, role: str) -> Server:
    """A server with rules for the role "keeper", and a listener whose clients have `role`."""
    remote = "--remote=db:Guarded,Connection,self"
    server = Server(kind, [("guarded", SCHEMA)], options=[remote])
    permission = {"table": "Open", "authorization": "", "insert_delete": True, "update": "name"}
    server.client().transact(
        "Guarded",
        {"op": "insert", "table": "RBAC_Permission", "row": permission, "uuid-name": "may"},
        {
            "op": "insert",
            "table": "RBAC_Role",
            "row": {"name": "keeper", "permissions": ["map", [["Open", ["named-uuid", "may"]]]]},
        },
        {"op": "insert", "table": "Open", "row": {"name": "old"}},
        {"op": "insert", "table": "Closed", "row": {"name": "old"}},
        {
            "op": "insert",
            "table": "Connection",
            "uuid-name": "it",
            "row": {"target": "ptcp:0:127.0.0.1", "role": role, "self": ["named-uuid", "it"]},
        },
    )
    wait_for(lambda: "listening on port" in server.log, "the listener")
    return server


@pytest.fixture(params=["keeper", "nobody", ""])
def pair(kind: str, request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    with guarded(kind, request.param) as ours, guarded("c", request.param) as theirs:
        yield ours, theirs


@pytest.fixture
def relays(pair: tuple[Server, Server]) -> Iterator[tuple[Server, Server]]:
    """A relay of each, of its kind, whose listener has the same role."""
    remote = "--remote=db:Guarded,Connection,self"
    ours, theirs = (
        relay_of(server.kind, server, databases=["Guarded"], options=[remote]) for server in pair
    )
    with ours, theirs:
        for relay in (ours, theirs):
            wait_for(lambda relay=relay: "listening on port" in relay.log, "the listener")
        yield ours, theirs


def attempt_all(pair: tuple[Server, Server]) -> None:
    clients = [Client(("127.0.0.1", server.port)) for server in pair]
    for attempt in ATTEMPTS:
        ours, theirs = (client.transact("Guarded", attempt) for client in clients)
        if "uuid" not in ours[0]:
            assert (attempt, ours) == (attempt, theirs)
        else:
            assert "uuid" in theirs[0]


def test_each_operation(pair: tuple[Server, Server]) -> None:
    attempt_all(pair)


def test_each_operation_at_a_relay(relays: tuple[Server, Server]) -> None:
    attempt_all(relays)


@pytest.mark.parametrize(
    "params", [["Guarded"], ["Guarded", {}], ["Guarded", {**SCHEMA, "name": "Other"}]]
)
def test_conversions(pair: tuple[Server, Server], params: list[Any]) -> None:
    ours, theirs = (
        Client(("127.0.0.1", server.port)).request("convert", params)["error"] for server in pair
    )
    assert ours == theirs
    assert ours is not None
