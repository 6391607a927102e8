"""Nodes of the platform in the process of a test, to look into them and to change parts of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ovncp.api.platform import Platform
from ovncp.auth.accounts import Accounts
from ovncp.cli.connect import connector
from ovncp.cluster.memory import Memory, MemoryStore
from ovncp.cluster.node import Node
from ovncp.cluster.settings import ClusterSettings
from ovncp.follow.link import Endpoint
from ovncp.ovn.replica import Replica
from ovncp.ovn.resources import NORTHBOUND, SOUTHBOUND
from ovncp.ovn.writer import Grouping
from ovncp.server.tls import TlsFiles
from servers import Server


def endpoints(*servers: Server) -> list[Endpoint]:
    return [Endpoint(each.remote, connector(each.remote, TlsFiles())) for each in servers]


@asynccontextmanager
async def platform(
    *servers: Server,
    memory: Memory | None = None,
    name: str = "a",
    grouping: Grouping = Grouping(),
    patience: float = 10.0,
    accounts: Callable[[Node], Accounts] | None = None,
) -> AsyncIterator[Platform]:
    """A node in front of both databases at `servers`, with other nodes in the same memory.

    Everybody may do everything, or those with `accounts`.
    """
    replicas = {
        each: Replica(each, endpoints(*servers), patience) for each in (NORTHBOUND, SOUTHBOUND)
    }
    node = Node(ClusterSettings(node_id=name), MemoryStore(memory or Memory()), "test")
    made = Platform.of(replicas, node, grouping)
    if accounts is not None:
        made.admit(accounts(node))
    await made.start()
    try:
        for replica in replicas.values():
            await replica.filled()
        yield made
    finally:
        await made.close()
