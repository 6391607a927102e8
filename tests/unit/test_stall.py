"""The watch over the loop: what stops the loop is seen, and what does not is not."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import time
from collections.abc import Iterator

import pytest

from ovncp.server.coverage import COUNTERS
from ovncp.server.perf_counter import JOBS
from ovncp.server.stall import PERIOD_SECONDS, STALL_NS, LatestMinute, StallWatch

SECOND = 10**9


@pytest.fixture
async def watch() -> Iterator[StallWatch]:
    JOBS.clear()
    watch = StallWatch()
    watch.start()
    await asyncio.sleep(2 * PERIOD_SECONDS)
    yield watch
    watch.close()


async def test_a_stall_is_measured_and_counted(watch: StallWatch) -> None:
    before = COUNTERS["loop_stall"]
    time.sleep(2 * STALL_NS / 1e9)
    await asyncio.sleep(2 * PERIOD_SECONDS)
    # It began between two looks, so that of it one period at most is not seen.
    least = 2 * STALL_NS - int(PERIOD_SECONDS * 1.1e9)
    assert watch.lateness.longest >= least and watch.longest_of_minute_ns >= least
    assert COUNTERS["loop_stall"] > before
    shown = re.fullmatch(
        r"longest stall of the last minute: ([\d.]+) ms\nlongest stall so far: ([\d.]+) ms\n"
        r"stalls of 100 ms and more: (\d+)\ngarbage collections: \d+, the longest [\d.]+ ms\n",
        watch.show(),
    )
    assert shown is not None and float(shown[2]) >= float(shown[1]) >= least / 1e6


async def test_a_second_s_stall_is_warned_of_as_c_does(
    watch: StallWatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ovncp.timeval")
    time.sleep(0.3)
    await asyncio.sleep(2 * PERIOD_SECONDS)
    quiet = [record.getMessage() for record in caplog.records]
    give_up = time.monotonic() + 60
    # On a busy machine it may have too little of a processor to be to blame.
    while len(caplog.records) == len(quiet):
        assert time.monotonic() < give_up, "no warning"
        end = time.monotonic() + 1.1
        while time.monotonic() < end:
            pass
        await asyncio.sleep(2 * PERIOD_SECONDS)
    first = caplog.records[len(quiet)]
    assert (first.name, first.levelname) == ("ovncp.timeval", "WARNING")
    match = re.fullmatch(
        r"Unreasonably long (\d+)ms poll interval \((\d+)ms user, (\d+)ms system\)",
        first.getMessage(),
    )
    assert match is not None and int(match[1]) >= 1000 and int(match[2]) > 0
    # Scripts that look for warnings know these lines, and no others of them.
    known = r"Unreasonably|(faults|disk|context switches): \d+ \w+, \d+ \w+$"
    assert all(re.match(known, record.getMessage()) for record in caplog.records)


async def test_collections_of_garbage_are_measured(watch: StallWatch) -> None:
    before = watch.pauses.count
    gc.collect()
    assert watch.pauses.count == before + 1 and watch.pauses.longest > 0


async def test_nothing_is_left_behind() -> None:
    hooks = list(gc.callbacks)
    StallWatch().close()
    watch = StallWatch()
    watch.start()
    watch.close()
    assert gc.callbacks == hooks


def test_the_latest_minute_forgets() -> None:
    minute = LatestMinute()
    for second in range(1, 200):
        minute.add(second * SECOND, 500 if second == 100 else second)
        minute.add(second * SECOND + 1, 0)
        wanted = 500 if 100 <= second < 160 else second
        assert minute.greatest(second * SECOND + 2) == wanted
    assert minute.greatest(400 * SECOND) == 0
