"""The logical network as a graph, kept up to date by what each transaction changes (ovn-nb(5)).

What leads from one switch or router to another is spread over several tables: a switch's ports, of
which some are of the type "router" and name a router's port, or "localnet" and name a physical
network; a router's ports, of which some have a peer, and some a place at gateways. What is kept
here finds that without going through the ports that lead nowhere, of which there may be many more.

Within a transaction rows change in any order. So each port's part is taken out as it was and put in
as it is, with whatever of it is known so far.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ovncp.ovn.rows import Rows, shown
from ovncp.ovsdb.row import Change, Row, Values
from ovncp.ovsdb.table import Table

TO_ROUTER = "router"
TO_NETWORK = ("localnet", "l2gateway")
"""Types of switch ports that lead out of their switch (ovn-nb(5), Logical_Switch_Port)."""

_SWITCH, _SWITCH_PORT = "Logical_Switch", "Logical_Switch_Port"
_ROUTER, _ROUTER_PORT = "Logical_Router", "Logical_Router_Port"
_BINDING, _CHASSIS = "Port_Binding", "Chassis"
_OF_SOUTHBOUND = (_BINDING, _CHASSIS)

Tables = Mapping[str, Rows]
Note = Callable[[str, Values | None, Values | None, Sequence[int]], None]
"""Takes what happened to a row: its uuid, what it was and is, and the places that differ."""


class SwitchPort(NamedTuple):
    """What a switch's port means to the graph; `target` is what it leads to, "" for nothing."""

    switch: str = ""
    kind: str = ""
    target: str = ""
    is_up: bool = False


class RouterPort(NamedTuple):
    """What a router's port means to the graph; `is_gateway` if it has a place at some chassis."""

    router: str = ""
    name: str = ""
    peer: str = ""
    is_gateway: bool = False


