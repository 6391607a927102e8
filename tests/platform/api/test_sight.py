"""Who has written sees it on whichever node is asked next."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from api_in_process import platform
from ovncp.api import app
from ovncp.api.platform import Platform
from ovncp.api.problem import Problem
from ovncp.cluster.base import Unavailable
from ovncp.cluster.memory import Memory
from ovncp.ovn.draft import Draft
from ovncp.ovn.resources import BY_NAME
from ovncp.ovn.session import SessionLost
from ovncp.ovn.tenancy import View
from ovncp.ovn.write import CREATE, Write, put
from platform_node import SCHEMAS, databases
from servers import Server, relay_of


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def write(node: Platform, who: str, name: str) -> None:
    draft = Draft(node.nb, View(node.nb, node.sb, None))
    put(Write(CREATE, BY_NAME["switches"], fields={"name": name}), draft)
    await node.writer.write(draft)
    await node.sight.wrote(who)


def sees(node: Platform, name: str) -> bool:
    rows = node.nb.rows["Logical_Switch"]
    return any(True for _ in rows.where(rows.table.columns["name"], "==", name))


def deaf(node: Platform, seconds: float) -> None:
    """Have the node hear what the server says only after a while."""
    session = node.nb.session
    hear, loop = session.received, asyncio.get_running_loop()

    def later(events: Any) -> None:
        heard = list(events)
        loop.call_later(seconds, hear, heard)

    session.received = later  # type: ignore[method-assign]


async def test_it_is_seen_on_a_node_that_lags(server: Server, stack: AsyncExitStack) -> None:
    memory = Memory()
    a = await stack.enter_async_context(platform(server, memory=memory, name="a"))
    b = await stack.enter_async_context(platform(server, memory=memory, name="b"))
    deaf(b, 0.1)
    for number in range(3):
        await write(a, "alice", f"lag-{number}")
        await b.sight.catch_up("bob")
        assert not sees(b, f"lag-{number}")
        await b.sight.catch_up("alice")
        assert sees(b, f"lag-{number}")


async def test_nothing_is_asked_where_it_is_seen_already(
    server: Server, stack: AsyncExitStack
) -> None:
    memory = Memory()
    a = await stack.enter_async_context(platform(server, memory=memory, name="a"))
    b = await stack.enter_async_context(platform(server, memory=memory, name="b"))
    asked = 0

    async def transact(operations: Any) -> Any:
        nonlocal asked
        asked += 1

    await write(a, "alice", "known")
    await b.sight.catch_up("alice")
    b.nb.transact = transact  # type: ignore[method-assign, assignment]
    await b.sight.catch_up("alice")
    await b.sight.catch_up("bob")
    a.nb.transact = transact  # type: ignore[method-assign, assignment]
    await a.sight.catch_up("alice")
    assert asked == 0


async def test_without_what_nodes_share_the_server_is_asked(
    server: Server, stack: AsyncExitStack
) -> None:
    memory = Memory()
    a = await stack.enter_async_context(platform(server, memory=memory, name="a"))
    b = await stack.enter_async_context(platform(server, memory=memory, name="b"))

    async def fail(*_: Any) -> Any:
        raise Unavailable("it is away")

    a.node.store.enter = fail  # type: ignore[method-assign]
    b.node.store.entries = fail  # type: ignore[method-assign]
    deaf(b, 0.1)
    await write(a, "alice", "alone")
    await b.sight.catch_up("alice")
    assert sees(b, "alone")


def late(node: Platform) -> asyncio.Event:
    """Have the first mark that the node notes come late to where all look."""
    enter, go, is_first = node.node.store.enter, asyncio.Event(), True

    async def enter_late(*arguments: Any) -> None:
        nonlocal is_first
        waits, is_first = is_first, False
        if waits:
            await go.wait()
        await enter(*arguments)

    node.node.store.enter = enter_late  # type: ignore[method-assign]
    return go


@pytest.mark.parametrize("other", ["a", "b"])
async def test_an_earlier_mark_that_comes_later_hides_nothing(
    server: Server, stack: AsyncExitStack, other: str
) -> None:
    memory = Memory()
    nodes = {
        name: await stack.enter_async_context(platform(server, memory=memory, name=name))
        for name in ("a", "b", "c")
    }
    go = late(nodes["a"])
    first = asyncio.create_task(write(nodes["a"], "alice", f"first-{other}"))
    async with asyncio.timeout(10):
        while not sees(nodes["c"], f"first-{other}"):
            await asyncio.sleep(0.01)
    deaf(nodes["c"], 0.1)
    second = asyncio.create_task(write(nodes[other], "alice", f"second-{other}"))
    async with asyncio.timeout(10):
        while not sees(nodes[other], f"second-{other}"):
            await asyncio.sleep(0.01)
    if other == "b":
        await second
    go.set()
    await asyncio.gather(first, second)
    await nodes["c"].sight.catch_up("alice")
    assert sees(nodes["c"], f"second-{other}")


def client_of(node: Platform) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app.make(node))
    return httpx.AsyncClient(transport=transport, base_url="http://node/api/v1")


@pytest.mark.parametrize("shown", ["header", "cookie", "nothing"])
async def test_a_client_shows_what_it_was_given(
    server: Server, stack: AsyncExitStack, shown: str
) -> None:
    """The node that it wrote on is cut off from what nodes share."""
    memory = Memory()
    nodes = [
        await stack.enter_async_context(platform(server, memory=memory, name=name))
        for name in ("a", "b")
    ]

    async def fail(*_: Any) -> Any:
        raise Unavailable("it is away")

    nodes[0].node.store.enter = fail  # type: ignore[method-assign]
    writer, reader = [await stack.enter_async_context(client_of(node)) for node in nodes]
    deaf(nodes[1], 0.2)
    answer = await writer.post("/switches", json={"name": f"by-{shown}"})
    assert answer.status_code == 201
    headers = {}
    if shown == "header":
        headers = {"OVN-Position": answer.headers["ovn-position"] + ", 1-what"}
    elif shown == "cookie":
        reader.cookies.update(answer.cookies)
    found = await reader.get(f"/switches/by-{shown}", headers=headers)
    assert found.status_code == (404 if shown == "nothing" else 200)
    assert "ovn-position" not in found.headers


async def test_who_asks_again_elsewhere_is_given_a_mark_too(
    server: Server, stack: AsyncExitStack
) -> None:
    memory = Memory()
    a, b = [
        await stack.enter_async_context(platform(server, memory=memory, name=name))
        for name in ("a", "b")
    ]
    first, other = [await stack.enter_async_context(client_of(node)) for node in (a, b)]
    deaf(b, 0.2)
    asked = {"json": {"name": "asked-twice"}, "headers": {"idempotency-key": "twice"}}
    given = await first.post("/switches", **asked)
    again = await other.post("/switches", **asked)
    assert (given.status_code, given.content) == (again.status_code, again.content)
    assert sees(b, "asked-twice")
    assert again.headers["ovn-position"] == str(b.sight.mark)


async def test_who_cannot_see_it_says_so(server: Server, stack: AsyncExitStack) -> None:
    memory = Memory()
    a = await stack.enter_async_context(platform(server, memory=memory, name="a"))
    b = await stack.enter_async_context(platform(server, memory=memory, name="b", patience=0.2))
    await write(a, "alice", "cut off")
    b.nb.lost()  # as when the connection is lost
    b.nb._ids.clear()
    with pytest.raises((SessionLost, Problem)):
        await b.sight.catch_up("alice")


async def test_it_is_seen_through_a_relay(stack: AsyncExitStack) -> None:
    """Its server tells it later than the source does, by the same id."""
    with databases("ovncp") as source:
        relay = relay_of("ovncp", source, databases=list(SCHEMAS))
        stack.callback(relay.close)
        memory = Memory()
        a = await stack.enter_async_context(platform(source, memory=memory, name="a"))
        b = await stack.enter_async_context(platform(relay, memory=memory, name="b"))
        os.kill(relay.pid, signal.SIGSTOP)
        try:
            await write(a, "alice", "relayed")
            looking = asyncio.create_task(b.sight.catch_up("alice"))
            await asyncio.sleep(0.1)
            assert not sees(b, "relayed") and not looking.done()
        finally:
            os.kill(relay.pid, signal.SIGCONT)
        await looking
        assert sees(b, "relayed")


async def test_a_write_on_another_node_may_refer_to_it(
    server: Server, stack: AsyncExitStack
) -> None:
    memory = Memory()
    nodes = [
        await stack.enter_async_context(platform(server, memory=memory, name=name))
        for name in ("a", "b")
    ]
    clients = [await stack.enter_async_context(client_of(node)) for node in nodes]
    for node in nodes:
        deaf(node, 0.05)
    await clients[0].post("/switches", json={"name": "first"})
    for turn in range(4):
        body = {"name": f"next-{turn}"}
        answer = await clients[1 - turn % 2].post("/switches/first/ports", json=body)
        assert answer.status_code == 201, answer.text
        found = await clients[turn % 2].get("/switches/first/ports")
        assert len(found.json()["items"]) == turn + 1
