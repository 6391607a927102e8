"""`python -m tests.bench.api`: what a node of the platform bears, on one core, with much loaded.

The node has the first core for itself; the database server and the load share the others.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from tests.bench.database import NB_SCHEMA, name

from ovncp.ovn.resources import NORTHBOUND
from platform_node import SCHEMAS, Node
from servers import Server

PORTS_PER_SWITCH = 10
SWITCHES_PER_ROUTER = 10
WATCHERS = 1_000
READERS = 16
WRITERS = 20
READS_PER_SECOND = 2_000
PAGE_ROWS = 100


def switch(number: int) -> dict[str, Any]:
    ports = range(number * PORTS_PER_SWITCH, (number + 1) * PORTS_PER_SWITCH)
    return {
        "name": f"switch-{number:05}",
        "ports": ["set", [["uuid", name("port", port)] for port in ports]],
        "external_ids": ["map", [["neutron:network_name", f"network {number}"]]],
        "other_config": ["map", [["mcast_snoop", "true"]]],
    }


def router(number: int) -> dict[str, Any]:
    switches = range(number * SWITCHES_PER_ROUTER, (number + 1) * SWITCHES_PER_ROUTER)
    return {
        "name": f"router-{number:04}",
        "ports": ["set", [["uuid", name("router port", each)] for each in switches]],
    }


def router_port(number: int) -> dict[str, Any]:
    return {
        "name": f"gateway-{number:05}",
        "mac": f"0a:59:00:00:{number >> 8 & 255:02x}:{number & 255:02x}",
        "networks": f"10.{number >> 8 & 255}.{number & 255}.1/24",
    }


def port(number: int) -> dict[str, Any]:
    """A port of a switch; the first one of each switch is that to its router."""
    mac = f"0a:58:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:00:{number & 255:02x}"
    address = f"{mac} 10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    ids = {
        "neutron:device_id": name("device", number),
        "neutron:revision_number": "4",
        "neutron:security_group_ids": name("group", number % 50),
    }
    if number % PORTS_PER_SWITCH == 0:
        options = {"router-port": f"gateway-{number // PORTS_PER_SWITCH:05}"}
        return {
            "name": f"port-{number:06}",
            "type": "router",
            "addresses": "router",
            "options": ["map", list(options.items())],
        }
    return {
        "name": f"port-{number:06}",
        "addresses": address,
        "port_security": address,
        "options": ["map", [["requested-chassis", f"hypervisor-{number % 1000}.example.net"]]],
        "external_ids": ["map", list(ids.items())],
        "up": True,
    }


def northbound(n_switches: int) -> bytes:
    """A Northbound database file with so many switches, their ports, and their routers."""
    n_ports, n_routers = n_switches * PORTS_PER_SWITCH, n_switches // SWITCHES_PER_ROUTER
    change = {
        "Logical_Router": {name("router", n): router(n) for n in range(n_routers)},
        "Logical_Router_Port": {name("router port", n): router_port(n) for n in range(n_switches)},
        "Logical_Switch": {name("switch", n): switch(n) for n in range(n_switches)},
        "Logical_Switch_Port": {name("port", n): port(n) for n in range(n_ports)},
        "_date": 1700000000000,
    }
    texts = (json.loads(NB_SCHEMA.read_text()), change)
    return b"".join(_record(json.dumps(text, separators=(",", ":")).encode()) for text in texts)


def _record(text: bytes) -> bytes:
    text += b"\n"
    return b"OVSDB JSON %d %s\n" % (len(text), hashlib.sha1(text).hexdigest().encode()) + text


class Caller:
    """One connection that asks and waits, with as little work of its own as can be."""

    def __init__(self, url: str) -> None:
        host, _, number = url.removeprefix("http://").partition(":")
        self.address = (host, int(number))
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Caller:
        self.reader, self.writer = await asyncio.open_connection(*self.address, limit=1 << 24)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def call(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The body of the answer, which has to be a success."""
        head = f"{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        head += "Content-Type: application/json\r\n\r\n" if body else "\r\n"
        self.writer.write(head.encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        lower = answer.lower()
        start = lower.index(b"content-length:") + 15
        found = await self.reader.readexactly(int(lower[start : lower.index(b"\r\n", start)]))
        if not answer.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"{method} {path}: {answer!r} {found!r}")
        return found


