"""The connection that is kept to a server, where the server does not stay."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ovncp.follow.link import Endpoint, Job, Link, Monotonic
from ovncp.wire.client import Notification

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Kept(Link):
    """A link that notes what becomes of it."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        super().__init__(Monotonic(), endpoints, logging.getLogger("test"))
        self.noted: list[str] = []
        self.said: list[Any] = []

    def _began(self) -> None:
        self.noted.append("began")

    def _shown(self) -> None:
        self.noted.append("shown")

    def _told(self, notification: Notification) -> Job | None:
        self.said.append(notification.params)
        return self._take_long() if notification.method == "long" else None

    async def _take_long(self) -> None:
        await asyncio.sleep(0.05)
        self.said.append("done")

    def _ended(self, unanswered: Sequence[Any]) -> None:
        self.noted.append(f"ended, {len(unanswered)} unanswered")


@asynccontextmanager
async def kept(serve: Serve, *, until_lost: bool = False) -> AsyncIterator[Kept]:
    """A link to a server at two endpoints; connecting may take until the connection is lost."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    async def connect(factory: Callable[[], asyncio.Protocol]) -> asyncio.BaseTransport:
        transport, _ = await asyncio.get_running_loop().create_connection(factory, *address)
        while until_lost and not transport.is_closing():
            await asyncio.sleep(0.01)
        return transport

    link = Kept([Endpoint(name, connect) for name in ("a", "b")])
    try:
        yield link
    finally:
        await link.close()
        server.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_connection_that_is_lost_before_it_is_used_is_made_again() -> None:
    n_connections = 0

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_connections
        n_connections += 1
        writer.close()

    async with kept(serve, until_lost=True) as link:
        await until(lambda: n_connections >= 2)
        assert link.noted == []


async def test_what_is_said_is_taken_in_order_whatever_it_takes() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for method, params in (("long", [1]), ("short", [2])):
            writer.write(json.dumps({"method": method, "params": params, "id": None}).encode())
        writer.close()

    async with kept(serve) as link:
        await until(lambda: len(link.noted) >= 2)
        assert link.noted[:2] == ["began", "ended, 2 unanswered"]
        assert link.said[:3] == [[1], "done", [2]]
