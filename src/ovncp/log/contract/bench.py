"""A case's bench: one new log, and what a case may do to it beyond the interface."""

from __future__ import annotations

import contextlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import replace

from ovncp.log.base import Log, LogError
from ovncp.log.contract.wire import Wire
from ovncp.log.location import Location
from ovncp.log.registry import engine, open_log

SCHEMA = b'{"name":"T","version":"1.0.0","tables":{}}'


class Bench:
    """A new log, and `log`, an open handle to it."""

    log: Log


class LossyBench(Bench, ABC):
    """One that can lose an answer."""

    @abstractmethod
    def lose_next_answer(self) -> None:
        """Have the answer to the next append of `log` be lost on its way."""


class EngineBench(Bench):
    """A log on an engine that is shared, and reached over TCP; others can open its `location`."""

    def __init__(self, location: Location):
        self.location = location.url()
        self._place = location
        self._opened = contextlib.AsyncExitStack()

    async def open(self) -> Log:
        """A further handle."""
        log = await open_log(self.location)
        self._opened.push_async_callback(log.close)
        return log

    async def open_by_wire(self) -> tuple[Log, Wire]:
        """A further handle, and the wire between it and the engine."""
        wire = Wire(self._place.hosts)
        hosts = await wire.start()
        self._opened.push_async_callback(wire.close)
        log = await open_log(replace(self._place, hosts=hosts).url())
        self._opened.push_async_callback(log.close)
        return log, wire

    async def close(self) -> None:
        """Close all that was opened."""
        await self._opened.aclose()


@contextlib.asynccontextmanager
async def engine_bench(location: str) -> AsyncIterator[EngineBench]:
    """A bench for an engine: a database of a name of its own, beside the one of `location`."""
    place = Location.parse(location).with_database(f"contract_{secrets.token_hex(4)}")
    if not all(host.rpartition(":")[2].isdigit() for host in place.hosts):
        raise LogError(f"{place}: the contract suite needs the port of each host")
    bench = EngineBench(place)
    await engine(bench.location).create(bench.location, SCHEMA)
    try:
        bench.log = await bench.open()
        yield bench
    finally:
        await bench.close()
        await engine(bench.location).drop(bench.location)
