"""What a simulation puts into the Southbound database, and who sees which part of it.

Everything is numbered from 0 and follows from the numbers: hypervisor h has ports of its own, on
datapaths of its own and of its neighbours, so that each datapath is seen by as many hypervisors as
is wanted. Rows carry the run's tag in `external_ids`, by which they are found and deleted.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ovncp.ops.refusal import Refusal

TAG = "ovncp-simulate"
TABLES = ("Port_Binding", "Datapath_Binding", "Chassis_Private", "Chassis")
"""The tables with rows of ours, in the order in which they can be deleted."""

FILL_PER_DATAPATH = 500
_MOST_TUNNEL_KEYS = 32767  # of the ports of one datapath
_MOST_DATAPATH_KEYS = (1 << 24) - 1
_MOST_HYPERVISORS = 0xFFFF  # what the addresses of the tunnels have room for

Operation = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much of everything. `run` names the run, in four hexadecimal digits.

    `fill` is the number of Port_Bindings that nobody writes to. Raises Refusal for what a
    Southbound database cannot hold.
    """

    run: str
    hypervisors: int
    ports: int = 10
    datapaths: int = 4
    spread: int = 10
    fill: int = 0
    whole_table: bool = False

    def __post_init__(self) -> None:
        if self.hypervisors > _MOST_HYPERVISORS:
            raise Refusal(f"there can be at most {_MOST_HYPERVISORS:,} hypervisors")
        most = max(Counter(map(self.datapath_of, range(self.n_ports))).values(), default=0)
        if most > _MOST_TUNNEL_KEYS:
            raise Refusal(f"a datapath would have {most:,} ports: OVN has {_MOST_TUNNEL_KEYS:,}")

    @property
    def n_ports(self) -> int:
        """The ports of all hypervisors."""
        return self.hypervisors * self.ports

    @property
    def n_datapaths(self) -> int:
        """The datapaths that hypervisors see."""
        return max(self.datapaths, -(-self.hypervisors * self.datapaths // self.spread))

    @property
    def n_fill_datapaths(self) -> int:
        """The datapaths of the rows that nobody writes to."""
        return -(-self.fill // FILL_PER_DATAPATH)

    def datapaths_of(self, hypervisor: int) -> list[int]:
        """What a hypervisor sees."""
        first = hypervisor * self.datapaths
        return [(first + place) % self.n_datapaths for place in range(self.datapaths)]

    def ports_of(self, hypervisor: int) -> range:
        """The ports that are bound to a hypervisor."""
        return range(hypervisor * self.ports, (hypervisor + 1) * self.ports)

    def datapath_of(self, port: int) -> int:
        """The datapath of a port, one of those that its hypervisor sees."""
        hypervisor, place = divmod(port, self.ports)
        return (hypervisor * self.datapaths + place % self.datapaths) % self.n_datapaths

    @cached_property
    def watchers(self) -> list[int]:
        """How many hypervisors see each port."""
        if self.whole_table:
            return [self.hypervisors] * self.n_ports
        seen: Counter[int] = Counter()
        for hypervisor in range(self.hypervisors):
            seen.update(self.datapaths_of(hypervisor))
        return [seen[self.datapath_of(port)] for port in range(self.n_ports)]

    # Names

    @property
    def key(self) -> str:
        """The key in a port's `options` whose value says which version of the row it is."""
        return f"{TAG}-{self.run}"

    def name(self, kind: str, number: int) -> str:
        """What the row `number` of a kind is called."""
        return f"{self.key}-{kind}-{number}"

    @property
    def tags(self) -> dict[str, str]:
        """The `external_ids` of every row: of any run, and of this one."""
        return {TAG: "true", f"{TAG}-run": self.run}

    # Operations

    def datapath_rows(self, used_key: int) -> Iterator[Operation]:
        """Insert all datapaths, with tunnel keys above `used_key`. Raises Refusal."""
        number = self.n_datapaths + self.n_fill_datapaths
        if used_key + number > _MOST_DATAPATH_KEYS:
            raise Refusal(f"there is no room for {number:,} tunnel keys above {used_key:,}")
        for datapath in range(number):
            ids = self.tags | {"name": self.name("switch", datapath)}
            row = {"tunnel_key": used_key + datapath + 1, "external_ids": as_map(ids)}
            yield insert("Datapath_Binding", row)

    def hypervisor_rows(self) -> Iterator[list[Operation]]:
        """Insert each hypervisor's Chassis and Chassis_Private."""
        for hypervisor in range(self.hypervisors):
            name, tags = self.name("hv", hypervisor), as_map(self.tags)
            address = f"2001:db8:{self.run}::{hypervisor:x}"
            yield [
                insert(
                    "Encap",
                    {"type": "geneve", "ip": address, "chassis_name": name},
                    f"encap{hypervisor}",
                ),
                insert(
                    "Chassis",
                    {
                        "name": name,
                        "hostname": f"{name}.example.net",
                        "encaps": ["named-uuid", f"encap{hypervisor}"],
                        "external_ids": tags,
                        "other_config": as_map({"ovn-bridge-mappings": "", "is-vtep": "false"}),
                    },
                    f"chassis{hypervisor}",
                ),
                insert(
                    "Chassis_Private",
                    {
                        "name": name,
                        "chassis": ["named-uuid", f"chassis{hypervisor}"],
                        "external_ids": tags,
                    },
                ),
            ]

    def port_rows(self, datapaths: list[str], chassis: list[str]) -> Iterator[Operation]:
        """Insert the ports of the hypervisors, given the uuids of what they refer to."""
        tunnel_keys: Counter[int] = Counter()
        for port in range(self.n_ports):
            datapath = self.datapath_of(port)
            tunnel_keys[datapath] += 1
            row = self._port_row("port", port, datapaths[datapath], tunnel_keys[datapath])
            row["chassis"] = ["uuid", chassis[port // self.ports]]
            row["options"] = self.version(port, 0)
            yield insert("Port_Binding", row)

    def fill_rows(self, datapaths: list[str]) -> Iterator[Operation]:
        """Insert the ports that nobody writes to, given the uuids of all datapaths."""
        for port in range(self.fill):
            datapath, place = divmod(port, FILL_PER_DATAPATH)
            uuid = datapaths[self.n_datapaths + datapath]
            row = self._port_row("fill", port, uuid, place + 1)
            row["options"] = as_map({"mcast_flood_reports": "true"})
            yield insert("Port_Binding", row)

    def switches(self) -> Iterator[list[str]]:
        """The names of the ports of each logical switch, one for each datapath."""
        of_datapath: list[list[str]] = [[] for _ in range(self.n_datapaths)]
        for port in range(self.n_ports):
            of_datapath[self.datapath_of(port)].append(self.name("port", port))
        yield from of_datapath
        for first in range(0, self.fill, FILL_PER_DATAPATH):
            last = min(first + FILL_PER_DATAPATH, self.fill)
            yield [self.name("fill", port) for port in range(first, last)]

    def switch_rows(self, switch: int, ports: list[str]) -> list[Operation]:
        """Insert a logical switch and its ports into the Northbound."""
        tags, places = as_map(self.tags), range(len(ports))
        row = {
            "name": self.name("switch", switch),
            "external_ids": tags,
            "ports": ["set", [["named-uuid", f"port{switch}_{each}"] for each in places]],
        }
        own = insert("Logical_Switch", row)
        inserts = (
            insert(
                "Logical_Switch_Port",
                {"name": name, "addresses": "unknown", "external_ids": tags},
                f"port{switch}_{place}",
            )
            for place, name in zip(places, ports, strict=True)
        )
        return [own, *inserts]

    def _port_row(self, kind: str, port: int, datapath: str, tunnel_key: int) -> dict[str, Any]:
        """A row of the size that a cloud's have."""
        mac = f"0a:58:{port >> 24 & 255:02x}:{port >> 16 & 255:02x}:{port >> 8 & 255:02x}"
        address = f"{mac}:{port & 255:02x} 10.{port >> 16 & 255}.{port >> 8 & 255}.{port & 255}"
        ids = {
            "neutron:device_owner": "compute:availability-zone-one",
            "neutron:network_name": f"neutron-{datapath}",
            "neutron:revision_number": "4",
        }
        return {
            "logical_port": self.name(kind, port),
            "datapath": ["uuid", datapath],
            "tunnel_key": tunnel_key,
            "mac": address,
            "port_security": address,
            "external_ids": as_map(self.tags | ids),
            "up": True,
        }

    def version(self, port: int, version: int) -> list[Any]:
        """The `options` of a port at `version`, which `Ledger.take` finds in an update."""
        return as_map({self.key: f"~{port}~{version}~"})


def insert(table: str, row: dict[str, Any], name: str | None = None) -> Operation:
    """An insert, with a name by which the same transact refers to the row."""
    operation: Operation = {"op": "insert", "table": table, "row": row}
    return operation if name is None else operation | {"uuid-name": name}


def update(table: str, uuid: str, row: dict[str, Any]) -> Operation:
    """An update of the row `uuid`."""
    return {"op": "update", "table": table, "where": [["_uuid", "==", ["uuid", uuid]]], "row": row}


def delete(table: str, uuid: str) -> Operation:
    """The end of the row `uuid`."""
    return {"op": "delete", "table": table, "where": [["_uuid", "==", ["uuid", uuid]]]}


def select_tagged(table: str, run: str | None) -> Operation:
    """Select the uuids of a table's rows that `run` made, or any run if it is None."""
    tag = as_map({TAG: "true"} if run is None else {f"{TAG}-run": run})
    where = [["external_ids", "includes", tag]]
    return {"op": "select", "table": table, "where": where, "columns": ["_uuid"]}


def as_map(members: dict[str, str]) -> list[Any]:
    """A map as RFC 7047 section 5.1 writes it."""
    return ["map", [list(pair) for pair in members.items()]]
