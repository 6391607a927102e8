"""What a run amounts to: frozen figures, in seconds and bytes, and their text."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Spread:
    """How long something took, in milliseconds, of `n` cases."""

    n: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Self | None:
        """None of nothing."""
        ordered = sorted(seconds)
        if not ordered:
            return None
        msec = (round(percentile(ordered, share) * 1e3, 3) for share in (0.5, 0.99, 1.0))
        return cls(len(ordered), *msec)

    def __str__(self) -> str:
        return f"p50 {_msec(self.p50)}, p99 {_msec(self.p99)}, longest {_msec(self.max)}"


def percentile(ordered: list[float], share: float) -> float:
    """The least of `ordered`, which is not empty, that at least `share` of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Arrival:
    """All hypervisors connecting at once.

    `found` of them resumed where they had been. A connection that was `refused`, or ended before
    the client knew its part (`disconnects`), came again. `lost` is the number of deliveries that
    never came of what they had missed.
    """

    clients: int
    seconds: float
    each: Spread
    found: int
    bytes_of_most: int
    bytes: int
    refused: int
    disconnects: int
    lost: int = 0


@dataclass(frozen=True)
class Second:
    """One second of the run, for the plot. Rates per second; `server_*` is None if elsewhere."""

    at: float
    writes: float
    deliveries: float
    bytes: float
    p50_ms: float | None
    p99_ms: float | None
    server_cpu: float | None
    server_bytes: int | None


@dataclass(frozen=True)
class Usage:
    """What processes took: `cpu` in processors, `max_bytes` of resident memory in all."""

    pids: list[int]
    cpu: float
    max_bytes: int


@dataclass(frozen=True)
class Run:
    """The writes, and the deliveries that they led to.

    `drain_seconds` is what passed between the last write and the last delivery.
    """

    seconds: float
    writes: int
    failed: int
    failure: str
    writes_per_second: float
    answered: Spread | None
    expected: int
    delivered: int
    merged: int
    lost: int
    deliveries_per_second: float
    delivery: Spread | None
    drain_seconds: float
    bytes: int
    bytes_per_second: float
    hypervisor_writes: int
    hypervisor_writes_failed: int
    condition_changes: int
    disconnects: int


@dataclass(frozen=True)
class Report:
    """All of it."""

    target: str
    plan: dict[str, Any]
    connect: Arrival
    run: Run
    storm: Arrival | None
    server: Usage | None
    generator: Usage
    generator_stall_ms: float
    seconds: list[Second]

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return asdict(self)

    @property
    def is_whole(self) -> bool:
        """Whether everybody was told of everything."""
        lost = self.run.lost or (self.storm is not None and self.storm.lost)
        return not lost and not self.run.failed

    def text(self) -> str:
        """What a person is shown."""
        return "".join(f"{name:<12}{words}\n" for name, words in self._lines())

    def _lines(self) -> Iterator[tuple[str, str]]:
        run = self.run
        yield "connected", _arrival(self.connect)
        yield "writes", f"{run.writes:,} in {run.seconds:.1f} s, {run.writes_per_second:,.0f}/s"
        if run.failed:
            yield "FAILED", f"{run.failed:,} writes, the first with: {run.failure}"
        if run.answered is not None:
            yield "answered", str(run.answered)
        yield "deliveries", _deliveries(run)
        if run.delivery is not None:
            yield "delivered", f"to the last: {run.delivery}"
        if run.lost:
            yield "LOST", f"{run.lost:,} deliveries did not come in time"
        yield "received", f"{_size(run.bytes)}, {_size(run.bytes_per_second)}/s"
        yield "hypervisors", _hypervisors(run)
        if self.storm is not None:
            yield "storm", _arrival(self.storm)
        if self.server is not None:
            yield "server", f"{self.server.cpu:.0%} CPU, {_size(self.server.max_bytes)}"
        yield "simulate", f"{self.generator.cpu:.0%} CPU, {_size(self.generator.max_bytes)}"
        if self.generator.cpu > 0.9:
            yield "", "this program was busy all the time: the figures are its own, in part"


def _arrival(arrival: Arrival) -> str:
    again = f"{arrival.found:,} resumed, " if arrival.found else ""
    lost = f"{arrival.disconnects:,} disconnected before, " if arrival.disconnects else ""
    return (
        f"{arrival.clients:,} in {arrival.seconds:.2f} s; {again}{lost}"
        f"{_size(arrival.bytes_of_most)} to the one with most"
    )


def _deliveries(run: Run) -> str:
    merged = f", {run.merged:,} merged into later ones" if run.merged else ""
    return f"{run.delivered:,}, {run.deliveries_per_second:,.0f}/s{merged}"


def _hypervisors(run: Run) -> str:
    return (
        f"{run.hypervisor_writes:,} writes of their own, "
        f"{run.condition_changes:,} changes of conditions, {run.disconnects:,} disconnected"
    )


def _msec(msec: float) -> str:
    return f"{msec:.1f} ms" if msec < 1000 else f"{msec / 1e3:.2f} s"


def _size(n_bytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes:.0f} B"
