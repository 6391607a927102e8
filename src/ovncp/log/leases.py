"""Leases among the tasks of one process, for the logs that only one process has open."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from ovncp.log.base import Lease, LeaseLost, LogError


class LocalLease(Lease):
    """A lease whose time runs on the event loop's clock."""

    def __init__(self, leases: LocalLeases, name: str, token: int, ttl_ms: int):
        self.name = name
        self.token = token
        self._leases = leases
        self._ttl_s = ttl_ms / 1000
        self._ended = asyncio.Event()
        self._timer = self._start_timer()

    def _start_timer(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._ttl_s, self.end)

    async def renew(self) -> None:
        if self._ended.is_set():
            raise LeaseLost(f"lease {self.name} with token {self.token} is lost")
        self._timer.cancel()
        self._timer = self._start_timer()

    async def release(self) -> None:
        self.end()

    @property
    def is_held(self) -> bool:
        return not self._ended.is_set()

    async def lost(self) -> None:
        await self._ended.wait()

    def end(self) -> None:
        """Tell the holder that the lease is over and let the next one have it."""
        if self.drop():
            self._leases.pass_on(self.name)

    def drop(self) -> bool:
        """Tell the holder that the lease is over; whether it was not before."""
        was_held = self.is_held
        self._timer.cancel()
        self._ended.set()
        return was_held


def check(guards: Sequence[Lease]) -> None:
    """Raise LeaseLost unless all of `guards` are held."""
    for lease in guards:
        if not lease.is_held:
            raise LeaseLost(f"lease {lease.name} with token {lease.token} is lost")


class LocalLeases:
    """Who holds each name, and who waits for it, first come first served."""

    def __init__(self) -> None:
        self._last_token = 0
        self._held: dict[str, LocalLease] = {}
        self._waiting: dict[str, deque[_Waiter]] = {}

    async def acquire(self, name: str, ttl_ms: int) -> LocalLease:
        """See `Log.acquire`."""
        if name not in self._held:
            return self._grant(name, ttl_ms)
        granted: asyncio.Future[LocalLease] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append((granted, ttl_ms))
        try:
            return await granted
        except asyncio.CancelledError:
            if not granted.cancelled():  # Granted while being cancelled: nobody would hold it.
                granted.result().end()
            raise

    def try_acquire(self, name: str, ttl_ms: int) -> LocalLease | None:
        """See `Log.try_acquire`."""
        return None if name in self._held else self._grant(name, ttl_ms)

    def seize(self, name: str, ttl_ms: int) -> LocalLease:
        """See `Log.seize`."""
        if name in self._held:
            self._held[name].drop()
        return self._grant(name, ttl_ms)

    def _grant(self, name: str, ttl_ms: int) -> LocalLease:
        self._last_token += 1
        lease = self._held[name] = LocalLease(self, name, self._last_token, ttl_ms)
        return lease

    def pass_on(self, name: str) -> None:
        """The lease on `name` is over: grant it to the first of those who still wait for it."""
        del self._held[name]
        waiters = self._waiting.get(name, deque())
        while waiters:
            granted, ttl_ms = waiters.popleft()
            if not granted.done():
                granted.set_result(self._grant(name, ttl_ms))
                return
        self._waiting.pop(name, None)

    def close(self) -> None:
        """End every lease, and refuse those who wait."""
        waiting, self._waiting = self._waiting, {}
        for granted, _ttl_ms in (waiter for queue in waiting.values() for waiter in queue):
            if not granted.done():
                granted.set_exception(LogError("the log is closed"))
        for lease in list(self._held.values()):
            lease.end()


_Waiter = tuple[asyncio.Future[LocalLease], int]
