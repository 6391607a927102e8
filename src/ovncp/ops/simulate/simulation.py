"""One run from its beginning to its end: rows, hypervisors, writes, a storm, and nothing left.

The parts can be had one by one, for a benchmark that wants only some of them.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, replace

from ovncp.follow.link import Connect
from ovncp.ops.client import Client
from ovncp.ops.simulate.ledger import Ledger
from ovncp.ops.simulate.monitors import DATABASE, Monitors
from ovncp.ops.simulate.network import Network, Northbound, Progress, Southbound
from ovncp.ops.simulate.plan import Plan
from ovncp.ops.simulate.process import Meter, family, server_of
from ovncp.ops.simulate.report import Arrival, Report, Run, Spread
from ovncp.ops.simulate.series import Series
from ovncp.ops.simulate.swarm import Swarm
from ovncp.ops.simulate.writer import Writer

_POLL_SEC = 0.005
_AWAY_SEC = 1.0
_LEAST_AWAY_WRITES = 10.0


@dataclass(frozen=True)
class Load:
    """What is done with a `Plan`. Times are in seconds; an interval of 0 is never.

    `patience` is how long deliveries may take to arrive after the last write.
    """

    writes_per_second: float = 100.0
    duration: float = 10.0
    update_interval: float = 10.0
    replug_interval: float = 60.0
    storm: bool = False
    keep: bool = False
    patience: float = 60.0


@dataclass(frozen=True)
class Endpoints:
    """How to reach the databases; `northbound` None is to do without. `pid` is the server's."""

    target: str
    southbound: Connect
    northbound: Connect | None = None
    pid: int | None = None


async def clean(endpoints: Endpoints, progress: Progress) -> int:
    """Delete what any run left; the number of rows. Raises Refusal and OSError."""
    async with _network(endpoints, progress) as network:
        return await network.remove(None)


@contextlib.asynccontextmanager
async def _network(endpoints: Endpoints, progress: Progress) -> AsyncIterator[Network]:
    southbound = Client(endpoints.southbound)
    clients = [southbound]
    network: Network = Southbound(southbound, progress)
    if endpoints.northbound is not None:
        clients.append(Client(endpoints.northbound))
        network = Northbound(clients[1], southbound, progress)
    try:
        for client in clients:
            await client.open()
        yield network
    finally:
        for client in clients:
            client.close()


