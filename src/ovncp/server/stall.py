"""How late the event loop runs, and how long garbage collections stop it (`stall/show`).

A server that does one thing at a time is as responsive as its longest thing is short. So a timer
looks, all the time, by how much it is late. A second without a turn is worth the warning that C's
daemons give then, in the same words, since scripts know these.
"""

import asyncio
import gc
import logging
import resource
from collections import deque
from time import perf_counter_ns
from typing import Any

from ovncp.server.coverage import COUNTERS, define
from ovncp.server.perf_counter import JOBS

_LOG = logging.getLogger("ovncp.timeval")

define("loop_stall")

PERIOD_SECONDS = 0.02
STALL_NS = 100_000_000
"""What counts as a stall."""

_WARN_NS = 1_000_000_000
_BUSY_SHARE = 10  # of a stall, the least part, as one tenth, that a busy server has a processor
_SECOND_NS = 1_000_000_000
_MINUTE = 60  # seconds


class LatestMinute:
    """The greatest of the figures of the last minute, to the second."""

    def __init__(self) -> None:
        # Pairs of a second and the greatest figure in it.
        self._seconds: deque[tuple[int, int]] = deque([(0, 0)], maxlen=_MINUTE)

    def add(self, now_ns: int, figure: int) -> None:
        """Note a `figure` of now."""
        second = now_ns // _SECOND_NS
        latest, greatest = self._seconds[-1]
        if second > latest:
            self._seconds.append((second, figure))
        elif figure > greatest:
            self._seconds[-1] = second, figure

    def greatest(self, now_ns: int) -> int:
        """The greatest that is not older than a minute; 0 if there is none."""
        oldest = now_ns // _SECOND_NS - _MINUTE
        return max((figure for second, figure in self._seconds if second > oldest), default=0)


class StallWatch:
    """Watches the running loop, from `start` until it is closed. Times are in nanoseconds."""

    def __init__(self) -> None:
        self.lateness = JOBS.job("loop_late")
        self.pauses = JOBS.job("gc_pause")
        self._minute = LatestMinute()
        self._loop = asyncio.get_running_loop()
        self._due_ns = 0
        self._usage = resource.getrusage(resource.RUSAGE_THREAD)
        self._collecting_since_ns = 0
        self._alarm: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._look_later(perf_counter_ns())
        gc.callbacks.append(self._collecting)

    def close(self) -> None:
        """Stop watching, if that was begun."""
        if self._alarm is not None:
            self._alarm.cancel()
            gc.callbacks.remove(self._collecting)

    @property
    def longest_of_minute_ns(self) -> int:
        """By how much the loop was late at the most in the last minute."""
        return self._minute.greatest(perf_counter_ns())

    def _look_later(self, now_ns: int) -> None:
        self._due_ns = now_ns + int(PERIOD_SECONDS * 1e9)
        self._alarm = self._loop.call_later(PERIOD_SECONDS, self._look)

    def _look(self) -> None:
        now = perf_counter_ns()
        late = max(0, now - self._due_ns)
        self.lateness.add(late)
        self._minute.add(now, late)
        if late >= STALL_NS:
            COUNTERS["loop_stall"] += 1
        usage = resource.getrusage(resource.RUSAGE_THREAD)
        # A machine that has no time for an idle server is not the server's fault.
        if late >= _WARN_NS and _busy_ns(self._usage, usage) * _BUSY_SHARE >= late:
            _warn(late, self._usage, usage)
        self._usage = usage
        self._look_later(now)

    def _collecting(self, phase: str, _: dict[str, Any]) -> None:
        now = perf_counter_ns()
        if phase == "start":
            self._collecting_since_ns = now
        elif self._collecting_since_ns:
            self.pauses.add(now - self._collecting_since_ns)

    def show(self) -> str:
        """The reply of `stall/show`."""
        longest, pause = self.lateness.longest, self.pauses.longest
        return (
            f"longest stall of the last minute: {_msec(self.longest_of_minute_ns)}\n"
            f"longest stall so far: {_msec(longest)}\n"
            f"stalls of {STALL_NS // 1_000_000} ms and more: {COUNTERS['loop_stall']}\n"
            f"garbage collections: {self.pauses.count}, the longest {_msec(pause)}\n"
        )


def _busy_ns(before: resource.struct_rusage, after: resource.struct_rusage) -> int:
    """How long the thread has had a processor."""
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return int(seconds * 1e9)


def _msec(ns: int) -> str:
    return f"{ns / 1e6:.1f} ms"


def _warn(late_ns: int, before: resource.struct_rusage, now: resource.struct_rusage) -> None:
    user, system = now.ru_utime - before.ru_utime, now.ru_stime - before.ru_stime
    _LOG.warning(
        "Unreasonably long %dms poll interval (%dms user, %dms system)",
        late_ns // 1_000_000,
        user * 1000,
        system * 1000,
    )
    for text, names in _DETAILS.items():
        counts = tuple(getattr(now, name) - getattr(before, name) for name in names)
        if any(counts):
            _LOG.warning(text, *counts)


_DETAILS = {
    "faults: %d minor, %d major": ("ru_minflt", "ru_majflt"),
    "disk: %d reads, %d writes": ("ru_inblock", "ru_oublock"),
    "context switches: %d voluntary, %d involuntary": ("ru_nvcsw", "ru_nivcsw"),
}
