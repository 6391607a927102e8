"""Servers over one log, on each engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Iterator

import pytest

from clustered.wired import TIMEOUT_MS, Wired
from engines import ETCDS, EtcdCluster, Postgres, shared
from ovncp.log.registry import engine as engine_of
from servers import ENGINES, Server

SCHEMA = {
    "name": "D",
    "version": "1.0.0",
    "tables": {
        "T": {
            "columns": {"k": {"type": "string"}, "v": {"type": "string"}},
            "indexes": [["k"]],
            "isRoot": True,
        }
    },
}


def create(url: str) -> None:
    """Make the log: with the engine's own patience, whatever the servers' is to be."""
    asyncio.run(engine_of(url).create(url, json.dumps(SCHEMA).encode()))


Start = Callable[..., list[Server]]
"""Starts so many servers over a new log, with these parameters in its location."""


on_every_etcd = pytest.mark.parametrize("engine", [*ETCDS, "postgresql"], indirect=True)
"""Has a test run on an etcd newer than Debian's, too."""


@pytest.fixture
def etcd() -> EtcdCluster:
    """The one that all tests share."""
    found = shared("etcd")
    assert isinstance(found, EtcdCluster)
    return found


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EtcdCluster | Postgres:
    """Each of those that all tests share, and none may harm."""
    return shared(request.param)


@pytest.fixture
def start(engine: EtcdCluster | Postgres) -> Iterator[Start]:
    """See `Start`."""
    with starting(engine) as start:
        yield start


@contextlib.contextmanager
def starting(engine: EtcdCluster | Postgres) -> Iterator[Start]:
    """A `Start` on `engine`; at the end the servers are closed."""
    with contextlib.ExitStack() as stack:

        def start(n_servers: int, **parameters: object) -> list[Server]:
            name = secrets.token_hex(4)
            create(engine.url(database=name))
            url = engine.url(database=name, **parameters)
            return [
                stack.enter_context(Server("ovncp", options=[url], tcp=True))
                for _ in range(n_servers)
            ]

        yield start


@pytest.fixture
def wired(engine: EtcdCluster | Postgres) -> Iterator[tuple[Wired, Server]]:
    """See `wired_over`."""
    with wired_over(engine) as wired:
        yield wired


@contextlib.contextmanager
def wired_over(engine: EtcdCluster | Postgres) -> Iterator[tuple[Wired, Server]]:
    """A server with a wire of its own, and another one that keeps no entries."""
    name = secrets.token_hex(4)
    create(engine.url(database=name))
    url = engine.url(database=name, timeout_ms=TIMEOUT_MS, keep_s=0, keep_mb=0)
    with contextlib.ExitStack() as stack:
        wired = Wired(engine, url)
        stack.callback(wired.close)
        yield wired, stack.enter_context(Server("ovncp", options=[url]))
