"""Requests that are too large, or come too slowly."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovncp.api.arrival import LARGEST_HEAD_BYTES
from ovncp.api.bodies import LARGEST_BODY_BYTES
from platform_node import Node, databases

PATIENCE_SECONDS = 0.5


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    config: Path = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text(f"server: {{request_timeout: {PATIENCE_SECONDS}s}}\n")
    with (
        databases("ovncp") as server,
        Node(server.remote, server.remote, f"--config={config}") as node,
    ):
        yield node


@pytest.fixture
def connection(node: Node) -> Iterator[socket.socket]:
    assert node.client.base_url.port is not None
    with socket.create_connection(("127.0.0.1", node.client.base_url.port), 10) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """All that is said until the connection ends."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while received := connection.recv(65536):
            said += received
    return said


def head(length: int, path: str = "switches") -> bytes:
    lines = (f"POST /api/v1/{path} HTTP/1.1", "host: x", "content-type: application/json")
    return "\r\n".join((*lines, f"content-length: {length}", "", "")).encode()


def test_a_body_is_not_larger_than_allowed(node: Node) -> None:
    body = b'"' + b"x" * LARGEST_BODY_BYTES + b'"'
    headers = {"content-type": "application/json"}
    for path in ("/switches", "/transactions", "/login", "/nothing"):
        for content in (body, iter([body])):
            answer = node.client.post(path, content=content, headers=headers)
            if path in ("/login", "/nothing") and content is not body:
                assert answer.status_code in (404, 413), "nobody reads it"
            else:
                assert answer.status_code == 413, path
                assert answer.json()["type"] == "urn:ovncp:problem:too-large"


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /api/v1/swi", b"GET / HTTP/1.1\r\nx: y\r\n", head(10), head(10) + b'{"name"'],
    ids=["nothing", "a line", "a head", "a body", "half a body"],
)
def test_who_sends_slowly_is_not_waited_for(connection: socket.socket, sent: bytes) -> None:
    connection.sendall(sent)
    assert rest(connection).startswith(b"HTTP/1.1 408 ")


def test_who_sends_a_little_all_the_time_is_not_either(connection: socket.socket) -> None:
    connection.sendall(head(1000))
    try:
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(PATIENCE_SECONDS / 10)
    except OSError:
        return
    raise AssertionError("it was waited for")


def test_a_head_is_not_larger_than_allowed(connection: socket.socket) -> None:
    connection.sendall(b"GET /api/v1/switches HTTP/1.1\r\nx: " + b"y" * 2 * LARGEST_HEAD_BYTES)
    assert rest(connection)[:13] in (b"HTTP/1.1 431 ", b"")


def test_what_takes_long_to_answer_and_who_comes_again_are_waited_for(
    node: Node, connection: socket.socket
) -> None:
    body = b'{"name": "slow"}'
    request = head(len(body)) + body
    connection.sendall(request[:-1])
    time.sleep(PATIENCE_SECONDS / 2)
    connection.sendall(request[-1:])
    assert connection.recv(65536).startswith(b"HTTP/1.1 201 ")
    time.sleep(PATIENCE_SECONDS * 1.5)
    connection.sendall(b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
    said = b""
    while b"hello" not in said:
        said += connection.recv(65536)
    assert said.startswith(b"HTTP/1.1 200 ")
    connection.settimeout(PATIENCE_SECONDS * 1.5)
    with pytest.raises(TimeoutError):
        while connection.recv(65536):
            pass
    assert '"level":"error"' not in node.log
