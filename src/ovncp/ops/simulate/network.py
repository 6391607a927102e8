"""The rows of a run: made, and deleted again, directly or through the Northbound.

Without ovn-northd, all rows are inserted into the Southbound. With it, the CMS writes logical
switches and ports to the Northbound, and ovn-northd makes of them what hypervisors see; an
ovn-northd deletes what somebody else inserts into the Southbound.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from ovncp.ops.client import Client
from ovncp.ops.refusal import Refusal
from ovncp.ops.simulate.monitors import DATABASE
from ovncp.ops.simulate.plan import TABLES, Operation, Plan, delete, select_tagged

NORTHBOUND = "OVN_Northbound"
_DANGLING = "referential integrity violation"  # RFC 7047 section 5.2.1
_POLL_SEC = 0.5
_PATIENCE_SEC = 120.0

Progress = Callable[[str], None]


class Rows(NamedTuple):
    """The uuids of rows, by number; `written` are those that the CMS writes to, in `table`."""

    chassis: list[str]
    private: list[str]
    datapaths: list[str]
    ports: list[str]
    written: list[str]
    table: tuple[str, str]


class Network(Protocol):
    """Where the rows are made. Raises Refusal where the server does not want them."""

    async def build(self, plan: Plan) -> Rows:
        """Insert the rows."""

    async def remove(self, run: str | None) -> int:
        """Delete the rows of `run`, or of any run if it is None; how many."""


class Southbound:
    """All rows in the Southbound that `client` is connected to."""

    def __init__(self, client: Client, progress: Progress) -> None:
        self._client = client
        self._progress = progress

    async def build(self, plan: Plan) -> Rows:
        chassis, private = await self.build_chassis(plan)
        query = {"op": "select", "table": "Datapath_Binding", "where": []}
        found = await self._client.transact(DATABASE, [query | {"columns": ["tunnel_key"]}])
        used = max((row["tunnel_key"] for row in found[0]["rows"]), default=0)
        datapaths = await self._insert(plan.datapath_rows(used), "datapaths")
        try:
            ports = await self._insert(plan.port_rows(datapaths, chassis), "ports")
            await self._insert(plan.fill_rows(datapaths), "ports to fill")
        except Refusal as error:
            if _DANGLING not in str(error):
                raise
            raise Refusal(
                "somebody deletes the datapaths; where an ovn-northd works, --northbound is needed"
            ) from error
        table = (DATABASE, "Port_Binding")
        return Rows(chassis, private, datapaths, ports, ports, table)

    async def build_chassis(self, plan: Plan) -> tuple[list[str], list[str]]:
        """The uuids of each hypervisor's Chassis and Chassis_Private."""
        results = await _transact(
            self._client, DATABASE, plan.hypervisor_rows(), "hypervisors", self._progress
        )
        uuids = _uuids(results)
        return uuids[1::3], uuids[2::3]

    async def _insert(self, operations: Iterable[Operation], what: str) -> list[str]:
        groups = ([operation] for operation in operations)
        return _uuids(await _transact(self._client, DATABASE, groups, what, self._progress))

    async def remove(self, run: str | None) -> int:
        return await _remove(self._client, DATABASE, TABLES, run, self._progress)


class Northbound:
    """Switches and ports in the Northbound, and the hypervisors in the Southbound."""

    def __init__(self, northbound: Client, southbound: Client, progress: Progress) -> None:
        self._client = northbound
        self._southbound = Southbound(southbound, progress)
        self._southbound_client = southbound
        self._progress = progress

    async def build(self, plan: Plan) -> Rows:
        chassis, private = await self._southbound.build_chassis(plan)
        switches = list(plan.switches())
        groups = [plan.switch_rows(number, ports) for number, ports in enumerate(switches)]
        results = await _transact(self._client, NORTHBOUND, groups, "switches", self._progress)
        uuids = iter(_uuids(results))
        written: dict[str, str] = {}
        for names in switches:
            next(uuids)  # the switch's own
            written.update((name, next(uuids)) for name in names)
        datapaths, ports = await self._await_northd(plan, len(written))
        names = [plan.name("port", port) for port in range(plan.n_ports)]
        table = (NORTHBOUND, "Logical_Switch_Port")
        return Rows(
            chassis,
            private,
            datapaths,
            [ports[name] for name in names],
            [written[name] for name in names],
            table,
        )

    async def _await_northd(self, plan: Plan, n_ports: int) -> tuple[list[str], dict[str, str]]:
        """The uuids of the datapaths, and of the ports by name, that ovn-northd makes."""
        deadline = time.monotonic() + _PATIENCE_SEC
        query = select_tagged("Port_Binding", plan.run)
        query["columns"] = ["_uuid", "logical_port"]
        while True:
            found = await self._southbound_client.transact(DATABASE, [query])
            ports = {row["logical_port"]: row["_uuid"][1] for row in found[0]["rows"]}
            if len(ports) >= n_ports:
                break
            if time.monotonic() > deadline:
                raise Refusal(f"ovn-northd made {len(ports):,} of {n_ports:,} ports; does it run?")
            self._progress(f"ovn-northd has made {len(ports):,} of {n_ports:,} ports")
            await asyncio.sleep(_POLL_SEC)
        columns = ["_uuid", "external_ids"]
        query = {"op": "select", "table": "Datapath_Binding", "where": [], "columns": columns}
        found = await self._southbound_client.transact(DATABASE, [query])
        by_name = {_name(row): row["_uuid"][1] for row in found[0]["rows"]}
        number = plan.n_datapaths + plan.n_fill_datapaths
        return [by_name[plan.name("switch", each)] for each in range(number)], ports

    async def remove(self, run: str | None) -> int:
        switches = ("Logical_Switch",)
        n_rows = await _remove(self._client, NORTHBOUND, switches, run, self._progress)
        return n_rows + await self._southbound.remove(run)


def _name(row: dict[str, Any]) -> str:
    return str(dict(row["external_ids"][1]).get("name"))


async def _transact(
    client: Client,
    database: str,
    groups: Iterable[list[Operation]],
    what: str,
    progress: Progress,
) -> list[Any]:
    def show(number: int) -> None:
        progress(f"{what}: {number:,}")

    return await client.transact_all(database, list(groups), show)


async def _remove(
    client: Client, database: str, tables: Iterable[str], run: str | None, progress: Progress
) -> int:
    total = 0
    for table in tables:
        found = await client.transact(database, [select_tagged(table, run)])
        groups = [[delete(table, row["_uuid"][1])] for row in found[0]["rows"]]
        await _transact(client, database, groups, f"deleting from {table}", progress)
        total += len(groups)
    return total


def _uuids(results: list[Any]) -> list[str]:
    return [result["uuid"][1] for result in results]
