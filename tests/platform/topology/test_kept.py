"""Answers of the topology are kept for all nodes, and none is older than what its node knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api_in_process import platform
from ovncp.api import app, metrics, topology
from ovncp.api.platform import Platform
from ovncp.cluster.memory import Memory
from platform_figures import Figures
from platform_node import databases
from servers import Server


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with databases(getattr(request, "param", "ovncp")) as server:
        yield server


async def ask(node: Platform, method: str, path: str, **given: Any) -> Any:
    transport = httpx.ASGITransport(app.make(node))
    async with httpx.AsyncClient(transport=transport, base_url="http://node/api/v1") as client:
        answer = await client.request(method, path, **given)
    assert answer.is_success, answer.text
    return answer.json()


async def found(node: Platform) -> dict[str, float]:
    """How often the cache of a node was asked for what it has, and where that was."""
    figures = Figures(await metrics.text(node))
    hits = {
        where: figures.sum("ovncp_cache_hits_total", where=where) for where in ("node", "store")
    }
    return hits | {"nowhere": figures.sum("ovncp_cache_misses_total")}


async def usable(*nodes: Platform) -> None:
    async with asyncio.timeout(10):
        while not all(node.node.cache.is_usable for node in nodes):
            await asyncio.sleep(0.01)


async def test_another_node_need_not_draw_it_again(server: Server) -> None:
    memory = Memory()
    async with platform(server, memory=memory) as a, platform(server, memory=memory, name="b") as b:
        await ask(a, "POST", "/switches", json={"name": "web"})
        await usable(a, b)
        told = [await ask(node, "GET", "/topology") for node in (a, a, b)]
        assert told[0] == told[1] == told[2]
        assert [each["name"] for each in told[0]["nodes"]] == ["web"]
        assert await found(a) == {"node": 1, "store": 0, "nowhere": 1}
        assert await found(b) == {"node": 0, "store": 1, "nowhere": 0}


async def test_none_is_older_than_a_write(server: Server) -> None:
    async with platform(server) as node:
        await usable(node)
        for n_switches in range(5):
            counts = (await ask(node, "GET", "/topology"))["counts"]
            assert counts["switches"] == n_switches
            await ask(node, "POST", "/switches", json={"name": f"s{n_switches}"})


async def test_what_is_asked_for_most_is_there_from_the_start(server: Server) -> None:
    async with platform(server) as node:
        await usable(node)
        await topology.warm(node)
        await ask(node, "GET", "/topology")
        assert await found(node) == {"node": 1, "store": 0, "nowhere": 1}


@pytest.mark.parametrize("server", ["c"], indirect=True)
async def test_what_a_server_does_not_name_is_not_kept(server: Server) -> None:
    async with platform(server) as node:
        await usable(node)
        for n_switches in range(2):
            counts = (await ask(node, "GET", "/topology"))["counts"]
            assert counts["switches"] == n_switches
            await ask(node, "POST", "/switches", json={"name": f"s{n_switches}"})
        assert node.node.cache.n_at_hand == 0
