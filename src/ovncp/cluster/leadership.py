"""Which node does what only one may do: the one that holds the lease "leader".

Each node tries to take it again and again; one that is not ready yet leaves it to others first.
The one that has it runs the registered work, and ends that as soon as the lease is lost, at the
latest when its time is over by this node's own clock.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial

from ovncp.cluster.background import end
from ovncp.cluster.base import ClusterError, Grant, Store, Unavailable
from ovncp.cluster.lease import Lease
from ovncp.cluster.metrics import Counts

_logger = logging.getLogger("ovncp.cluster.leadership")

_NAME = "leader"
_FAILED_PAUSE_S = 1.0

Work = Callable[[Lease], Awaitable[None]]
"""Runs for as long as the lease is held; cancelled at its end.  It may end earlier by itself.

A ClusterError other than Unavailable says that only another lease helps, of whichever node.
"""


class Leadership:
    """One node's part in it."""

    def __init__(self, store: Store, node_id: str, ttl_s: float, counts: Counts):
        self.lease: Lease | None = None
        """Held by this node, if it is the leader."""
        self.is_ready: Callable[[], bool] = lambda: True
        """Whether this node would do the work as well as any other."""
        self._store = store
        self._node_id = node_id
        self._holder = self._new_holder()
        self._ttl_s = ttl_s
        self._counts = counts
        self._work: dict[str, Work] = {}
        self._stands = asyncio.Event()
        self._stands.set()
        self._known: tuple[Grant, float] | None = None
        self._free_since: float | None = None

    def _new_holder(self) -> str:
        """Another one for each term: what was granted for an earlier one is not its own any more.

        What that one asked of the store may yet happen, and is told by its token.
        """
        return f"{self._node_id}/{secrets.token_hex(8)}"

    def add(self, name: str, work: Work) -> None:
        """Have `work` run where the leader is; before `run`."""
        self._work[name] = work

    @property
    def is_leader(self) -> bool:
        """Whether this node is it, by its own clock."""
        return self.lease is not None and self.lease.is_held

    @property
    def leader(self) -> Grant | None:
        """The leader as this node knew it last, None if that is out of date."""
        if self.lease is not None and self.lease.is_held:
            return Grant(_NAME, self._holder, self.lease.token, self._ttl_s)
        if self._known is None:
            return None
        grant, until = self._known
        return grant if asyncio.get_running_loop().time() < until else None

    async def withdraw(self) -> None:
        """Leave leading to others, from now on."""
        self._stands.clear()
        if self.lease is not None:
            await self.lease.release()

    async def run(self) -> None:
        """Stand for leader, for ever."""
        while True:
            await self._stands.wait()
            lease = await self._take()
            if lease is None:
                await asyncio.sleep(self._ttl_s / 4)
                continue
            self._counts.times_leader += 1
            _logger.info("leading from now on, with token %d", lease.token)
            # Said before another one can lead.
            lease.on_end.append(partial(_say_over, lease))
            try:
                await self._lead(lease)
            finally:
                self._holder = self._new_holder()
                await lease.release()

    async def _take(self) -> Lease | None:
        asked_at = asyncio.get_running_loop().time()
        try:
            grant = await self._ask(asked_at)
        except Unavailable:
            return None
        if grant is None:
            return None
        self._known = grant, asked_at + grant.seconds_left
        if grant.holder != self._holder:
            return None
        return Lease(self._store, grant, self._ttl_s, asked_at)

    async def _ask(self, now: float) -> Grant | None:
        """Who leads: this node, if nobody else does, or for long enough if it is not ready."""
        if not self.is_ready():
            held = [grant for grant in await self._store.leases() if grant.name == _NAME]
            if held:
                self._free_since = None
                return held[0]
            if self._free_since is None:
                self._free_since = now
            if now < self._free_since + self._ttl_s / 2:
                return None
        self._free_since = None
        return await self._store.take(_NAME, self._holder, self._ttl_s)

    async def _lead(self, lease: Lease) -> None:
        self.lease = lease
        tasks = [
            asyncio.create_task(self._perform(name, work, lease))
            for name, work in self._work.items()
        ]
        try:
            await lease.lost()
        finally:
            self.lease = None
            await end(tasks)

    async def _perform(self, name: str, work: Work, lease: Lease) -> None:
        """Do the work, again after it failed; or give the lease up, if it takes another one."""
        while lease.is_held:
            try:
                await work(lease)
                return
            except Unavailable as error:
                _logger.warning("%s has to wait: %s", name, error)
            except ClusterError as error:
                _logger.warning("%s gives up leading: %s", name, error)
                await lease.release()
            except Exception:
                _logger.exception("%s failed, and starts again", name)
            await asyncio.sleep(_FAILED_PAUSE_S)


def _say_over(lease: Lease) -> None:
    _logger.info("leading no longer: %s", lease.why_over or "it was given up")
