"""Clients of `/ws` and `events` at two real nodes over real Redis, and what they may ask for."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from platform_node import Node, databases
from redis_servers import RedisServer
from servers import Server

PATIENCE_SECONDS = 60.0
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with databases("ovncp") as server:
        yield server


@pytest.fixture(scope="module")
def nodes(server: Server) -> Iterator[list[Node]]:
    """Two nodes that are one cluster."""
    with RedisServer() as redis:
        about = {"REDIS_URL": f"redis://{redis.address}", "CLUSTER_HEARTBEAT_INTERVAL": "0.2s"}
        nodes = [
            Node(server.remote, server.remote, env=os.environ | about | {"NODE_ID": name})
            for name in ("a", "b")
        ]
        yield nodes
        for node in nodes:
            node.close()


@pytest.fixture
def name() -> str:
    """A name that no row has yet."""
    return f"n{next(_numbers)}"


@contextmanager
def websocket(node: Node, query: str = "") -> Iterator[ClientConnection]:
    """A client that has been told nothing but `hello`."""
    url = f"{node.url.replace('http', 'ws', 1)}/ws{query}"
    with connect(url, compression=None) as connection:
        assert take(connection, "hello")["node"]
        yield connection


def take(connection: ClientConnection, kind: str) -> Any:
    """The next message, which must be of that kind, but for those that come with time."""
    while (message := json.loads(connection.recv(PATIENCE_SECONDS)))["type"] == "position":
        continue
    assert message["type"] == kind, message
    return message


@contextmanager
def subscribed(node: Node, **wanted: Any) -> Iterator[ClientConnection]:
    """A client that is told of what it wants from now on."""
    with websocket(node) as connection:
        connection.send(json.dumps({"type": "subscribe", **wanted}))
        take(connection, "subscribed")
        yield connection


def told(connection: ClientConnection, n_events: int) -> list[tuple[str, str, str]]:
    """The next events: what happened to which row."""
    events: list[Any] = []
    while len(events) < n_events:
        events += take(connection, "events")["events"]
    return [(event["type"], event["table"], event["name"]) for event in events]


def make(node: Node, name: str, *ports: str, **more: Any) -> Any:
    return node.post("/switches", {"name": name, "ports": [{"name": p} for p in ports], **more})


SWITCH, PORT = "Logical_Switch", "Logical_Switch_Port"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"resources": ["switches"]}, [("insert", SWITCH)]),
        ({"tables": ["nb/Logical_Switch_Port"]}, [("insert", PORT)]),
        ({"resources": ["switches"], "tenants": ["red"]}, [("insert", SWITCH)]),
        ({"patterns": ["switches:{}"]}, [("insert", SWITCH)]),
        ({"patterns": ["switch-*:{}*"]}, [("insert", PORT)]),
        ({"patterns": ["switches:{}", "nb/Logical_Switch_Port:x"]}, [("insert", SWITCH)]),
    ],
    ids=str,
)
def test_what_is_wanted_is_told_wherever_it_was_written(
    nodes: list[Node], name: str, wanted: Any, expected: Any
) -> None:
    wanted = json.loads(json.dumps(wanted).replace("{}", name))
    with subscribed(nodes[1], **wanted) as connection:
        make(nodes[0], f"other-{name}", external_ids={"ovncp:tenant": "blue"})
        nodes[0].delete(f"/switches/other-{name}")
        make(nodes[0], name, f"{name}-p", external_ids={"ovncp:tenant": "red"})
        is_of_all = "tenants" not in wanted and "patterns" not in wanted
        before = 2 if is_of_all and "resources" in wanted else 0
        events = told(connection, before + len(expected))[before:]
        assert [(type, table) for type, table, _ in events] == expected
        assert all(told_name.startswith(name) for _, _, told_name in events)


def test_a_client_goes_on_at_the_other_node(nodes: list[Node], name: str) -> None:
    with subscribed(nodes[0], patterns=[f"switches:{name}"]) as connection:
        make(nodes[0], name)
        first = take(connection, "events")
    for n in range(3):
        nodes[0].patch(f"/switches/{name}", {"external_ids": {"n": f"{n}"}})
    query = f"?patterns=switches:{name}&after={first['id']}&node=b"
    with websocket(nodes[1], query) as connection:
        assert take(connection, "subscribed")["id"] == first["id"]
        changes = []
        while len(changes) < 3:
            changes += [e["changes"] for e in take(connection, "events")["events"]]
    assert [change["external_ids"] for change in changes] == [{"n": f"{n}"} for n in range(3)]


def test_the_load_balancers_part_of_the_query_asks_for_nothing(
    nodes: list[Node], name: str
) -> None:
    with websocket(nodes[0], "?node=a") as connection:
        make(nodes[0], name)
        connection.send(json.dumps({"type": "subscribe", "patterns": [f"switches:{name}-2"]}))
        take(connection, "subscribed")
        make(nodes[0], f"{name}-2")
        assert told(connection, 1) == [("insert", SWITCH, f"{name}-2")]


def sse(node: Node, n_messages: int, query: str, **headers: str) -> list[tuple[str, Any]]:
    """The first messages, each with its id as Server-Sent Events have it.

    But for `hello`, and those that come with time.
    """
    messages: list[tuple[str, Any]] = []
    id = ""
    url = f"{node.url}/api/v1/events?{query}"
    with httpx.stream("GET", url, headers=headers, timeout=PATIENCE_SECONDS) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "id":
                id = value
            elif field == "data":
                message = json.loads(value)
                if message["type"] not in ("hello", "position"):
                    messages.append((id, message))
                if len(messages) == n_messages:
                    return messages
    raise AssertionError(messages)


def test_server_sent_events_go_on_at_the_other_node(nodes: list[Node], name: str) -> None:
    ((start, _),) = sse(nodes[0], 1, "resources=switches")
    make(nodes[0], name)
    query = f"patterns=switches:{name}"
    (_, (id, message)) = sse(nodes[1], 2, query, **{"Last-Event-ID": start})
    assert message["id"] == id and message["events"][0]["name"] == name
    nodes[0].delete(f"/switches/{name}")
    (_, (_, message)) = sse(nodes[0], 2, f"{query}&after={id}")
    assert [event["type"] for event in message["events"]] == ["delete"]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"resources": ["cows"]}, "resources"),
        ({"tables": ["nb/Cow"]}, "tables"),
        ({"tables": ["sb/Logical_Flow"]}, "tables"),
        ({"after": "yesterday"}, "after"),
        ({"colour": ["red"]}, "colour"),
    ],
    ids=str,
)
def test_what_cannot_be_told_is_refused(nodes: list[Node], wanted: Any, field: str) -> None:
    with websocket(nodes[0]) as connection:
        connection.send(json.dumps({"type": "subscribe", **wanted}))
        (mistake,) = take(connection, "error")["problem"]["errors"]
        assert mistake["field"].startswith(field)
    if field != "colour":
        nodes[0].get("/events", 422, **wanted)
    query = "&".join(f"{k}={v if isinstance(v, str) else v[0]}" for k, v in wanted.items())
    with pytest.raises(InvalidStatus) as refused, websocket(nodes[0], f"?{query}"):
        pass
    assert refused.value.response.status_code == 422
