"""The graph that follows what changes is the one that is made of what is there."""

import random
from typing import Any

from ovncp.ovn.graph import Graph
from platform_network import Network

SEEDS = range(6)


def state(graph: Graph) -> dict[str, Any]:
    """All that a graph holds."""
    own = {
        name: value
        for name, value in vars(graph).items()
        if name not in ("nb", "sb", "_notes", "_places")
    }
    assert own
    return own


def test_the_graph_is_kept_up_to_date() -> None:
    seen: set[str] = set()
    for seed in SEEDS:
        seen |= Walk(seed).run(150)
    assert seen == state(Network().graph).keys()  # nothing was empty all the time


class Walk:
    """Random changes of a network, after each of which the graph has to be right."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        random.seed(seed)
        self.network = Network()
        self.number = 0

    def run(self, n_steps: int) -> set[str]:
        """Does so many changes; what the graph held some of at some time."""
        steps = [
            self.add_switch,
            self.add_router,
            self.add_port,
            self.add_router_port,
            self.add_router_port,
            self.add_router_port,
            self.change_port,
            self.change_router,
            self.move_port,
            self.remove_port,
            self.remove_owner,
            self.place_port,
            self.change_place,
        ]
        seen: set[str] = set()
        for _ in range(n_steps):
            self.number += 1
            step = self.random.choice(steps)
            step()
            held = state(self.network.graph)
            assert held == state(self.network.anew()), step.__name__
            seen |= {name for name, value in held.items() if value}
        return seen

    def rows(self, table: str, database: str = "nb") -> list[str]:
        return sorted(self.network.rows[database][table].table.rows)

    def pick(self, table: str, database: str = "nb") -> str | None:
        rows = self.rows(table, database)
        return self.random.choice(rows) if rows else None

    def port_row(self) -> dict[str, Any]:
        kind = self.random.choice(["", "router", "localnet", "virtual"])
        options = {"router": "router-port", "localnet": "network_name"}.get(kind)
        target = f"lrp{self.random.randrange(6)}" if kind == "router" else "phys"
        row: dict[str, Any] = {"type": kind, "up": self.random.random() < 0.5}
        row["options"] = ["map", [[options, target]] if options else []]
        return row

    def add_switch(self) -> None:
        self.network.switch(f"s{self.number % 4}")

    def add_router(self) -> None:
        self.network.router(f"r{self.number % 3}")

    def add_port(self) -> None:
        switch = self.pick("Logical_Switch")
        if switch:
            self.network.port(switch, f"p{self.number}", **self.port_row())

    def add_router_port(self) -> None:
        router = self.pick("Logical_Router")
        name = f"lrp{self.number % 6}"
        taken = [row.values for row in self.network.rows["nb"]["Logical_Router_Port"].values()]
        if router and not any(name in values for values in taken):
            row = {"peer": "lrp1"} if self.number % 3 == 0 else {}
            self.network.router_port(router, name, **row)

    def change_port(self) -> None:
        port = self.pick("Logical_Switch_Port")
        if port:
            self.network.change("nb", "Logical_Switch_Port", port, **self.port_row())

    def change_router(self) -> None:
        router, port = self.pick("Logical_Router"), self.pick("Logical_Router_Port")
        if router:
            pairs = [["chassis", "c"]] if self.random.random() < 0.5 else []
            self.network.change("nb", "Logical_Router", router, options=["map", pairs])
        if port:
            self.network.change("nb", "Logical_Router_Port", port, peer=f"lrp{self.number % 6}")
            group = {"op": "insert", "table": "HA_Chassis_Group", "uuid-name": "g"}
            where = [["_uuid", "==", ["uuid", port]]]
            place = {"op": "update", "table": "Logical_Router_Port", "where": where}
            place["row"] = {"ha_chassis_group": ["named-uuid", "g"]}
            self.network.transact("nb", {**group, "row": {"name": f"g{self.number}"}}, place)

    def move_port(self) -> None:
        switches = self.rows("Logical_Switch")
        port = self.pick("Logical_Switch_Port")
        if len(switches) < 2 or port is None:
            return
        moves = [
            {
                "op": "mutate",
                "table": "Logical_Switch",
                "where": [["_uuid", "==", ["uuid", switch]]],
                "mutations": [["ports", mutator, ["set", [["uuid", port]]]]],
            }
            for switch, mutator in [
                *((switch, "delete") for switch in switches),
                (self.random.choice(switches), "insert"),
            ]
        ]
        self.network.transact("nb", *moves)

    def remove_port(self) -> None:
        for table in ("Logical_Switch", "Logical_Router"):
            owner = self.pick(table)
            if owner:
                row = self.network.rows["nb"][table].table
                ports = row.rows[owner].values[row.columns["ports"].index]
                kept = [["uuid", port] for port in ports[1:]]
                self.network.change("nb", table, owner, ports=["set", kept])

    def remove_owner(self) -> None:
        if self.random.random() < 0.5:
            table = self.random.choice(["Logical_Switch", "Logical_Router"])
            if len(self.rows(table)) > 2:
                self.network.delete("nb", table, self.pick(table) or "")

    def place_port(self) -> None:
        chassis = self.pick("Chassis", "sb") or self.network.chassis("c")
        self.network.bind(f"p{self.number}", chassis)

    def change_place(self) -> None:
        binding, chassis = self.pick("Port_Binding", "sb"), self.pick("Chassis", "sb")
        if binding and chassis:
            place = ["uuid", chassis] if self.random.random() < 0.5 else ["set", []]
            self.network.change("sb", "Port_Binding", binding, chassis=place)
        elif binding:
            self.network.delete("sb", "Port_Binding", binding)
