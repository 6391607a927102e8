"""The stores that the contract is run on, each with as many handles as a test wants."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from ovncp.cluster.base import Store
from ovncp.cluster.memory import Memory, MemoryStore
from ovncp.cluster.redis import RedisStore
from redis_servers import RedisCluster, RedisServer, SentinelRedis

KINDS = ("memory", "redis", "redis cluster", "redis sentinel")


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A server that no test here may harm."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A cluster that no test here may harm."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_sentinel() -> Iterator[SentinelRedis]:
    """A server behind sentinels that no test here may harm."""
    with SentinelRedis() as servers:
        yield servers


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of store in turn."""
    return request.param


@pytest.fixture
async def open_store(
    kind: str, request: pytest.FixtureRequest
) -> AsyncIterator[Callable[[], Store]]:
    """Opens a further handle to one store, which is new."""
    if kind == "memory":
        memory = Memory()

        def make() -> Store:
            return MemoryStore(memory)
    else:
        engine = request.getfixturevalue(kind.replace(" ", "_"))
        prefix = f"{secrets.token_hex(4)}:"

        def make() -> Store:
            return RedisStore(engine.settings(prefix=prefix))

    async with AsyncExitStack() as stack:

        def open_one() -> Store:
            store = make()
            stack.push_async_callback(store.close)
            return store

        yield open_one


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    """A handle to a new store."""
    return open_store()
