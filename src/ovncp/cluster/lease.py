"""A lease that this node holds: renewed until it is released or lost, and its holder is told.

Its time counts here from before the store was asked, so that it ends here first as long as the two
clocks run equally fast; for when they do not, and for a process that was stopped meanwhile, there
is the token, which whatever is acted upon can compare with the newest that it has seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from ovncp.cluster.base import Grant, LeaseLost, Store, Unavailable

_logger = logging.getLogger("ovncp.cluster.lease")

_RENEWALS = 3
"""How many renewals there are to be in the time to live."""


class Lease:
    """One lease from its beginning to its end; belongs to the running event loop."""

    def __init__(
        self,
        store: Store,
        grant: Grant,
        ttl_s: float,
        asked_at: float,
        max_hold_s: float | None = None,
    ):
        """Held for `ttl_s` from `asked_at`, on the event loop's clock, and renewed from then on.

        After `max_hold_s` it is given back, whatever its holder is at.
        """
        self.name = grant.name
        self.token = grant.token
        self.why_over = ""
        """Why it is not held any more; "" while it is, or after `release`."""
        self.on_end: list[Callable[[], None]] = []
        self._store = store
        self._ttl_s = ttl_s
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._timer = self._loop.call_at(asked_at + ttl_s, self._run_out)
        self._renewal = asyncio.create_task(self._renew())
        self._limit = max_hold_s and self._loop.call_at(asked_at + max_hold_s, self._hold_no_longer)
        self._giving_back: asyncio.Task[None] | None = None

    @property
    def is_held(self) -> bool:
        """Whether it is neither released nor lost, as far as can be known here."""
        # A process that was stopped for a while finds that out by the clock first.
        return not self._over.is_set() and self._loop.time() < self._timer.when()

    def check(self) -> None:
        """Raises LeaseLost unless it is held."""
        if not self.is_held:
            raise LeaseLost(f"lease {self.name} is over: {self.why_over or 'its time ran out'}")

    async def lost(self) -> None:
        """Return once it is not held any more, for whatever reason."""
        await self._over.wait()

    async def release(self) -> None:
        """Give it back; without effect on one that is over."""
        if not self._over.is_set():
            self._end("")
            await self._give_back()

    @contextlib.asynccontextmanager
    async def guarding(self) -> AsyncIterator[Lease]:
        """A block that is cut short, with LeaseLost, when the lease is lost."""
        try:
            async with asyncio.timeout(None) as cut:
                stop = self._cutter(cut)
                self.on_end.append(stop)
                try:
                    self.check()
                    yield self
                finally:
                    self.on_end.remove(stop)
        except TimeoutError as error:
            if cut.expired():
                raise LeaseLost(f"lease {self.name} is over: {self.why_over}") from error
            raise

    def _cutter(self, cut: asyncio.Timeout) -> Callable[[], None]:
        return lambda: cut.reschedule(self._loop.time())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / _RENEWALS)
            asked_at = self._loop.time()
            try:
                is_held = await self._store.prolong(self.name, self.token, self._ttl_s)
            except Unavailable as error:
                _logger.warning("lease %s is not renewed: %s", self.name, error)
                continue
            if not is_held:
                self._end("it was taken away")
                return
            self._timer.cancel()
            self._timer = self._loop.call_at(asked_at + self._ttl_s, self._run_out)

    def _run_out(self) -> None:
        self._end("it could not be renewed in time")
        # The store, which heard of it later than it was asked, may hold it still.
        self._giving_back = asyncio.create_task(self._give_back())

    def _hold_no_longer(self) -> None:
        if not self._over.is_set():
            self._end("it was held for the longest time allowed")
            self._giving_back = asyncio.create_task(self._give_back())

    async def _give_back(self) -> None:
        try:
            await self._store.release(self.name, self.token)
        except Unavailable as error:
            _logger.info("lease %s is left to run out: %s", self.name, error)

    def _end(self, why: str) -> None:
        self.why_over = why
        self._over.set()
        self._timer.cancel()
        if self._limit:
            self._limit.cancel()
        if asyncio.current_task() is not self._renewal:
            self._renewal.cancel()
        for tell in list(self.on_end):
            tell()
