"""The locks of a cluster's clients, as leases of its log (RFC 7047 section 4.1.8).

To a server's `SharedLocks` this is one more source that grants locks, beside those of relayed
databases: a lock is held on behalf of a client here by holding the lease of its name, which is
renewed for as long as the client wants the lock. A server that dies, or is cut off, loses its
leases when their time is over. What asserts a lock is appended only if the log itself finds that
the lease is still held, so that a server which was asleep cannot do harm.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Any, Final

from ovncp.follow.link import Answered
from ovncp.log.base import Lease, LeaseLost, Log, LogError
from ovncp.server.lock_source import LockHolder

_LOG = logging.getLogger("ovncp.clustered")

TTL_MSEC: Final = 3000
"""How long a lock outlives the server that held it, at the most; etcd knows whole seconds alone."""

_RENEWALS_PER_TTL: Final = 4
_PAUSE_SECONDS: Final = 0.5


class LeaseLocks:
    """The locks that are leases of `log`, under the database's `name`."""

    def __init__(self, name: str, log: Log) -> None:
        self.name = name
        self.lock_holder: LockHolder
        self._log = log
        self._claims: dict[str, asyncio.Task[None]] = {}
        self._leases: dict[str, Lease] = {}

    @property
    def order(self) -> str:
        """See `LockSource.order`."""
        return self.name

    @property
    def is_connected(self) -> bool:
        """Whether requests can be made: always, as they are repeated until they succeed."""
        return True

    def request(self, method: str, params: list[Any], answered: Answered) -> None:
        """ "lock", "steal" and "unlock", as a server answers them."""
        (name,) = params
        if method == "unlock":
            self._unlock(name)
            answered({}, None)
        else:
            claim = self._claim(name, method == "steal", answered)
            self._claims[name] = asyncio.get_running_loop().create_task(claim)

    def _unlock(self, name: str) -> None:
        # The task gives back what it holds.
        self._leases.pop(name, None)
        self._claims.pop(name).cancel()

    async def _claim(self, name: str, is_theft: bool, answered: Answered) -> None:
        """Hold the lease `name` whenever that can be, until cancelled."""
        lease = await self._first(name, is_theft)
        if lease is not None:
            self._leases[name] = lease
        answered({"locked": lease is not None}, None)
        while True:
            if lease is None:
                lease = await self._acquire(name)
                self._leases[name] = lease
                self.lock_holder.source_says(self, "locked", name)
            try:
                await _keep(lease)
            except asyncio.CancelledError:
                await lease.release()
                raise
            lease = None
            self._tell_lost(name)

    async def _first(self, name: str, is_theft: bool) -> Lease | None:
        """The lease, if it can be had at once."""
        try:
            if is_theft:
                return await self._log.seize(name, TTL_MSEC)
            return await self._log.try_acquire(name, TTL_MSEC)
        except LogError as error:
            _LOG.info("%s: the lock %s has to wait: %s", self.name, name, error)
            return None

    async def _acquire(self, name: str) -> Lease:
        while True:
            with contextlib.suppress(LogError):  # the server itself says that the engine is away
                return await self._log.acquire(name, TTL_MSEC)
            await asyncio.sleep(_PAUSE_SECONDS)

    def _tell_lost(self, name: str) -> None:
        if self._leases.pop(name, None) is not None:
            self.lock_holder.source_says(self, "stolen", name)

    # For transactions that assert locks

    def guards(self, names: Iterable[str]) -> list[Lease]:
        """The leases of the locks `names`. Raises LeaseLost if one is not held."""
        leases = []
        for name in names:
            lease = self._leases.get(name)
            if lease is None or not lease.is_held:
                raise LeaseLost(f"the lock {name} is lost")
            leases.append(lease)
        return leases

    async def check(self, names: Iterable[str]) -> None:
        """Tell of those of the locks `names` that are lost."""
        for name in names:
            lease = self._leases.get(name)
            if lease is None:
                continue
            try:
                await lease.renew()
            except LogError:
                # Not to be acted upon, even if it is only that nobody can tell.
                self._tell_lost(name)
                await lease.release()

    async def close(self) -> None:
        """Give all locks back."""
        claims = list(self._claims.values())
        for claim in claims:
            claim.cancel()
        await asyncio.gather(*claims, return_exceptions=True)


async def _keep(lease: Lease) -> None:
    """Renew `lease` until it is lost."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TTL_MSEC / 1000 / _RENEWALS_PER_TTL):
                await lease.lost()
                return
        with contextlib.suppress(LogError):  # it is lost when its time is over, if not before
            await lease.renew()