class Simulation:
    """A run against one server. `stopping` ends the load early."""

    def __init__(self, endpoints: Endpoints, plan: Plan, load: Load, progress: Progress) -> None:
        self.plan = plan
        self.load = load
        self.stopping = asyncio.Event()
        self.ledger = Ledger(plan.key, plan.watchers)
        self.swarm: Swarm
        self.writer: Writer
        self._endpoints = endpoints
        self._progress = progress

    async def run(self) -> Report:
        """All of it. Raises Refusal and OSError, and leaves no rows then either."""
        async with self.opened():
            own = Meter([os.getpid()])
            connected = await self.connect()
            server = self.server_meter()
            series = Series(self.ledger, self.swarm, self.writer, server)
            run = await self.work(series)
            storm = await self.storm() if self.load.storm and not self.stopping.is_set() else None
            return Report(
                target=self._endpoints.target,
                plan=asdict(self.plan) | asdict(self.load),
                connect=connected,
                run=run,
                storm=storm,
                server=None if server is None else server.usage(),
                generator=own.usage(),
                generator_stall_ms=series.longest_stall * 1e3,
                seconds=series.seconds,
            )

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The rows are there, and the CMS is connected; afterwards all are gone."""
        try:
            async with _network(self._endpoints, self._progress) as network:
                await self._build(network)
            yield
        finally:
            await self._close()

    async def _build(self, network: Network) -> None:
        plan, endpoints = self.plan, self._endpoints
        rows = await network.build(plan)
        client = Client(endpoints.southbound)
        await client.open()
        schema = await client.call("get_schema", [DATABASE])
        client.close()
        self.swarm = Swarm(plan, endpoints.southbound, Monitors(schema), self.ledger)
        self.swarm.populate(rows.chassis, rows.private, rows.datapaths, rows.ports)
        cms = endpoints.northbound or endpoints.southbound
        self.writer = Writer(plan, cms, self.ledger, rows.table, rows.written)
        await self.writer.open()

    async def _close(self) -> None:
        if hasattr(self, "writer"):
            await self.swarm.leave()
            await self.writer.close()
        if self.load.keep:
            return
        async with _network(self._endpoints, self._progress) as network:
            await network.remove(self.plan.run)

    def server_meter(self) -> Meter | None:
        """What measures the server, if it is on this machine."""
        pid = self._endpoints.pid
        if pid is None:
            transport = self.swarm.a_transport
            pid = None if transport is None else server_of(transport)
        return None if pid is None else Meter(family(pid))

    async def connect(self) -> Arrival:
        """All hypervisors connect at once."""
        self._progress(f"{self.plan.hypervisors:,} hypervisors connect")
        return await self.swarm.arrive()

    async def work(self, series: Series) -> Run:
        """Writes at the load's rate, while the hypervisors do what they do."""
        load, swarm = self.load, self.swarm
        tasks = [
            asyncio.ensure_future(swarm.work(load.update_interval, load.replug_interval)),
            asyncio.ensure_future(series.record(self._show)),
        ]
        start, n_bytes, disconnects = time.perf_counter(), swarm.bytes, swarm.disconnects
        try:
            await self.writer.pace(load.writes_per_second, load.duration, self.stopping)
            seconds = time.perf_counter() - start
            await self.drain()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._run(start, seconds, swarm.bytes - n_bytes, swarm.disconnects - disconnects)

    def _show(self, words: str) -> None:
        load = self.load
        self._progress(f"{load.duration:g} s at {load.writes_per_second:,g} writes/s: {words}")

    async def drain(self) -> None:
        """Wait until all that was written is answered and delivered, or patience is over."""
        deadline = time.perf_counter() + self.load.patience
        while self.ledger.outstanding or self.writer.unanswered:
            if time.perf_counter() > deadline:
                return
            await asyncio.sleep(_POLL_SEC)

    async def storm(self, restart: Callable[[], Awaitable[None]] | None = None) -> Arrival:
        """All hypervisors leave, miss some writes, and come back at once.

        `restart` is awaited before they do.
        """
        self._progress("all hypervisors are away")
        await self.swarm.leave()
        rate = max(self.load.writes_per_second, _LEAST_AWAY_WRITES)
        await self.writer.pace(rate, _AWAY_SEC, self.stopping)
        await self.writer.answers(self.load.patience)
        if restart is not None:
            await restart()
        self._progress(f"{self.plan.hypervisors:,} hypervisors come back")
        arrival = await self.swarm.arrive()
        await self.drain()
        return replace(arrival, lost=self.ledger.outstanding)

    def _run(self, start: float, seconds: float, n_bytes: int, disconnects: int) -> Run:
        ledger, writer, swarm = self.ledger, self.writer, self.swarm
        busy = max(ledger.last_delivery - start, seconds, 1e-9)
        return Run(
            seconds=seconds,
            writes=writer.writes,
            failed=writer.failed,
            failure=writer.failure,
            writes_per_second=writer.writes / max(seconds, 1e-9),
            answered=Spread.of(writer.answered),
            expected=ledger.expected,
            delivered=ledger.delivered,
            merged=ledger.merged,
            lost=ledger.outstanding,
            deliveries_per_second=ledger.delivered / busy,
            delivery=Spread.of(ledger.latencies),
            drain_seconds=max(0.0, ledger.last_delivery - writer.last_write),
            bytes=n_bytes,
            bytes_per_second=n_bytes / busy,
            hypervisor_writes=swarm.writes,
            hypervisor_writes_failed=swarm.refused_writes,
            condition_changes=swarm.condition_changes,
            disconnects=disconnects,
        )
