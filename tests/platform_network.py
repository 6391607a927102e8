"""OVN's two databases within the test, with all that is made of their rows kept up to date."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson

from ovncp.ovn.graph import Graph
from ovncp.ovn.rows import Rows
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.row import Change
from ovncp.ovsdb.schema import DatabaseSchema

SCHEMAS = {"nb": "/usr/share/ovn/ovn-nb.ovsschema", "sb": "/usr/share/ovn/ovn-sb.ovsschema"}

Operation = dict[str, Any]


class Anybody:
    """A client that may do everything, and holds no lock."""

    read_only = False
    role = ""
    identity = None

    def owns_lock(self, name: str) -> bool:
        return False


class Network:
    """The databases, empty at first; `graph` follows them."""

    def __init__(self) -> None:
        self.databases = {name: _database(path) for name, path in SCHEMAS.items()}
        self.rows = {name: _rows(database) for name, database in self.databases.items()}
        self.graph = self.anew()
        self.listeners: list[Callable[[str, Sequence[Change]], None]] = []
        """Called with the database's name and the changes of each transaction."""

    def anew(self) -> Graph:
        """The graph of what is there now."""
        return Graph(self.rows["nb"], self.rows["sb"])

    def replica(self, name: str) -> Any:
        """One of the databases, as far as a `Replica` is looked at for its rows."""
        database = self.databases[name]
        return SimpleNamespace(name=database.name, rows=self.rows[name], database=database)

    def transact(self, name: str, *operations: Operation) -> list[Any]:
        """Executes operations as one transaction, which must not fail."""
        database = self.databases[name]
        outcome = database.transact(list(operations), Anybody(), now_msec=0)
        assert not outcome.failed, outcome.results
        if outcome.commit is not None:
            database.settle()
            for change in outcome.commit.changes:
                self.rows[name][change.table.name].change(change)
            self.graph.change(outcome.commit.changes)
            for listener in self.listeners:
                listener(name, outcome.commit.changes)
        return outcome.results

    # What tests are made of

    def switch(self, name: str, **more: Any) -> str:
        row = {"name": name, **more}
        result = self.transact("nb", {"op": "insert", "table": "Logical_Switch", "row": row})
        return result[0]["uuid"][1]

    def router(self, name: str, **more: Any) -> str:
        row = {"name": name, **more}
        result = self.transact("nb", {"op": "insert", "table": "Logical_Router", "row": row})
        return result[0]["uuid"][1]

    def port(self, owner: str, name: str, table: str = "Logical_Switch", **more: Any) -> str:
        """A port of a switch, or of a router."""
        row = {"name": name, **more}
        insert = {"op": "insert", "table": f"{table}_Port", "uuid-name": "p", "row": row}
        mutation = ["ports", "insert", ["set", [["named-uuid", "p"]]]]
        where = [["_uuid", "==", ["uuid", owner]]]
        add = {"op": "mutate", "table": table, "where": where, "mutations": [mutation]}
        # In either order, as transactions come.
        operations = [add, insert] if random.random() < 0.5 else [insert, add]
        results = self.transact("nb", *operations)
        return next(r["uuid"][1] for r in results if "uuid" in r)

    def router_port(self, router: str, name: str, **more: Any) -> str:
        row = {"mac": "00:00:00:00:00:01", "networks": "10.0.0.1/24", **more}
        return self.port(router, name, "Logical_Router", **row)

    def join(self, switch: str, router: str, name: str, **more: Any) -> None:
        """Connect a switch to a router, by the ports NAME-s and NAME-r."""
        self.router_port(router, f"{name}-r", **more)
        options = ["map", [["router-port", f"{name}-r"]]]
        self.port(switch, f"{name}-s", type="router", options=options)

    def change(self, name: str, table: str, uuid: str, /, **row: Any) -> None:
        where = [["_uuid", "==", ["uuid", uuid]]]
        self.transact(name, {"op": "update", "table": table, "where": where, "row": row})

    def delete(self, name: str, table: str, uuid: str) -> None:
        where = [["_uuid", "==", ["uuid", uuid]]]
        self.transact(name, {"op": "delete", "table": table, "where": where})

    def chassis(self, name: str) -> str:
        address = f"192.0.2.{next(self._keys)}"
        encap = {"type": "geneve", "ip": address, "chassis_name": name}
        row = {"name": name, "hostname": f"{name}.example", "encaps": ["named-uuid", "e"]}
        results = self.transact(
            "sb",
            {"op": "insert", "table": "Encap", "uuid-name": "e", "row": encap},
            {"op": "insert", "table": "Chassis", "row": row},
        )
        return results[1]["uuid"][1]

    def bind(self, port: str, chassis: str | None) -> str:
        """The port is on that chassis, or on none."""
        key = next(self._keys)
        datapath = {"op": "insert", "table": "Datapath_Binding", "uuid-name": "d"}
        row = {"logical_port": port, "tunnel_key": key % 30000 + 1, "datapath": ["named-uuid", "d"]}
        if chassis is not None:
            row["chassis"] = ["uuid", chassis]
        results = self.transact(
            "sb",
            {**datapath, "row": {"tunnel_key": key}},
            {"op": "insert", "table": "Port_Binding", "row": row},
        )
        return results[1]["uuid"][1]

    _keys = itertools.count(1)


def _database(path: str) -> Database:
    schema = DatabaseSchema.from_json(orjson.loads(Path(path).read_bytes()))
    return Database(schema, lambda: str(uuid.uuid4()))


def _rows(database: Database) -> dict[str, Rows]:
    rows = {name: Rows(table) for name, table in database.tables.items()}
    for each in rows.values():
        each.link(rows)
    return rows


class Walk:
    """Random changes of a network, step by step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        random.seed(seed)
        self.network = Network()
        self.number = 0

    def step(self) -> str:
        """Does something; what it was."""
        self.number += 1
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
        step = self.random.choice(steps)
        step()
        return step.__name__

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
