"""Nodes in front of either kind of server, shared by the tests of a module."""

from collections.abc import Iterator

import pytest

from platform_node import Node, databases
from servers import Server


@pytest.fixture(scope="module", params=["c", "ovncp"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Both databases, empty at first."""
    with databases(request.param) as server:
        yield server


@pytest.fixture(scope="module")
def node(server: Server) -> Iterator[Node]:
    """A node in front of `server`."""
    with Node(server.remote, server.remote) as node:
        yield node