class Watcher(asyncio.Protocol):
    """A WebSocket's client that notes when it was told of what it waits for (RFC 6455)."""

    def __init__(self, found: Callable[[], None]) -> None:
        self._found = found
        self._read = b""
        self.wanted = b""
        self.is_open = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(
            b"GET /ws?resources=switches HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        self._read += data
        if not self.is_open.done() and b"subscribed" in self._read:
            self.is_open.set_result(None)
        if self.wanted and self.wanted in self._read:
            self._read = self.wanted = b""
            self._found()

    def watch(self, text: bytes) -> None:
        """Wait for `text`."""
        self._read, self.wanted = b"", text


Work = Callable[[Caller, int], Awaitable[object]]


@dataclass
class Figure:
    """What was measured, the goal for it, and how much of its core the node was busy with it."""

    name: str
    value: float
    unit: str
    goal: float
    core: float

    @property
    def is_met(self) -> bool:
        """A rate is to be reached, a time not to be exceeded."""
        return self.value >= self.goal if self.unit == "/s" else self.value < self.goal

    def __str__(self) -> str:
        goal = f"{'≥' if self.unit == '/s' else '<'} {self.goal:,.0f}"
        verdict = "met" if self.is_met else "MISSED"
        figure = f"{self.name:<32} {self.value:10,.1f} {self.unit:<3} {goal:>8}  {verdict:<6}"
        return f"{figure}  {self.core:4.0%} of a core"


async def closed(url: str, n_callers: int, seconds: float, work: Work) -> float:
    """How often a second `work` is done by callers each of whom waits for the answer."""
    n_done, end = 0, time.monotonic() + seconds

    async def call(number: int) -> None:
        nonlocal n_done
        async with Caller(url) as caller:
            while time.monotonic() < end:
                await work(caller, number)
                n_done += 1

    await asyncio.gather(*map(call, range(n_callers)))
    return n_done / seconds


async def paced(url: str, per_second: float, seconds: float, work: Work) -> None:
    """Do `work` so many times a second, over READERS connections."""
    interval = READERS / per_second

    async def call(number: int) -> None:
        async with Caller(url) as caller:
            start = time.monotonic() + interval * number / READERS
            for turn in range(int(seconds / interval)):
                await asyncio.sleep(max(0.0, start + turn * interval - time.monotonic()))
                await work(caller, number)

    await asyncio.gather(*map(call, range(READERS)))


async def latencies(url: str, seconds: float, work: Work) -> list[float]:
    """How many seconds each of the calls of one caller takes, one after the other."""
    found, end = [], time.monotonic() + seconds
    async with Caller(url) as caller:
        while time.monotonic() < end:
            start = time.perf_counter()
            await work(caller, 0)
            found.append(time.perf_counter() - start)
            await asyncio.sleep(0.005)
    return found


async def deliveries(
    url: str, n_watchers: int, n_changes: int, change: Callable[[str], object]
) -> list[float]:
    """How many seconds after a change each of the watchers is told of it."""
    host, _, number = url.removeprefix("http://").partition(":")
    loop = asyncio.get_running_loop()
    seen: list[float] = []
    make = partial(Watcher, lambda: seen.append(time.perf_counter()))
    watchers = [
        (await loop.create_connection(make, host, int(number)))[1] for _ in range(n_watchers)
    ]
    await asyncio.gather(*(watcher.is_open for watcher in watchers))
    found = []
    for turn in range(n_changes):
        text = f"change-{turn}-"
        for watcher in watchers:
            watcher.watch(text.encode())
        start = time.perf_counter()
        await loop.run_in_executor(None, change, text)
        async with asyncio.timeout(30):
            while len(seen) < n_watchers:
                await asyncio.sleep(0.01)
        found += [each - start for each in seen]
        seen.clear()
    for watcher in watchers:
        watcher.transport.abort()
    return found


def p99(found: list[float]) -> float:
    return statistics.quantiles(found, n=100)[98] if len(found) > 1 else found[0]


class Load:
    """What is asked of a node in front of so many switches."""

    def __init__(self, node: Node, server: Server, n_switches: int, seconds: float) -> None:
        self.url = node.url
        self.pid = node.process.pid
        self.server = server
        self.n_switches = n_switches
        self.n_ports = n_switches * PORTS_PER_SWITCH
        self.seconds = seconds
        self.random = random.Random(1)
        self.numbers = iter(range(1 << 30))
        self.page = f"/switch-ports?limit={PAGE_ROWS}"
        self.cursors: list[str] = []

    async def read_port(self, caller: Caller, _: int) -> None:
        await caller.call("GET", f"/switch-ports/port-{self.random.randrange(self.n_ports):06}")

    async def read_page(self, caller: Caller, _: int) -> None:
        await caller.call("GET", f"{self.page}&cursor={self.random.choice(self.cursors)}")

    async def create_port(self, caller: Caller, _: int) -> None:
        number = next(self.numbers)
        body = {"name": f"new-{number}", "addresses": ["unknown"], "external_ids": {"k": "v"}}
        path = f"/switches/switch-{number % self.n_switches:05}/ports"
        await caller.call("POST", path, json.dumps(body).encode())

    async def figures(self) -> list[Figure]:
        """All that is measured, one after the other."""
        measured: list[tuple[str, str, float, Callable[[], Awaitable[float]]]] = [
            ("single reads", "/s", READS_PER_SECOND, self.reads),
            ("page of 100 from within, p99", "ms", 20, self.pages_at_half_load),
            ("first page of 100, p99", "ms", 20, partial(self.wait, self.read_first_page)),
            ("first page of topology, p99", "ms", 200, partial(self.wait, self.read_topology)),
            ("an event to 1,000 clients, p99", "ms", 150, self.tell),
            ("port creations by 20 clients", "/s", 500, self.creations),
        ]
        figures = []
        for title, unit, goal, work in measured:
            before, start = self.cpu_seconds(), time.monotonic()
            value = await work()
            core = (self.cpu_seconds() - before) / (time.monotonic() - start)
            figures.append(Figure(title, value, unit, goal, core))
        return figures

    def cpu_seconds(self) -> float:
        """How long the node has computed."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def reads(self) -> float:
        return await closed(self.url, READERS, self.seconds, self.read_port)

    async def creations(self) -> float:
        return await closed(self.url, WRITERS, self.seconds, self.create_port)

    async def pages_at_half_load(self) -> float:
        reading = paced(self.url, READS_PER_SECOND / 2, self.seconds + 1, self.read_port)
        background = asyncio.create_task(reading)
        found = await latencies(self.url, self.seconds, self.read_page)
        await background
        return 1000 * p99(found)

    async def wait(self, work: Work) -> float:
        return 1000 * p99(await latencies(self.url, self.seconds / 4, work))

    async def read_first_page(self, caller: Caller, _: int) -> None:
        await caller.call("GET", f"/switches?limit={PAGE_ROWS}")

    async def read_topology(self, caller: Caller, _: int) -> None:
        await caller.call("GET", "/topology")

    async def tell(self) -> float:
        """Change switches in the database itself, once a while."""
        with self.server.client(timeout=30) as client:

            def change(text: str) -> None:
                where = [["_uuid", "==", ["uuid", name("switch", 1)]]]
                ids = ["map", [["told", text]]]
                update = {"op": "update", "table": "Logical_Switch", "where": where}
                client.transact(NORTHBOUND, {**update, "row": {"external_ids": ids}})

            n_changes = max(2, int(2 * self.seconds))
            return 1000 * p99(await deliveries(self.url, WATCHERS, n_changes, change))

    async def wait_until_loaded(self) -> None:
        """Go through all ports, and note where pages start."""
        async with Caller(self.url) as caller:
            page = json.loads(await caller.call("GET", self.page))
            while page["next"] is not None:
                self.cursors.append(page["next"])
                page = json.loads(
                    await caller.call("GET", f"{self.page}&fields=name&cursor={page['next']}")
                )


def measure(n_switches: int, seconds: float, kind: str) -> list[Figure]:
    """The figures of a node in front of a server of a kind."""
    cores = sorted(os.sched_getaffinity(0))
    others = set(cores[1:]) or set(cores)
    databases = [(nb, source) for nb, source in SCHEMAS.items()]
    databases[0] = (databases[0][0], northbound(n_switches))
    os.sched_setaffinity(0, others)
    with Server(kind, databases, patience=120) as server:
        os.sched_setaffinity(0, {cores[0]})
        with Node(server.remote, server.remote) as node:
            os.sched_setaffinity(0, others)
            load = Load(node, server, n_switches, seconds)
            uvloop.run(load.wait_until_loaded())
            try:
                return uvloop.run(load.figures())
            finally:
                print(node.log[-2000:] if "Traceback" in node.log else "", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.api", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the load")
    parser.add_argument("--kind", default="ovncp", choices=("ovncp", "c"), help="of server")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    share = 10 if chosen.quick else 1
    figures = measure(10_000 // share, 8.0 / share, chosen.kind)
    if chosen.json:
        print(json.dumps([vars(figure) for figure in figures]))
        return 0
    for figure in figures:
        print(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
