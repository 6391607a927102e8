"""What can be asked of the logical network as a graph: how much there is, a page, or a part of it.

A link is told with the later of its two nodes, so that whoever goes through the pages knows both. A
view may be one tenant's: it has the routers and switches of that tenant, and the links among them.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ovncp.ovn import names
from ovncp.ovn.graph import Graph
from ovncp.ovn.links import (
    CHASSIS,
    KINDS,
    NETWORK,
    PORT_TABLES,
    ROUTER,
    SWITCH,
    TABLES,
    Key,
    Links,
    Node,
)
from ovncp.ovn.tenancy import KEY, tenant_of
from ovncp.ovn.values import Unresolved
from ovncp.ovsdb.row import Row

_PORT_FIELDS = {
    ROUTER: ("networks", "mac", "peer"),
    SWITCH: ("type", "addresses", "up", "enabled"),
}

Object = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Nodes, and links among them and those of earlier pages.

    `next` is the place of the last node if more follow. `is_cut` says that there were more than
    asked for, where there is no next page.
    """

    nodes: Sequence[Object]
    links: Sequence[Object]
    next: Key | None = None
    is_cut: bool = False


class View:
    """The graph as who asks may see it: all of it, or what is of `tenant`.

    `n_ports` of each router and switch are told, none when it is 0.
    """

    def __init__(self, graph: Graph, tenant: str | None = None, n_ports: int = 0) -> None:
        self._graph = graph
        self._links = Links(graph)
        self._tenant = tenant
        self._n_ports = n_ports

    # How much there is

    def counts(self) -> Object:
        """How many there are of each."""
        if self._tenant is not None:
            return self._counts_of_tenant()
        graph = self._graph
        return {
            "networks": len(graph.reaching),
            "gateways": len(graph.gateway_ports) + len(graph.gateway_routers),
            "chassis": self._len("Chassis"),
            "routers": self._len(TABLES[ROUTER]),
            "router_ports": len(graph.router_ports),
            "switches": self._len(TABLES[SWITCH]),
            "switch_ports": len(graph.switch_ports),
            "switch_ports_up": sum(graph.n_up.values()),
            "switch_port_types": dict(graph.kinds),
        }

    def _len(self, table: str) -> int:
        rows = self._graph.rows(table)
        return 0 if rows is None else len(rows)

    def _counts_of_tenant(self) -> Object:
        switches, routers = list(self._own(SWITCH)), list(self._own(ROUTER))
        ports = self._links.ports
        return {
            "routers": len(routers),
            "router_ports": sum(len(ports(ROUTER, row)) for row in routers),
            "switches": len(switches),
            "switch_ports": sum(len(ports(SWITCH, row)) for row in switches),
            "switch_ports_up": sum(self._graph.n_up[row.uuid] for row in switches),
        }

    def _own(self, kind: str) -> Iterable[Row]:
        """The tenant's routers or switches."""
        rows = self._graph.rows(TABLES[kind])
        if rows is None:
            return ()
        return rows.where(rows.table.columns["external_ids"], "includes", {KEY: self._tenant})

    # Nodes

    def _is_visible(self, node: Node) -> bool:
        return self._tenant is None or self._tenant == self._tenant_of(node)

    def _tenant_of(self, node: Node) -> str | None:
        rows, row = self._graph.rows(TABLES.get(node.kind, "")), self._links.row(node)
        return None if rows is None or row is None else tenant_of(rows.table, row.values)

    def _node(self, node: Node) -> Object:
        """A node as it is answered."""
        told: Object = {"id": node.id, "kind": node.kind, "name": self._links.name(node)}
        if node.kind == NETWORK:
            return told | {"n_ports": len(self._graph.reaching.get(node.key, ()))}
        if node.kind == CHASSIS:
            row = self._chassis(node.key)
            n_bound = 0 if row is None else self._graph.n_bound[row.uuid]
            hostname = self._graph.value("Chassis", row, "hostname")
            return told | {"hostname": hostname, "n_ports": n_bound}
        ports = self._links.ports(node.kind, self._links.row(node))
        told |= {"tenant": self._tenant_of(node), "n_ports": len(ports)}
        if node.kind == SWITCH:
            told["n_up"] = self._graph.n_up[node.key]
        if self._n_ports:
            told["ports"] = [self._port(node.kind, uuid) for uuid in ports[: self._n_ports]]
        return told

    def _port(self, kind: str, uuid: str) -> Object:
        graph, table = self._graph, PORT_TABLES[kind]
        row = graph.row(table, uuid)
        name = graph.value(table, row, "name")
        told: Object = {"id": uuid, "name": name}
        told |= {field: graph.value(table, row, field) for field in _PORT_FIELDS[kind]}
        if self._tenant is None:
            chassis, _ = graph.places.get(name if kind == SWITCH else f"cr-{name}", ("", ""))
            told["chassis"] = graph.value("Chassis", graph.row("Chassis", chassis), "name")
        return told

    def _chassis(self, name: str) -> Row | None:
        rows = self._graph.rows("Chassis")
        return None if rows is None else next(names.named(rows, name), None)

    # A page

    def page(self, kinds: Sequence[str], after: Key | None, n_nodes: int) -> Answer:
        """`n_nodes` nodes of `kinds` that come after a place, None being that before the first."""
        found = list(islice(self._in_order(kinds, after, n_nodes + 1), n_nodes + 1))
        nodes = found[:n_nodes]
        links = [
            link.to_json()
            for node in nodes
            for link in self._links.told(node)
            if link.other.kind in kinds and self._is_visible(link.other)
        ]
        end = self._links.place(nodes[-1]) if len(found) > n_nodes else None
        return Answer([self._node(node) for node in nodes], links, end)

    def _in_order(self, kinds: Sequence[str], after: Key | None, n_nodes: int) -> Iterator[Node]:
        for rank, kind in enumerate(KINDS):
            if kind not in kinds or (after is not None and rank < after[0]):
                continue
            begin = after[1:] if after is not None and rank == after[0] else None
            yield from self._of_kind(kind, begin, n_nodes)

    def _of_kind(self, kind: str, after: tuple[str, str] | None, n_nodes: int) -> Iterator[Node]:
        rows = self._graph.rows(TABLES.get(kind, ""))
        if rows is not None and self._tenant is None:
            keys = rows.order_at_once(((rows.table.columns["name"], False),)).page(after, n_nodes)
        else:
            keys = sorted(self._keys(kind))
            keys = keys[0 if after is None else bisect_right(keys, after) :]
        yield from (Node(kind, key) for _, key in keys)

    def _keys(self, kind: str) -> Iterator[tuple[str, str]]:
        if kind in TABLES:
            for row in self._own(kind):
                yield self._graph.value(TABLES[kind], row, "name"), row.uuid
        elif self._tenant is None:
            names = self._graph.reaching if kind == NETWORK else self._links.by_chassis()
            yield from ((name, name) for name in names)

    # A part

    def around(self, start: Node, n_steps: int, kinds: Sequence[str], n_nodes: int) -> Answer:
        """The nodes that are at most `n_steps` links away from `start`, nearest first."""
        known: dict[Node, None] = {start: None}
        edge = [start]
        is_cut = False
        for _ in range(n_steps):
            others = (link.other for node in edge for link in self._links.all(node))
            wanted = (node for node in others if node.kind in kinds and self._is_visible(node))
            edge = []
            for node in wanted:
                if node not in known:
                    if len(known) == n_nodes:
                        is_cut = True
                        break
                    known[node] = None
                    edge.append(node)
        links = [
            link.to_json()
            for node in known
            for link in self._links.told(node)
            if link.other in known
        ]
        return Answer([self._node(node) for node in known], links, None, is_cut)

    def find(self, text: str) -> Node:
        """The node that `text` names, or that has the port of this name.

        A name or a uuid, or KIND:NAME where a name alone is not enough. Raises Unresolved.
        """
        kind, _, rest = text.partition(":")
        found = list(self._called(text, KINDS)) or list(self._called(rest, (kind,)))
        nodes = sorted({node for node in found if self._is_visible(node)}, key=self._links.place)
        if not nodes:
            raise Unresolved(f"the topology has nothing called {text!r}")
        if len(nodes) > 1:
            several = ", ".join(f"{node.kind}:{node.key}" for node in nodes)
            raise Unresolved(f"{text!r} is several: {several}")
        return nodes[0]

    def _called(self, text: str, kinds: Sequence[str]) -> Iterator[Node]:
        graph = self._graph
        if ROUTER in kinds:
            yield from (Node(ROUTER, uuid) for uuid in self._uuids(TABLES[ROUTER], text))
            for uuid in self._uuids(PORT_TABLES[ROUTER], text):
                yield Node(ROUTER, graph.router_ports[uuid].router)
        if SWITCH in kinds:
            yield from (Node(SWITCH, uuid) for uuid in self._uuids(TABLES[SWITCH], text))
            for uuid in self._uuids(PORT_TABLES[SWITCH], text):
                yield Node(SWITCH, graph.switch_ports[uuid].switch)
        if NETWORK in kinds and text in graph.reaching:
            yield Node(NETWORK, text)
        if CHASSIS in kinds and (text in self._links.by_chassis() or self._chassis(text)):
            yield Node(CHASSIS, text)

    def _uuids(self, table: str, text: str) -> Iterator[str]:
        rows = self._graph.rows(table)
        if rows is not None:
            if rows.get(text) is not None:
                yield text
            yield from (row.uuid for row in names.named(rows, text))
