"""Requests that are too large, or come too slowly."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from api_in_process import platform
from ovncp.api import app
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


def answered(connection: socket.socket) -> bytes:
    """One answer, whole."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += connection.recv(65536)
    start, _, body = said.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", start)
    assert found is not None
    while len(body) < int(found[1]):
        body += connection.recv(65536)
    return start


def head(length: int, path: str = "switches") -> bytes:
    lines = (f"POST /api/v1/{path} HTTP/1.1", "host: x", "content-type: application/json")
    return "\r\n".join((*lines, f"content-length: {length}", "", "")).encode()


async def test_a_body_is_not_larger_than_allowed() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LARGEST_BODY_BYTES >> 20):
            yield b"x" * (1 << 20)
        yield b"x"

    headers = {"content-type": "application/json"}
    with databases("ovncp") as server:
        async with (
            platform(server) as node,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app.make(node)), base_url="http://node/api/v1"
            ) as client,
        ):
            for path in ("/switches", "/transactions", "/login", "/nothing"):
                whole = await client.post(path, content=b"x" * (LARGEST_BODY_BYTES + 1))
                assert whole.status_code == 413, path
                some = await client.post(path, content=pieces(), headers=headers)
                is_read = path != "/nothing"
                assert some.status_code == (413 if is_read else 404), path
                for answer in (whole, some) if is_read else (whole,):
                    assert answer.json()["type"] == "urn:ovncp:problem:too-large"
                    assert "request_id" in answer.json()


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
    assert answered(connection).startswith(b"HTTP/1.1 201 ")
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
