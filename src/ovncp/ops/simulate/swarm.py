"""All hypervisors of a run: they connect, stay, write what is their own, and come back when lost.

An ovn-controller reports from time to time that it is up to date (`nb_cfg` of its Chassis_Private),
writes to its ports, and has other ports plugged into it, which changes what it asks for.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from ovncp.follow.link import Connect
from ovncp.ops.refusal import Refusal
from ovncp.ops.simulate.hypervisor import Hypervisor
from ovncp.ops.simulate.ledger import Ledger
from ovncp.ops.simulate.monitors import Monitors, View
from ovncp.ops.simulate.plan import Plan
from ovncp.ops.simulate.report import Arrival, Spread

_FIRST_PAUSE_SEC = 0.05
_LONGEST_PAUSE_SEC = 1.0

_WRITE = (
    b'{"id":"w","method":"transact","params":["OVN_Southbound",{"op":"update","table":"%b",'
    b'"where":[["_uuid","==",["uuid","%b"]]],"row":{%b}},'
    b'{"op":"comment","comment":"ovn-controller"}]}'
)


class Swarm:
    """The hypervisors of `plan`, given the uuids of their rows, by number.

    `bytes` is what all of them received, `refused` how often a connection was refused.
    """

    def __init__(self, plan: Plan, connect: Connect, monitors: Monitors, ledger: Ledger) -> None:
        self.plan = plan
        self.monitors = monitors
        self.ledger = ledger
        self.bytes = 0
        self.refused = 0
        self.refused_writes = 0
        self.disconnects = 0
        self.writes = 0
        self.condition_changes = 0
        self.hypervisors: list[Hypervisor] = []
        self._connect = connect
        self._private: list[str] = []
        self._ports: list[str] = []
        self._fill_datapaths: list[str] = []
        self._awaited: set[Hypervisor] = set()
        self._started = 0.0
        self._times: list[float] = []
        self._all_settled: asyncio.Future[None] | None = None
        self._returning: set[asyncio.Task[None]] = set()

    def populate(
        self, chassis: list[str], private: list[str], datapaths: list[str], ports: list[str]
    ) -> None:
        """Make the hypervisors whose rows have these uuids."""
        plan = self.plan
        self._private, self._ports = private, ports
        self._fill_datapaths = datapaths[plan.n_datapaths :]
        for number in range(plan.hypervisors):
            view = None
            if not plan.whole_table:
                mine = [datapaths[datapath] for datapath in plan.datapaths_of(number)]
                names = [plan.name("port", port) for port in plan.ports_of(number)]
                view = View(plan.name("hv", number), chassis[number], mine, names)
            hypervisor = Hypervisor(number, self, view)
            if view is not None:
                hypervisor.first_view = replace(view, datapaths=(), ports=())
            self.hypervisors.append(hypervisor)

    # Connecting

    async def arrive(self) -> Arrival:
        """All connect at once, and find their part of the database. Raises Refusal."""
        n_bytes, refused, disconnects = self.bytes, self.refused, self.disconnects
        self._awaited, self._times = set(self.hypervisors), []
        self._all_settled = asyncio.get_running_loop().create_future()
        self._started = time.perf_counter()
        for hypervisor in self.hypervisors:
            hypervisor.is_leaving = False
            self._come(hypervisor, 0.0)
        if self.hypervisors:
            await self._all_settled
        seconds = time.perf_counter() - self._started
        self._all_settled = None
        return Arrival(
            clients=len(self.hypervisors),
            seconds=seconds,
            each=Spread.of(self._times) or Spread(0, 0.0, 0.0, 0.0),
            found=sum(hypervisor.found for hypervisor in self.hypervisors),
            bytes_of_most=max((each.greeting_bytes for each in self.hypervisors), default=0),
            bytes=self.bytes - n_bytes,
            refused=self.refused - refused,
            disconnects=self.disconnects - disconnects,
        )

    async def leave(self) -> None:
        """All disconnect at once."""
        returning = list(self._returning)
        for task in returning:
            task.cancel()
        await asyncio.gather(*returning, return_exceptions=True)
        for hypervisor in self.hypervisors:
            hypervisor.leave()
        await asyncio.sleep(0)

    @property
    def a_transport(self) -> asyncio.BaseTransport | None:
        """Somebody's connection, by which the server can be found."""
        return next(filter(None, (each.transport for each in self.hypervisors)), None)

    def settled(self, hypervisor: Hypervisor) -> None:
        """Told by each hypervisor when it has found its part."""
        if self._all_settled is None or hypervisor not in self._awaited:
            return
        self._times.append(time.perf_counter() - self._started)
        self._awaited.remove(hypervisor)
        if not self._awaited and not self._all_settled.done():
            self._all_settled.set_result(None)

    def lost(self, hypervisor: Hypervisor) -> None:
        """Told by each hypervisor whose connection ended."""
        self.disconnects += 1
        self._come(hypervisor, _FIRST_PAUSE_SEC)

    def refuse(self, reason: str) -> None:
        """Told by a hypervisor whose monitor the server does not accept."""
        if self._all_settled is not None and not self._all_settled.done():
            self._all_settled.set_exception(Refusal(f"a monitor was refused: {reason}"))

    def _come(self, hypervisor: Hypervisor, pause: float) -> None:
        task = asyncio.get_running_loop().create_task(self._connect_one(hypervisor, pause))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _connect_one(self, hypervisor: Hypervisor, pause: float) -> None:
        while True:
            if pause:
                await asyncio.sleep(pause)
            try:
                await self._connect(lambda: hypervisor)
            except OSError:
                # Too many at once, or the server restarts: as a real one, it comes again.
                self.refused += 1
                pause = min(max(2 * pause, _FIRST_PAUSE_SEC), _LONGEST_PAUSE_SEC)
            else:
                return

    # What hypervisors do by themselves

    async def work(self, update_sec: float, replug_sec: float) -> None:
        """Go on for ever: each writes every `update_sec`, and is plugged every `replug_sec`.

        They take turns, so that the load is even. 0 is never.
        """
        chores = [
            self._take_turns(chore, seconds)
            for chore, seconds in ((self._write, update_sec), (self._replug, replug_sec))
            if seconds
        ]
        await asyncio.gather(*chores)

    async def _take_turns(self, chore: Callable[[Hypervisor, int], None], seconds: float) -> None:
        done, start, n = 0, time.perf_counter(), len(self.hypervisors)
        while True:
            due = int((time.perf_counter() - start) * n / seconds)
            for turn in range(done, due):
                hypervisor = self.hypervisors[turn % n]
                if hypervisor.is_settled:
                    chore(hypervisor, turn // n)
            done = due
            await asyncio.sleep(max(0.01, (due + 1) * seconds / n + start - time.perf_counter()))

    def _write(self, hypervisor: Hypervisor, turn: int) -> None:
        """Report `nb_cfg`, and whether a port is up."""
        report = b'"nb_cfg":%d,"nb_cfg_timestamp":%d' % (turn + 1, time.time_ns() // 1_000_000)
        writes = [_WRITE % (b"Chassis_Private", self._private[hypervisor.number].encode(), report)]
        ports = self.plan.ports_of(hypervisor.number)
        if ports:
            uuid = self._ports[ports[turn % len(ports)]]
            up = b'"up":%b' % (b"false" if turn // len(ports) % 2 == 0 else b"true")
            writes.append(_WRITE % (b"Port_Binding", uuid.encode(), up))
        hypervisor.send(*writes)
        hypervisor.unanswered += len(writes)
        self.writes += len(writes)

    def _replug(self, hypervisor: Hypervisor, turn: int) -> None:
        """Plug or unplug one more port, on a datapath that nobody writes to."""
        view = hypervisor.view
        if view is None:
            return
        if turn % 2 == 0:
            ports = [*view.ports, self.plan.name("guest", hypervisor.number)]
            datapaths = list(view.datapaths)
            if self._fill_datapaths:
                datapaths.append(self._fill_datapaths[turn % len(self._fill_datapaths)])
            hypervisor.view = replace(view, datapaths=datapaths, ports=ports)
        else:
            n_ports, n_datapaths = self.plan.ports, self.plan.datapaths
            hypervisor.view = replace(
                view, datapaths=view.datapaths[:n_datapaths], ports=view.ports[:n_ports]
            )
        assert hypervisor.view is not None
        hypervisor.send(self.monitors.change(hypervisor.view))
        self.condition_changes += 1
