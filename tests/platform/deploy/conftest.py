"""A node that has all that it can have, shared by all tests here."""

from __future__ import annotations

import os

import pytest

from platform_node import Node, databases
from redis_servers import RedisServer


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """A node that has all that it can have."""
    folder = tmp_path_factory.mktemp("accounts")
    with RedisServer() as redis, databases("c") as server:
        env = {"REDIS_URL": f"redis://{redis.address}", "AUTH_MODE": "users"}
        env |= {"DATABASE_URL": f"sqlite:///{folder}/accounts.db"}
        with Node(server.remote, server.remote, env=os.environ | env) as node:
            yield node
