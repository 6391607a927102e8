"""What an ovn-controller monitors of the Southbound database (ovn-controller(8)).

The tables and columns are those of the server's own schema. The conditions are ovn-controller's:
of ports, flows and the like it asks for what is on its own datapaths, and nothing else. With
`ovn-monitor-all` it asks for everything, which is what no `View` stands for.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

DATABASE = "OVN_Southbound"
MONITOR_ID = ["monid", DATABASE]
ZERO_ID = "00000000-0000-0000-0000-000000000000"

SERVER_SCHEMA = b'{"id":"s","method":"get_schema","params":["_Server"]}'
SERVER_MONITOR = (
    b'{"id":"d","method":"monitor_cond","params":["_Server",["monid","_Server"],{"Database":'
    b'[{"columns":["name","model","connected","leader","schema","cid","index"]}]}]}'
)
CHANGE_AWARE = b'{"id":"a","method":"set_db_change_aware","params":[true]}'

_NOT_MONITORED = {"Connection"}
_NOT_READ = {
    "Chassis_Private": {"external_ids"},
    "Logical_Flow": {"external_ids"},
    "Port_Binding": {"external_ids"},
}
"""The columns in which an ovn-controller has no interest."""

_ROLES = ("patch", "chassisredirect", "external")  # types of ports that concern every hypervisor

Schema = dict[str, Any]
Where = list[Any]


@dataclass(frozen=True)
class View:
    """What a hypervisor knows of itself: names and uuids, by which it asks for its part."""

    name: str
    chassis: str
    datapaths: Sequence[str]
    ports: Sequence[str]


def _any_of(column: str, values: Iterable[Any], function: str = "==") -> Where:
    return [[column, function, value] for value in values]


def _datapaths(view: View) -> list[Any]:
    return [["uuid", datapath] for datapath in view.datapaths]


def _port_binding(view: View) -> Where:
    here = ["uuid", view.chassis]
    gateways = (["map", [[f"{kind}gateway-chassis", view.name]]] for kind in ("l2", "l3"))
    return [
        *_any_of("type", _ROLES),
        ["chassis", "==", here],
        ["requested_chassis", "==", here],
        *_any_of("options", gateways, "includes"),
        *_any_of("logical_port", view.ports),
        *_any_of("parent_port", view.ports),
        *_any_of("datapath", _datapaths(view)),
    ]


def _on_my_datapaths(view: View) -> Where:
    return _any_of("datapath", _datapaths(view))


def _of_my_chassis(view: View) -> Where:
    return [["chassis", "==", ["uuid", view.chassis]]]


CONDITIONS: dict[str, Callable[[View], Where]] = {
    "Chassis_Private": lambda view: [["name", "==", view.name]],
    "Chassis_Template_Var": lambda view: [["chassis", "==", view.name]],
    "Controller_Event": _of_my_chassis,
    "DNS": lambda view: _any_of("datapaths", _datapaths(view), "includes"),
    "IGMP_Group": _of_my_chassis,
    "IP_Multicast": _on_my_datapaths,
    "Logical_Flow": lambda view: [
        *_any_of("logical_datapath", _datapaths(view)),
        ["logical_dp_group", "!=", ["set", []]],
    ],
    "MAC_Binding": _on_my_datapaths,
    "Multicast_Group": _on_my_datapaths,
    "Port_Binding": _port_binding,
}
"""The condition of each table that is not monitored as a whole."""


class Monitors:
    """The requests of ovn-controllers to a server whose schema of the Southbound is `schema`."""

    def __init__(self, schema: Schema) -> None:
        self._columns = {
            table: sorted(members["columns"].keys() - _NOT_READ.get(table, set()))
            for table, members in schema["tables"].items()
            if table not in _NOT_MONITORED
        }

    def request(self, view: View | None, last_id: str) -> bytes:
        """The "monitor_cond_since" that resumes at the transaction `last_id`."""
        tables: dict[str, list[Any]] = {}
        for table, columns in self._columns.items():
            tables[table] = [{"columns": columns}]
            if view is not None and table in CONDITIONS:
                tables[table][0]["where"] = self._where(table, view)
        return _encode("m", "monitor_cond_since", [DATABASE, MONITOR_ID, tables, last_id])

    def change(self, view: View) -> bytes:
        """The "monitor_cond_change" to `view`."""
        tables = {
            table: [{"where": self._where(table, view)}]
            for table in CONDITIONS
            if table in self._columns
        }
        return _encode("c", "monitor_cond_change", [MONITOR_ID, MONITOR_ID, tables])

    def _where(self, table: str, view: View) -> Where:
        """The clauses of `table`, but for columns that this schema does not have."""
        columns = self._columns[table]
        return [clause for clause in CONDITIONS[table](view) if clause[0] in columns] or [False]


def _encode(request_id: str, method: str, params: list[Any]) -> bytes:
    return orjson.dumps({"id": request_id, "method": method, "params": params})
