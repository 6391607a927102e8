"""Nodes with accounts over one Redis, shared by the tests of a module."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from platform_node import Node, databases
from redis_servers import RedisServer
from servers import Server

FIRST = "The first user is admin, with the password "


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Both databases."""
    with databases("ovncp") as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """What the nodes share."""
    with RedisServer() as redis:
        yield redis


@pytest.fixture(scope="module")
def start(server, redis, tmp_path_factory) -> Iterator[Callable[..., Node]]:
    """Starts a node by its name, of which `client` is the administrator."""
    folder = tmp_path_factory.mktemp("accounts")
    shared = {
        "REDIS_URL": f"redis://{redis.address}/0",
        "DATABASE_URL": f"sqlite:///{folder}/accounts.db",
        "AUTH_MODE": "users",
        "CLUSTER_HEARTBEAT_INTERVAL": "200ms",
        "CLUSTER_NODE_TIMEOUT": "2s",
    }
    passwords: list[str] = []
    with ExitStack() as stack:

        def start_one(name: str, *options: str, **more: str) -> Node:
            env = os.environ | shared | {"NODE_ID": name, "NODE_HOSTNAME": f"host-{name}"} | more
            node = stack.enter_context(Node(server.remote, server.remote, *options, env=env))
            if not passwords:
                passwords.append(node.told(FIRST))
            node.client.auth = ("admin", passwords[0])
            return node

        yield start_one
