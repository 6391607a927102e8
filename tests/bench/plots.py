"""`python -m tests.bench.plots`: how cost grows with clients and with rows, as docs/img/*.png.

A server that took longer than `--patience` for a point is spared the greater ones, so that all
takes some ten minutes on a quiet machine. One that needs GIVE_UP_SECONDS for its clients has none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import scale
from tests.bench.cases import FULL, dump
from tests.bench.large import memory, opening
from tests.bench.scale import served, simulated
from tests.servers import Server

from ovncp.ops.simulate.plot import require_matplotlib
from ovncp.ops.simulate.report import Spread

IMAGES = Path(__file__).parents[2] / "docs" / "img"
CLIENTS = (10, 100, 1_000, 5_000)
ROWS = (1_000, 10_000, 100_000, 250_000)
KINDS = {"c": "C", "ovncp": "ovncp"}

RATE = 200
SECONDS = 3.0
HYPERVISORS = 20
GIVE_UP_SECONDS = 100

Point = dict[str, float]
Lines = dict[str, dict[int, Point]]


@dataclass(frozen=True)
class Picture:
    """One file: a panel for each figure that `measure(kind, number)` gives, over `numbers`."""

    title: str
    numbers: tuple[int, ...]
    measure: Callable[[str, int], Point]


def with_clients(kind: str, clients: int) -> Point:
    """What conditional hypervisors cost, of whom each update concerns the same number."""

    async def story(server: Server) -> Point:
        plan = {"hypervisors": clients, "ports": 4}
        async with simulated(server, plan, {}) as simulation, asyncio.timeout(GIVE_UP_SECONDS):
            connected = await simulation.connect()
            meter = simulation.server_meter()
            assert meter is not None
            await simulation.writer.pace(RATE, SECONDS, asyncio.Event())
            await simulation.drain()
            spread, usage = Spread.of(simulation.ledger.latencies), meter.usage()
            assert spread is not None
            back = await simulation.storm()
            return {
                "all connect at once, s": connected.seconds,
                "all come back at once, s": back.seconds,
                f"p99 of {RATE} updates/s, ms": spread.p99,
                "memory, MB": usage.max_bytes / 1e6,
            }

    point: Point = served(kind, replace(scale.FULL, fleet=clients), story)
    return point


def with_rows(kind: str, rows: int) -> Point:
    """What rows cost that nobody writes to."""
    return {
        "opening the file, s": opening(kind, rows) / 1e3,
        "memory, MB": memory(kind, rows),
        "one client's first dump, s": dump(kind, replace(FULL, dump_rows=rows), 1)[0],
        "updates among them, per second": update_rate(kind, rows),
    }


def update_rate(kind: str, rows: int) -> float:
    async def story(server: Server) -> float:
        plan = {"hypervisors": HYPERVISORS, "fill": rows}
        async with simulated(server, plan, {}) as simulation:
            await simulation.connect()
            start = time.perf_counter()
            simulation.writer.burst(FULL.scale.updates)
            await simulation.drain()
            return FULL.scale.updates / (simulation.ledger.last_delivery - start)

    return float(served(kind, scale.FULL, story))


PICTURES = {
    "clients": Picture("conditional hypervisors", CLIENTS, with_clients),
    "rows": Picture("Port_Bindings", ROWS, with_rows),
}


def measured(picture: Picture, most: int, patience: float) -> Lines:
    """All points of all kinds, up to the number `most`."""
    lines: Lines = {kind: {} for kind in KINDS}
    for kind, points in lines.items():
        for number in picture.numbers:
            if number > most:
                break
            if sys.stderr.isatty():
                print(f"\r\033[K{picture.title}: {kind}, {number:,}", end="", file=sys.stderr)
            start = time.perf_counter()
            with contextlib.suppress(TimeoutError):
                points[number] = picture.measure(kind, number)
            if time.perf_counter() - start > patience:
                break
    return lines


def draw(picture: Picture, lines: Lines, path: Path) -> None:
    pyplot = require_matplotlib()
    titles = list(next(iter(lines["ovncp"].values())))
    figure, axes = pyplot.subplots(2, 2, figsize=(8, 5.5), layout="constrained")
    for axis, title in zip(axes.flat, titles, strict=True):
        for kind, points in lines.items():
            values = [point[title] for point in points.values()]
            axis.plot(list(points), values, marker="o", markersize=3, label=KINDS[kind])
        axis.set_title(title, fontsize="medium")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.set_xlabel(picture.title)
    axes.flat[0].legend()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plots", description=__doc__)
    parser.add_argument("--only", choices=PICTURES, help="one picture")
    parser.add_argument("--most", type=int, default=max(*CLIENTS, *ROWS), metavar="N",
                        help="no point beyond so many clients or rows")  # fmt: skip
    parser.add_argument("--patience", type=float, default=30, metavar="SECONDS",
                        help="the longest that a point may take (default: 30)")  # fmt: skip
    parser.add_argument("--directory", type=Path, default=IMAGES, help="where to (docs/img)")
    chosen = parser.parse_args()
    chosen.directory.mkdir(parents=True, exist_ok=True)
    for name, picture in PICTURES.items():
        if chosen.only in (None, name):
            lines = measured(picture, chosen.most, chosen.patience)
            draw(picture, lines, chosen.directory / f"{name}.png")
            print(json.dumps({name: lines}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
