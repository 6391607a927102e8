"""When the upkeep of a log that several servers share is due, and that only one of them does it.

Each server looks once a minute. Whoever finds it due waits for the lease `ovncp-upkeep`, and when
it has that looks whether another one has just done it. `upkeep_process` is who does it.

It is due some ten minutes after the last time at the earliest, if a hundred entries came since and
the engine has grown to twice what it held then, or the entries to twice what was kept; if the
engine gets full; and after a day if there is anything at all. From `_ALMOST_FULL` on no entries are
kept. An engine that refuses writes for want of room has none for a lease either: then the servers
take their turns in the order of their ids.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from ovncp.log.base import Lease, LeaseLost, LogError
from ovncp.log.engine import SharedLog, Usage
from ovncp.log.engine_status import TIGHT, EngineStatus
from ovncp.log.retention import NOTHING
from ovncp.server import upkeep_process
from ovncp.server.clock import Clock
from ovncp.server.clustered import Clustered
from ovncp.server.fullness import Warnings, share
from ovncp.server.upkeep_process import Order

_LOG = logging.getLogger("ovncp.clustered")

# No lock of a client has such a name (RFC 7047 section 3.1, <id>).
_LEASE: Final = "ovncp-upkeep"
_TTL_MSEC: Final = 10_000

_TICK_MSEC: Final = 5_000
_LOOK_MSEC: Final = 60_000
_TURN_MSEC: Final = 10_000
_MINUTE_MSEC: Final = 60_000
_DAY_MSEC: Final = 24 * 60 * _MINUTE_MSEC
_MIN_ENTRIES: Final = 100
_MANY_ENTRIES: Final = 10_000
_LARGE_BYTES: Final = 10 << 20
_ALMOST_FULL: Final = 0.8


class ClusterUpkeep:
    """The upkeep of the log of `runner`, as far as this server does it.

    `usage` and `engine` are how the engine was when it was looked at last, if it was.
    """

    def __init__(
        self,
        runner: Clustered,
        log: SharedLog,
        order: Order,
        command: Sequence[str],
        clock: Clock,
        *,
        compact: Callable[[], Awaitable[None]],
        rank: Callable[[], int],
    ) -> None:
        """`command` starts the process. `compact` is called when it is due, and calls `perform`.

        `rank` is this server's place among those of the log, from 0 on.
        """
        self.usage: Usage | None = None
        self.engine: EngineStatus | None = None
        self._runner = runner
        self._log = log
        self._order = order
        self._command = command
        self._clock = clock
        self._compact = compact
        self._rank = rank
        self._warnings = Warnings(runner.name)
        # When the engine was seen to refuse writes first, and when to try to change that.
        self._refused_since: int | None = None
        self._next_attempt = 0
        self._complaint = ""
        self._seen_failure: LogError | None = None
        self._base: int | None = None
        self._before: int | None = None
        self._used_then = 0
        self._n_kept_then = 0
        self._latest = clock.now_msec() + _DAY_MSEC
        self._wait(10 * _MINUTE_MSEC)

    def _wait(self, at_least_msec: int) -> None:
        # The servers must not all find it due at once.
        pause_msec = at_least_msec + random.randrange(at_least_msec)
        self._earliest = self._clock.now_msec() + pause_msec

    async def run(self) -> None:
        """Look again and again."""
        looked = -_LOOK_MSEC
        while True:
            now = self._clock.now_msec()
            if now - looked >= (_LOOK_MSEC if self._is_well() else _TURN_MSEC) or self._is_urgent():
                looked = now
                await self.look()
            await self._clock.sleep(_TICK_MSEC)

    def _is_well(self) -> bool:
        """Not of one that is cut off: that may be for want of room, too."""
        is_in_use = self._refused_since is None and self._runner.is_connected
        return is_in_use and not self._complaint

    def _is_urgent(self) -> bool:
        """Whether writes have begun to fail, which may be for want of room."""
        before, self._seen_failure = self._seen_failure, self._runner.failure
        return before is None and self._seen_failure is not None

    async def look(self) -> None:
        """See how the engine is, and do what is due; a failure is logged."""
        try:
            self.usage = await self._log.usage()
            self.engine = await self._log.status()
            self._warnings.look(self.usage)
            if self.engine.alarms:
                await self._make_room_in_turn()
            elif self._is_due(base := await self._log.find_snapshot(), self.usage):
                await self._compact_after(base)
            self._complaint = ""
        except LogError as error:
            self._complain(error)

    async def _compact_after(self, base: int) -> None:
        """Have it done, unless there is a later snapshot than `base` when our turn comes."""
        self._before = base
        try:
            await self._compact()
        finally:
            self._before = None

    def _complain(self, error: LogError) -> None:
        if self._runner.is_connected and str(error) != self._complaint:
            self._complaint = str(error)
            _LOG.warning("%s: upkeep: %s", self._runner.name, error)

    def _is_due(self, base: int, usage: Usage) -> bool:
        self._refused_since = None
        if self._base is None:
            self._base = base
        elif base != self._base:
            self._begin(base, usage)
        now, n_entries = self._clock.now_msec(), self._log.next_index - 1 - base
        if now < self._earliest or not n_entries:
            return False
        if now >= self._latest:
            return True
        has_grown = usage.used > max(_LARGE_BYTES, 2 * self._used_then)
        has_many = n_entries > _MANY_ENTRIES + 2 * self._n_kept_then
        is_tight = share(usage) >= TIGHT
        return n_entries >= _MIN_ENTRIES and (has_grown or has_many or is_tight)

    def _begin(self, base: int, usage: Usage) -> None:
        """Count from here, where upkeep is done, by whomever."""
        self._base = base
        self._used_then = usage.used
        self._n_kept_then = self._log.next_index - 1 - base
        self._latest = self._clock.now_msec() + _DAY_MSEC
        self._wait(10 * _MINUTE_MSEC)

    # Doing it

    async def perform(self) -> None:
        """Do it now, unless another server just does. Raises LogError."""
        try:
            # It may have to find out yet what became of a request, in an entry that goes.
            await self._runner.see_all()
            before = self._before
            if before is None:
                before = await self._log.find_snapshot()
            lease = await self._log.acquire(_LEASE, _TTL_MSEC)
            await _while_held(lease, self._perform(before))
        except LogError:
            self._wait(_MINUTE_MSEC)
            raise

    async def _perform(self, before: int) -> None:
        if await self._log.find_snapshot() == before:
            order = _smallest(self._order) if self._is_full() else self._order
            done = await upkeep_process.run(self._command, order)
            _LOG.info(
                "%s: the snapshot is as of %d, %d entries of %d bytes are kept after it",
                self._runner.name,
                *done,
            )
            await self._log.make_room()
        self.usage = await self._log.usage()
        self._begin(await self._log.find_snapshot(), self.usage)

    def _is_full(self) -> bool:
        was_full = self._refused_since is not None
        return was_full or (self.usage is not None and share(self.usage) >= _ALMOST_FULL)

    # An engine that refuses writes

    async def _make_room_in_turn(self) -> None:
        now = self._clock.now_msec()
        if self._refused_since is None:
            self._refused_since = now
            alarms = ", ".join(self.engine.alarms if self.engine else ())
            _LOG.error("%s: the engine refuses writes: %s", self._runner.name, alarms)
            self._next_attempt = now + self._rank() * _TURN_MSEC
        if now >= self._next_attempt:
            # Each takes as long again, as all so far have not helped.
            self._next_attempt = now + max(_TURN_MSEC, now - self._refused_since)
            await self._log.make_room()
            self._runner.failure = None
            self.usage = await self._log.usage()
            self.engine = await self._log.status()
            await self._compact()


def _smallest(order: Order) -> Order:
    """The same, with nothing of the past."""
    settings = order.settings._replace(history_bytes=0)
    return replace(order, retention=NOTHING, settings=settings)


async def _while_held(lease: Lease, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, keep `lease` for as long and release it then. Raises LeaseLost if it is lost."""
    working = asyncio.create_task(work)
    keeping = asyncio.create_task(_keep(lease))
    try:
        await asyncio.wait((working, keeping), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise LeaseLost(f"the lease {lease.name} was lost")
        await working
    finally:
        for task in (working, keeping):
            task.cancel()
        await asyncio.gather(working, keeping, return_exceptions=True)
        await lease.release()


async def _keep(lease: Lease) -> None:
    """Renew `lease` until it is lost."""
    while lease.is_held:
        with suppress(TimeoutError):
            async with asyncio.timeout(_TTL_MSEC / 3000):
                await lease.lost()
        # What went wrong is of no interest: the lease is lost in the end, or it is not.
        with suppress(LogError):
            await lease.renew()
