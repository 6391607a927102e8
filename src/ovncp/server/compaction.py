"""Compaction of the databases' logs: on demand, and by itself (ovsdb-server(1), "compact").

A log is due at the earliest some ten minutes after the last time, if a hundred transactions came
since then and the file is both large and twice what it was; after a day, if anything came at all.
"""

import asyncio
import ctypes
import logging
import random

from ovncp.log.base import Log, LogError
from ovncp.log.file import FileLog
from ovncp.server.clock import Clock
from ovncp.server.coverage import COUNTERS, define
from ovncp.server.perf_counter import JOBS
from ovncp.server.runner import Runner

_LOG = logging.getLogger("ovncp.ovsdb_server")

define("compaction_failed")

_MINUTE_MSEC = 60_000
_DAY_MSEC = 24 * 60 * _MINUTE_MSEC
_MIN_ENTRIES = 100
_LARGE_BYTES = 10 << 20


class Schedule:
    """The times for one log. All times are in milliseconds on the server's clock."""

    def __init__(self, now_msec: int) -> None:
        self.restart(now_msec)

    def restart(self, now_msec: int, *, failed: bool = False) -> None:
        """Count from now, when a compaction is over; one that failed is tried again sooner."""
        least = _MINUTE_MSEC if failed else 10 * _MINUTE_MSEC
        # Servers that were started together must not all compact together.
        self._earliest = now_msec + least + random.randrange(least)
        self._latest = now_msec + _DAY_MSEC

    def is_due(self, log: Log, now_msec: int) -> bool:
        """Whether to compact `log` now. Only files are; other engines do it themselves."""
        if now_msec < self._earliest or not isinstance(log, FileLog):
            return False
        file = log.file
        n_entries = file.next_index - 1 - file.snapshot_index
        if now_msec >= self._latest:
            return n_entries > 0
        grew_lots = file.size > _LARGE_BYTES and file.size / 2 > file.base_size
        return n_entries >= _MIN_ENTRIES and grew_lots


class Compaction:
    """Compacts one log at a time. `trims_memory`: give back to the system what that leaves free.

    `latest` has by database when it was compacted last, in milliseconds since the epoch, and how
    many nanoseconds that took.
    """

    def __init__(self, clock: Clock) -> None:
        self.trims_memory = False
        self.latest: dict[str, tuple[int, int]] = {}
        self._clock = clock
        self._schedules: dict[Runner, Schedule] = {}
        self._turn = asyncio.Lock()

    def add(self, runner: Runner) -> None:
        """Compact the log of `runner` from now on when it is due."""
        self._schedules[runner] = Schedule(self._clock.now_msec())

    def remove(self, runner: Runner) -> None:
        """Forget `runner`."""
        self._schedules.pop(runner, None)

    async def compact(self, runner: Runner) -> None:
        """Compact the log of `runner` now. Raises LogError."""
        async with self._turn:
            schedule = self._schedules.get(runner)
            if schedule is None:
                raise LogError(f"{runner.name}: the database was removed")
            failed = True
            started = JOBS.start()
            try:
                await runner.compact()
                failed = False
            finally:
                COUNTERS["compaction_failed"] += failed
                schedule.restart(self._clock.now_msec(), failed=failed)
            self.latest[runner.name] = self._clock.wall_msec(), JOBS.finish("compact", started)
        if self.trims_memory:
            # It takes a while for a large heap.
            await asyncio.to_thread(ctypes.CDLL(None).malloc_trim, 0)

    async def compact_what_is_due(self) -> None:
        """Compact the logs whose time has come; a failure is logged."""
        for runner, schedule in list(self._schedules.items()):
            if runner.log is None or not schedule.is_due(runner.log, self._clock.now_msec()):
                continue
            try:
                await self.compact(runner)
            except LogError as error:
                _LOG.info("%s", error)
