"""Locks over all nodes: leases under names of the API's, tried for a while, held for a while."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

from ovncp.cluster.base import Grant, NotAcquired, Store
from ovncp.cluster.lease import Lease
from ovncp.cluster.metrics import Counts

_PREFIX = "lock:"
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0


class Locks:
    """The locks, as one node sees them."""

    def __init__(self, store: Store, node_id: str, counts: Counts):
        self._store = store
        self._node_id = node_id
        self._counts = counts

    @contextlib.asynccontextmanager
    async def hold(
        self, key: str, *, ttl_s: float = 10.0, retries: int = 10, max_hold_s: float = 300.0
    ) -> AsyncIterator[Lease]:
        """Hold a lock in a block, which is cut short with LeaseLost when the lock is lost.

        Raises: as `acquire`.
        """
        lease = await self.acquire(key, ttl_s=ttl_s, retries=retries, max_hold_s=max_hold_s)
        try:
            async with lease.guarding():
                yield lease
        finally:
            await lease.release()

    async def acquire(
        self, key: str, *, ttl_s: float = 10.0, retries: int = 10, max_hold_s: float = 300.0
    ) -> Lease:
        """Take a lock, trying again `retries` times at most; it is renewed until released or lost.

        `ttl_s` is how long it outlives a node that died, `max_hold_s` how long it is held at most.

        Raises:
            NotAcquired: somebody else held it each time.
            Unavailable: the store cannot be reached.
        """
        start = asyncio.get_running_loop().time()
        holder = f"{self._node_id}/{secrets.token_hex(8)}"
        for attempt in range(retries + 1):
            asked_at = asyncio.get_running_loop().time()
            grant = await self._store.take(_PREFIX + key, holder, ttl_s)
            if grant.holder == holder:
                self._counts.lock_wait_s.observe(asyncio.get_running_loop().time() - start)
                return self._held(Lease(self._store, grant, ttl_s, asked_at, max_hold_s))
            if attempt < retries:
                await asyncio.sleep(min(_pause_s(attempt), grant.seconds_left))
        raise NotAcquired(f"{key} is locked by {grant.holder.partition('/')[0]}")

    def _held(self, lease: Lease) -> Lease:
        self._counts.locks_acquired += 1
        self._counts.locks_held += 1
        lease.on_end.append(lambda: self._ended(lease))
        return lease

    def _ended(self, lease: Lease) -> None:
        self._counts.locks_held -= 1
        self._counts.locks_lost += bool(lease.why_over)

    async def all(self) -> list[Grant]:
        """The locks that are held by any node.  Raises Unavailable."""
        return [
            replace(grant, name=grant.name.removeprefix(_PREFIX))
            for grant in await self._store.leases()
            if grant.name.startswith(_PREFIX)
        ]

    async def remove(self, key: str) -> Grant | None:
        """Take a lock from whoever holds it, who will be told; what it was.  Raises Unavailable."""
        grant = await self._store.revoke(_PREFIX + key)
        return None if grant is None else replace(grant, name=key)


def _pause_s(attempt: int) -> float:
    # At random, lest those who wait keep step with each other.
    longest: float = min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S)
    return longest * random.uniform(0.5, 1.0)
