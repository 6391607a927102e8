"""OVN's two databases within the test, with all that is made of their rows kept up to date."""

from __future__ import annotations

import itertools
import random
import uuid
from pathlib import Path
from typing import Any

import orjson

from ovncp.ovn.graph import Graph
from ovncp.ovn.rows import Rows
from ovncp.ovsdb.database import Database
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

    def anew(self) -> Graph:
        """The graph of what is there now."""
        return Graph(self.rows["nb"], self.rows["sb"])

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

    def change(self, name: str, table: str, uuid: str, **row: Any) -> None:
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