class Graph:
    """The graph of the Northbound whose rows are `nb`, and of the Southbound's chassis.

    `switch_ports` and `router_ports` are by uuid. `linking` has, by switch, those of its ports that
    lead out of it; `joining` those of the type "router" by the router port that they name, and
    `reaching` those that lead to a physical network by its name. `gateway_ports` and
    `gateway_routers` have a place at some chassis; `places` are where logical ports are, by their
    names: the uuids of the chassis and of the port binding. `n_up` and `n_bound` count ports by
    switch and by chassis, `kinds` by their type.
    """

    def __init__(self, nb: Tables, sb: Tables) -> None:
        self.nb = nb
        self.sb = sb
        self.switch_ports: dict[str, SwitchPort] = {}
        self.router_ports: dict[str, RouterPort] = {}
        self.port_named: dict[str, str] = {}
        self.linking: dict[str, set[str]] = {}
        self.joining: dict[str, set[str]] = {}
        self.reaching: dict[str, set[str]] = {}
        self.gateway_ports: set[str] = set()
        self.gateway_routers: set[str] = set()
        self.places: dict[str, tuple[str, str]] = {}
        self.kinds: Counter[str] = Counter()
        self.n_up: Counter[str] = Counter()
        self.n_bound: Counter[str] = Counter()
        self._notes: Mapping[str, Note] = {
            _SWITCH: self._note_switch,
            _SWITCH_PORT: self._note_switch_port,
            _ROUTER: self._note_router,
            _ROUTER_PORT: self._note_router_port,
            _BINDING: self._note_binding,
        }
        tables = {name: table for name in self._notes if (table := self._table(name)) is not None}
        self._index = {
            (name, column.name): column.index
            for name, table in tables.items()
            for column in table.column_list
        }
        for name, table in tables.items():
            for row in table.rows.values():
                self._notes[name](row.uuid, None, row.values, ())

    def change(self, changes: Sequence[Change]) -> None:
        """Note what a transaction did, to either database."""
        for change in changes:
            note = self._notes.get(change.table.name)
            if note is not None and change.table is self._table(change.table.name):
                note(change.row.uuid, change.old, change.new, change.columns)

    def rows(self, name: str) -> Rows | None:
        """The rows of a table of either database, None where the schema has no such table."""
        return (self.sb if name in _OF_SOUTHBOUND else self.nb).get(name)

    def row(self, name: str, uuid: str) -> Row | None:
        """A row of a table, if it is there."""
        rows = self.rows(name)
        return None if rows is None else rows.get(uuid)

    def value(self, name: str, row: Row | None, column: str) -> Any:
        """What a row shows in a column; None where there is no such row or column."""
        table = self._table(name)
        found = None if table is None else table.columns.get(column)
        if row is None or found is None:
            return None
        show = shown(found)
        return row.values[found.index] if show is None else show(row.values[found.index])

    def _table(self, name: str) -> Table | None:
        rows = self.rows(name)
        return None if rows is None else rows.table

    def _get(self, name: str, values: Values, column: str) -> Any:
        """What a row has in a column; nothing where the schema knows no such column."""
        place = self._index.get((name, column))
        return () if place is None else values[place]

    # Switches and their ports

    def _note_switch(
        self, uuid: str, old: Values | None, new: Values | None, columns: Sequence[int]
    ) -> None:
        for port, switch in self._moved(_SWITCH, uuid, old, new, columns):
            self._put_switch_port(port, self._switch_port(port)._replace(switch=switch))

    def _moved(
        self,
        name: str,
        uuid: str,
        old: Values | None,
        new: Values | None,
        columns: Sequence[int],
    ) -> Iterator[tuple[str, str]]:
        """The ports that a switch or router has lost or gained, with whose they are now."""
        table = self._table(name)
        assert table is not None
        column = table.columns["ports"]
        if old is not None and new is not None and column.index not in columns:
            return
        before = () if old is None else old[column.index]
        after = () if new is None else new[column.index]
        removed, added = column.type.removed_and_added(before, after)
        owners: Mapping[str, SwitchPort | RouterPort] = self.router_ports
        if name == _SWITCH:
            owners = self.switch_ports
        for port in removed:
            if port in owners and owners[port][0] == uuid:  # it may be another one's by now
                yield port, ""
        for port in added:
            yield port, uuid

    def _switch_port(self, uuid: str) -> SwitchPort:
        return self.switch_ports.get(uuid, SwitchPort())

    def _note_switch_port(
        self, uuid: str, old: Values | None, new: Values | None, columns: Sequence[int]
    ) -> None:
        port = SwitchPort(self._switch_port(uuid).switch)
        if new is not None:
            kind = self._get(_SWITCH_PORT, new, "type")
            options = self._get(_SWITCH_PORT, new, "options")
            is_up = self._get(_SWITCH_PORT, new, "up") == (True,)
            port = SwitchPort(port.switch, kind, _target(kind, options), is_up)
        self._put_switch_port(uuid, port if new is not None or port.switch else None)

    def _put_switch_port(self, uuid: str, port: SwitchPort | None) -> None:
        old = self.switch_ports.pop(uuid, None)
        if old is not None:
            self._count_switch_port(uuid, old, -1)
        if port is not None and port != SwitchPort():
            self.switch_ports[uuid] = port
            self._count_switch_port(uuid, port, 1)

    def _count_switch_port(self, uuid: str, port: SwitchPort, sign: int) -> None:
        if port.switch:
            _add(self.kinds, port.kind, sign)
            if port.is_up:
                _add(self.n_up, port.switch, sign)
        if port.switch and port.target:
            index = self.joining if port.kind == TO_ROUTER else self.reaching
            _include(index, port.target, uuid, sign)
            _include(self.linking, port.switch, uuid, sign)

    # Routers and their ports

    def _note_router(
        self, uuid: str, old: Values | None, new: Values | None, columns: Sequence[int]
    ) -> None:
        for port, router in self._moved(_ROUTER, uuid, old, new, columns):
            self._put_router_port(port, self._router_port(port)._replace(router=router))
        is_gateway = new is not None and "chassis" in self._get(_ROUTER, new, "options")
        (self.gateway_routers.add if is_gateway else self.gateway_routers.discard)(uuid)

    def _router_port(self, uuid: str) -> RouterPort:
        return self.router_ports.get(uuid, RouterPort())

    def _note_router_port(
        self, uuid: str, old: Values | None, new: Values | None, columns: Sequence[int]
    ) -> None:
        port = RouterPort(self._router_port(uuid).router)
        if new is not None:
            name, peer, *places = (
                self._get(_ROUTER_PORT, new, column)
                for column in ("name", "peer", "gateway_chassis", "ha_chassis_group")
            )
            port = RouterPort(port.router, name, peer[0] if peer else "", any(places))
        self._put_router_port(uuid, port if new is not None or port.router else None)

    def _put_router_port(self, uuid: str, port: RouterPort | None) -> None:
        old = self.router_ports.pop(uuid, None)
        if old is not None and self.port_named.get(old.name) == uuid:
            del self.port_named[old.name]
        self.gateway_ports.discard(uuid)
        if port is not None and port != RouterPort():
            self.router_ports[uuid] = port
            self.port_named[port.name] = uuid
            if port.is_gateway:
                self.gateway_ports.add(uuid)

    # Chassis

    def _note_binding(
        self, uuid: str, old: Values | None, new: Values | None, columns: Sequence[int]
    ) -> None:
        if old is not None:
            name = self._get(_BINDING, old, "logical_port")
            for chassis in self._get(_BINDING, old, "chassis"):
                _add(self.n_bound, chassis, -1)
                if self.places[name] == (chassis, uuid):  # another row may have the name by now
                    del self.places[name]
        if new is not None:
            name = self._get(_BINDING, new, "logical_port")
            for chassis in self._get(_BINDING, new, "chassis"):
                _add(self.n_bound, chassis, 1)
                self.places[name] = chassis, uuid


def _target(kind: str, options: Mapping[str, str]) -> str:
    """What a switch's port leads to: the name of a router's port, or of a physical network."""
    if kind == TO_ROUTER:
        return options.get("router-port", "")
    return options.get("network_name", "") if kind in TO_NETWORK else ""


def _add(counter: "Counter[str]", key: str, amount: int) -> None:
    counter[key] += amount
    if not counter[key]:
        del counter[key]


def _include(index: dict[str, set[str]], key: str, uuid: str, sign: int) -> None:
    if sign > 0:
        index.setdefault(key, set()).add(uuid)
        return
    uuids = index[key]
    uuids.discard(uuid)
    if not uuids:
        del index[key]
