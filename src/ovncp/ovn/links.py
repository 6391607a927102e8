"""What leads from a node of the logical network to others: ports of switches and routers.

Nodes are physical networks, chassis that are gateways, routers and switches, in this order, and by
name among their like (ovn-nb(5)). A link is *told* with the later of its two nodes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ovncp.ovn.graph import TO_ROUTER, Graph
from ovncp.ovsdb.row import Row

NETWORK, CHASSIS, ROUTER, SWITCH = KINDS = ("network", "chassis", "router", "switch")
TABLES = {ROUTER: "Logical_Router", SWITCH: "Logical_Switch"}
PORT_TABLES = {ROUTER: "Logical_Router_Port", SWITCH: "Logical_Switch_Port"}

Key = tuple[int, str, str]
"""A node's place in the order: that of its kind, its name, its key."""


class Node(NamedTuple):
    """A node; `key` is the uuid of a router or switch, and the name of the others."""

    kind: str
    key: str

    @property
    def id(self) -> str:
        """What it is called in an answer."""
        return self.key if self.kind in TABLES else f"{self.kind}:{self.key}"


class Link(NamedTuple):
    """A link of `one` to `other`; `ports` are those that it is made of, by name."""

    one: Node
    other: Node
    kind: str
    ports: tuple[str, ...]
    priority: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is answered."""
        link = {"from": self.one.id, "to": self.other.id, "kind": self.kind, "ports": self.ports}
        return link if self.priority is None else {**link, "priority": self.priority}


class Links:
    """The links in a graph, as it is now."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._at_chassis: dict[str, list[Link]] | None = None

    def row(self, node: Node) -> Row | None:
        """The row of a router or switch."""
        return self._graph.row(TABLES[node.kind], node.key) if node.kind in TABLES else None

    def name(self, node: Node) -> str:
        """What a node is called."""
        name: str | None = self._graph.value(TABLES.get(node.kind, ""), self.row(node), "name")
        return node.key if name is None else name

    def place(self, node: Node) -> Key:
        """A node's place in the order."""
        return KINDS.index(node.kind), self.name(node), node.key

    def ports(self, kind: str, row: Row | None) -> Sequence[str]:
        """The uuids of the ports of a router or switch."""
        return self._graph.value(TABLES[kind], row, "ports") or ()

    def told(self, node: Node) -> Iterator[Link]:
        """The links of `node` to nodes before it."""
        if node.kind == SWITCH:
            yield from self._of_switch(node)
        elif node.kind == ROUTER:
            yield from self._places(node)
            place = self.place(node)
            yield from (link for link in self._peers(node) if self.place(link.other) < place)

    def all(self, node: Node) -> Iterator[Link]:
        """All links of `node`."""
        if node.kind == SWITCH:
            yield from self._of_switch(node)
        elif node.kind == ROUTER:
            yield from self._places(node)
            yield from self._peers(node)
            yield from self._switches(node)
        elif node.kind == NETWORK:
            yield from self._of_network(node)
        else:
            yield from self.by_chassis().get(node.key, ())

    def by_chassis(self) -> dict[str, list[Link]]:
        """The links of each chassis that is a gateway."""
        if self._at_chassis is None:
            graph = self._graph
            routers = {graph.router_ports[uuid].router for uuid in graph.gateway_ports}
            self._at_chassis = {}
            for router in sorted((routers | graph.gateway_routers) - {""}):
                for link in self._places(Node(ROUTER, router)):
                    turned = link._replace(one=link.other, other=link.one)
                    self._at_chassis.setdefault(turned.one.key, []).append(turned)
        return self._at_chassis

    # Of switches

    def _of_switch(self, node: Node) -> Iterator[Link]:
        graph = self._graph
        for uuid in sorted(graph.linking.get(node.key, ())):
            port, name = graph.switch_ports[uuid], self._port_name(uuid)
            if port.kind != TO_ROUTER:
                yield Link(node, Node(NETWORK, port.target), NETWORK, (name,))
                continue
            router = graph.router_ports.get(graph.port_named.get(port.target, ""))
            if router is not None and router.router:
                yield Link(node, Node(ROUTER, router.router), ROUTER, (name, port.target))

    def _of_network(self, node: Node) -> Iterator[Link]:
        for uuid in sorted(self._graph.reaching.get(node.key, ())):
            switch = Node(SWITCH, self._graph.switch_ports[uuid].switch)
            yield Link(node, switch, NETWORK, (self._port_name(uuid),))

    def _port_name(self, uuid: str) -> str:
        table = PORT_TABLES[SWITCH]
        name: str | None = self._graph.value(table, self._graph.row(table, uuid), "name")
        return name or ""

    # Of routers

    def _switches(self, node: Node) -> Iterator[Link]:
        graph = self._graph
        for uuid in self.ports(ROUTER, self.row(node)):
            name = graph.router_ports[uuid].name
            for joining in sorted(graph.joining.get(name, ())):
                switch = Node(SWITCH, graph.switch_ports[joining].switch)
                yield Link(node, switch, ROUTER, (self._port_name(joining), name))

    def _peers(self, node: Node) -> Iterator[Link]:
        graph = self._graph
        for uuid in self.ports(ROUTER, self.row(node)):
            port = graph.router_ports[uuid]
            peer = graph.router_ports.get(graph.port_named.get(port.peer, ""))
            if peer is not None and peer.router:
                yield Link(node, Node(ROUTER, peer.router), "peer", (port.name, peer.name))

    def _places(self, node: Node) -> Iterator[Link]:
        """The chassis that a router, or one of its ports, has its place at."""
        graph, row = self._graph, self.row(node)
        if node.key in graph.gateway_routers:
            chassis = graph.value(TABLES[ROUTER], row, "options")["chassis"]
            yield Link(node, Node(CHASSIS, chassis), "gateway", ())
        if not graph.gateway_ports.isdisjoint(ports := self.ports(ROUTER, row)):
            for uuid in ports:
                if uuid in graph.gateway_ports:
                    yield from self._places_of_port(node, uuid)

    def _places_of_port(self, node: Node, uuid: str) -> Iterator[Link]:
        graph, table = self._graph, PORT_TABLES[ROUTER]
        port = graph.row(table, uuid)
        yield from self._members(node, port, "Gateway_Chassis", "gateway_chassis", port)
        group = graph.value(table, port, "ha_chassis_group")
        if group is not None:
            row = graph.row("HA_Chassis_Group", group)
            yield from self._members(node, port, "HA_Chassis", "ha_chassis", row)

    def _members(
        self, node: Node, port: Row | None, table: str, column: str, owner: Row | None
    ) -> Iterator[Link]:
        graph = self._graph
        name = graph.value(PORT_TABLES[ROUTER], port, "name")
        owners = PORT_TABLES[ROUTER] if owner is port else "HA_Chassis_Group"
        for uuid in graph.value(owners, owner, column) or ():
            member = graph.row(table, uuid)
            chassis = Node(CHASSIS, graph.value(table, member, "chassis_name") or "")
            yield Link(node, chassis, "gateway", (name,), graph.value(table, member, "priority"))
