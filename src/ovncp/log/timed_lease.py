"""A lease that an engine keeps, and that its holder takes for lost before the engine does.

Its time counts here from before the engine was asked, so that it ends here first, as long as the
two clocks run equally fast; a token that grows from holder to holder is for when they do not.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod

from ovncp.log.base import Lease, LeaseLost, LogError

_logger = logging.getLogger("ovncp.log")


class TimedLease(Lease):
    """What is the same on every engine; a subclass asks its own."""

    def __init__(self, name: str, token: int, ttl_ms: int, asked_at: float):
        """Held for `ttl_ms` milliseconds from `asked_at`, on the event loop's clock, on."""
        self.name = name
        self.token = token
        self._ttl_s = ttl_ms / 1000
        self._ended = asyncio.Event()
        # Whether that is how it ended: somebody else took it before its time was over.
        self.was_stolen = False
        self._timer = self._start_timer(asked_at)

    @abstractmethod
    async def _prolong(self) -> bool:
        """Have the engine start the time anew; false if the lease is over.  Raises LogError."""

    @abstractmethod
    async def _give_back(self) -> None:
        """Have the engine end the lease.  Raises LogError."""

    def _start_timer(self, asked_at: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(asked_at + self._ttl_s, self._ended.set)

    async def renew(self) -> None:
        asked_at = asyncio.get_running_loop().time()
        if not self._ended.is_set() and not await self._prolong():
            self.was_stolen = not self._ended.is_set()
            self.end()
        if self._ended.is_set():
            raise LeaseLost(f"lease {self.name} with token {self.token} is lost")
        self._timer.cancel()
        self._timer = self._start_timer(asked_at)

    @property
    def is_held(self) -> bool:
        # A process that was stopped for a while finds that out by the clock first.
        return not self._ended.is_set() and asyncio.get_running_loop().time() < self._timer.when()

    async def release(self) -> None:
        if self._ended.is_set():
            return
        self.end()
        try:
            await self._give_back()
        except LogError as error:
            _logger.info("lease %s is left to run out: %s", self.name, error)

    def end(self) -> None:
        """Take it for lost, without a word to the engine."""
        self._timer.cancel()
        self._ended.set()

    async def lost(self) -> None:
        await self._ended.wait()
