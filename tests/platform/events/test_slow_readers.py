"""A client that does not read: the node keeps little for it, and tells it what it has missed."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import uvicorn
from websockets.asyncio.client import connect

from api_in_process import platform
from ovncp.api import app, events
from ovncp.api import hub as hub_module
from ovncp.api.platform import Platform
from ovncp.cluster.pending import Change
from platform_node import databases

BUFFER_BYTES = 1 << 17
"""Of a socket: less, and TCP over the loopback device, whose segments are large, only trickles."""
EVENT_BYTES = 2000
N_EVENTS = 3000
MOST_WAITING_BYTES = 1 << 20
"""More than a node may keep for a client, and far less than what it is not told."""


class Node:
    """A node that listens on a socket with a small buffer."""

    def __init__(self, made: Platform, server: uvicorn.Server, address: tuple[str, int]) -> None:
        self.platform = made
        self.address = address
        self._server = server
        self._n_made = 0

    async def make(self, n_events: int) -> int:
        """Have so many changes told, each of which is large; the number of the last one."""
        feed = self.platform.node.feed
        for _ in range(n_events):
            self._n_made += 1
            head = ["nb", "Meter", "meters", f"u{self._n_made}", "m", [], 0.0]
            body = orjson.dumps({"n": self._n_made, "text": "x" * EVENT_BYTES})
            row = f"nb/Meter/{self._n_made}"
            feed.offer([Change(row, "v", orjson.dumps(head) + b"\n" + body)])
        async with asyncio.timeout(60):
            while feed.n_pending:
                await asyncio.sleep(0.01)
        return self._n_made

    @property
    def n_waiting_bytes(self) -> int:
        """How much the node keeps for its clients to take."""
        connections = self._server.server_state.connections
        return sum(each.transport.get_write_buffer_size() for each in connections)

    @property
    def position(self) -> str:
        """The id of the last event."""
        return str(self.platform.node.feed.position)

    @property
    def n_clients(self) -> int:
        return len(self.platform.node.sessions.own)


@asynccontextmanager
async def serving(made: Platform) -> AsyncIterator[Node]:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    events.bound(listening)
    config = uvicorn.Config(
        app.make(made),
        ws="websockets-sansio",
        ws_ping_interval=None,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server.serve([listening]))
    try:
        yield Node(made, server, listening.getsockname())
    finally:
        server.should_exit = True
        await running


@pytest.fixture
async def made(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Platform]:
    """One that keeps few events."""
    monkeypatch.setattr(hub_module, "_MOST_RECENT", 100)
    monkeypatch.setattr(hub_module, "_MOST_IN_CHANNEL", 100)
    with databases("ovncp") as server:
        async with platform(server) as made:
            yield made


async def connected(node: Node) -> socket.socket:
    """A connection with small buffers at both ends."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, node.address)
    return client


@asynccontextmanager
async def websocket(node: Node) -> AsyncIterator[AsyncIterator[Any]]:
    """The messages of a client that reads when it is asked for the next one."""
    client = await connected(node)
    async with connect(
        "ws://node/ws",
        sock=client,
        compression=None,
        ping_interval=None,
        max_queue=1,
        close_timeout=1,
    ) as connection:
        await connection.send(json.dumps({"type": "subscribe"}))

        async def messages() -> AsyncIterator[Any]:
            async for text in connection:
                yield json.loads(text)

        yield messages()


@asynccontextmanager
async def sse(node: Node) -> AsyncIterator[AsyncIterator[Any]]:
    """As `websocket`."""
    reader, writer = await asyncio.open_connection(sock=await connected(node), limit=1 << 19)

    async def messages() -> AsyncIterator[Any]:
        while line := await reader.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: node\r\n\r\n")
    try:
        yield messages()
    finally:
        writer.transport.abort()


TRANSPORTS = pytest.mark.parametrize("transport", [websocket, sse])


async def take(messages: AsyncIterator[Any], kind: str) -> Any:
    """The next message of a kind."""
    async with asyncio.timeout(30):
        async for message in messages:
            if message["type"] == kind:
                return message
    raise AssertionError(f"it is closed, and was told of no {kind}")


@TRANSPORTS
async def test_who_reads_again_is_told_what_it_missed(made: Platform, transport: Any) -> None:
    async with serving(made) as node, transport(node) as messages:
        position = (await take(messages, "subscribed"))["id"]
        most = 0
        for _ in range(N_EVENTS // 100):
            await node.make(100)
            most = max(most, node.n_waiting_bytes)
        assert most < MOST_WAITING_BYTES < N_EVENTS * EVENT_BYTES
        told, n_missed, is_missed = 0, 0, False
        last = await node.make(1)
        async with asyncio.timeout(60):
            while told < last:
                message = await anext(messages)
                if message["type"] == "missed":
                    assert message["after"] == position
                    n_missed, is_missed = n_missed + 1, True
                for event in message.get("events", ()):
                    assert event["n"] == told + 1 or (is_missed and event["n"] > told)
                    told, is_missed = event["n"], False
                position = message["id"]
                if is_missed and position == node.position:
                    last = await node.make(1)
        assert n_missed


@TRANSPORTS
async def test_who_never_reads_is_cut_off(
    made: Platform, transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SEND_SECONDS", 0.5)
    async with serving(made) as node, transport(node) as messages:
        await take(messages, "subscribed")
        assert node.n_clients == 1
        async with asyncio.timeout(60):
            while node.n_clients or node.n_waiting_bytes:
                await node.make(100)
