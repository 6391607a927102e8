"""What happens second by second, and how long this program was itself not listening."""

import asyncio
import time
from collections.abc import Callable

from ovncp.ops.simulate.ledger import Ledger
from ovncp.ops.simulate.process import Meter
from ovncp.ops.simulate.report import Second, Spread
from ovncp.ops.simulate.swarm import Swarm
from ovncp.ops.simulate.writer import Writer

_TICK_SEC = 0.01


class Series:
    """The seconds of a run so far; `longest_stall` is in seconds."""

    def __init__(self, ledger: Ledger, swarm: Swarm, writer: Writer, server: Meter | None) -> None:
        self.seconds: list[Second] = []
        self.longest_stall = 0.0
        self._ledger = ledger
        self._swarm = swarm
        self._writer = writer
        self._server = server

    async def record(self, show: Callable[[str], None]) -> None:
        """Go on for ever; `show` is told of each second."""
        start = last = time.perf_counter()
        before = self._counts()
        while True:
            tick = time.perf_counter()
            await asyncio.sleep(_TICK_SEC)
            now = time.perf_counter()
            self.longest_stall = max(self.longest_stall, now - tick - _TICK_SEC)
            if now - last >= 1.0:
                counts = self._counts()
                self.seconds.append(self._second(now - start, now - last, before, counts))
                last, before = now, counts
                show(_words(self.seconds[-1], self._ledger.outstanding))

    def _counts(self) -> tuple[int, int, int, int]:
        ledger = self._ledger
        return self._writer.writes, ledger.delivered, self._swarm.bytes, len(ledger.latencies)

    def _second(
        self,
        at: float,
        length: float,
        before: tuple[int, int, int, int],
        counts: tuple[int, int, int, int],
    ) -> Second:
        rates = [(now - then) / length for now, then in zip(counts, before, strict=True)]
        spread = Spread.of(self._ledger.latencies[before[3] :])
        cpu, resident = (None, None) if self._server is None else self._server.sample()
        return Second(
            at=at,
            writes=rates[0],
            deliveries=rates[1],
            bytes=rates[2],
            p50_ms=None if spread is None else spread.p50,
            p99_ms=None if spread is None else spread.p99,
            server_cpu=cpu,
            server_bytes=resident,
        )


def _words(second: Second, outstanding: int) -> str:
    latency = "" if second.p99_ms is None else f", p99 {second.p99_ms:.0f} ms"
    server = ""
    if second.server_cpu is not None and second.server_bytes is not None:
        server = f", server {second.server_cpu:.0%} {second.server_bytes / 1e6:,.0f} MB"
    behind = f", {outstanding:,} to come" if outstanding > second.deliveries else ""
    return f"{second.at:.0f} s, {second.deliveries:,.0f} deliveries/s{latency}{server}{behind}"
