"""Nodes in front of either kind of server, which the tests of a module have for themselves.

They are started once, since that takes longer than most tests do, and emptied for each module.
"""

from collections.abc import Iterator

import pytest

from interop.programs import wait_for
from platform_node import SCHEMAS, Node, databases
from servers import Server


@pytest.fixture(scope="session", params=["c", "ovncp"])
def used_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Both databases, with what tests have left there."""
    with databases(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def used_node(used_server: Server) -> Iterator[Node]:
    """A node in front of `used_server`."""
    with Node(used_server.remote, used_server.remote) as node:
        yield node


@pytest.fixture(scope="module")
def server(used_server: Server) -> Server:
    """Both databases, empty at first."""
    with used_server.client() as client:
        for database in SCHEMAS:
            tables = client.request("get_schema", [database])["result"]["tables"]
            deletions = [{"op": "delete", "table": table, "where": []} for table in tables]
            results = client.transact(database, *deletions)
            assert not any("error" in result for result in results), results
    return used_server


@pytest.fixture(scope="module")
def node(server: Server, used_node: Node) -> Node:
    """A node in front of `server`, which has seen that it is empty."""
    with server.client() as client:
        for short, database in zip(("nb", "sb"), SCHEMAS, strict=True):
            tables = client.request("get_schema", [database])["result"]["tables"]
            for table in tables:
                path = f"/db/{short}/{table}?limit=1"
                wait_for(lambda: not used_node.get(path)["items"], table)  # noqa: B023
    return used_node
