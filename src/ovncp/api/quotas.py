"""What a tenant may have at most, kept to exactly: by many requests at once, and over all nodes.

Nodes take turns to make rows for a tenant, since each sees late what others make; requests at one
node share its turn. Rows that are on their way count from the moment that they are let through,
each until it is seen. While what the nodes share is away each keeps to the limit by what it sees.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ovncp.api.problem import Problem
from ovncp.cluster.base import NotAcquired, Unavailable
from ovncp.cluster.lease import Lease
from ovncp.cluster.locks import Locks
from ovncp.ovn.barrier import Barrier
from ovncp.ovn.draft import Draft
from ovncp.ovn.resources import BY_TABLE

_LOG = logging.getLogger("ovncp.api.quotas")

_LONGEST_TURN_S = 0.5
"""How long others may join a turn, so that other nodes get theirs."""
_GAP_S = 0.1
"""How long it is left to them after a turn that was as long as that."""
_TRIES = 30

Quotas = Mapping[str, int]
"""How many rows of a resource there may be, by its name."""


@dataclass(eq=False)
class _Turn:
    """This node's turn to make rows for a tenant; `coming` has the uuids of those, by table."""

    until: float
    lease: asyncio.Future[Lease | None]
    n_users: int = 0
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    coming: dict[str, set[str]] = field(default_factory=dict)


class QuotaKeeper:
    """Lets drafts through that keep to the quotas of their tenant."""

    def __init__(self, locks: Locks, barrier: Barrier) -> None:
        self._locks = locks
        self._barrier = barrier
        self._turns: dict[str, _Turn] = {}

    @asynccontextmanager
    async def keeping(self, quotas: Quotas, draft: Draft) -> AsyncIterator[None]:
        """A block in which to execute `draft`, of a tenant. Raises Problem, SessionLost."""
        tenant = draft.view.tenant
        limited = limited_by(quotas, draft)
        if tenant is None or not limited:
            yield
            return
        turn = await self._join(tenant)
        try:
            await asyncio.shield(turn.lease)
            check(limited, draft, turn.coming)
            for table in limited:
                turn.coming.setdefault(table, set()).update(draft.inserted[table])
            try:
                yield
            finally:
                for table in limited:
                    turn.coming[table].difference_update(draft.inserted[table])
        finally:
            await self._leave(tenant, turn)

    async def _join(self, tenant: str) -> _Turn:
        loop = asyncio.get_running_loop()
        gap_s = 0.0
        while (turn := self._turns.get(tenant)) is not None:
            if loop.time() < turn.until:
                break
            await turn.is_over.wait()
            gap_s = _GAP_S
        else:
            taking = asyncio.ensure_future(self._take(tenant, gap_s))
            turn = self._turns[tenant] = _Turn(loop.time() + _LONGEST_TURN_S, taking)
        turn.n_users += 1
        return turn

    async def _take(self, tenant: str, gap_s: float) -> Lease | None:
        """Take the turn, and see what others made in theirs. Raises Problem, SessionLost."""
        lease: Lease | None = None
        await asyncio.sleep(gap_s)
        try:
            lease = await self._locks.acquire(f"quota:{tenant}", retries=_TRIES)
        except NotAcquired as error:
            text = "other nodes make rows for the tenant all the time"
            raise Problem("unavailable", text, headers={"Retry-After": "1"}) from error
        except Unavailable as error:
            _LOG.warning("quotas of %s are kept by each node for itself: %s", tenant, error)
        try:
            await self._barrier.server()
        except BaseException:
            if lease is not None:
                await lease.release()
            raise
        return lease

    async def _leave(self, tenant: str, turn: _Turn) -> None:
        turn.n_users -= 1
        if turn.n_users:
            return
        turn.until = 0.0  # Nobody joins it any more.
        turn.lease.cancel()
        try:
            await _give_back(turn.lease)
        finally:
            del self._turns[tenant]
            turn.is_over.set()


async def _give_back(lease: "asyncio.Future[Lease | None]") -> None:
    if lease.cancelled() or not lease.done() or lease.exception() is not None:
        return
    held = lease.result()
    if held is not None:
        await held.release()


def limited_by(quotas: Quotas, draft: Draft) -> dict[str, tuple[str, int]]:
    """The resource and the limit, by table, of what `draft` makes more of."""
    found: dict[str, tuple[str, int]] = {}
    for table, uuids in draft.inserted.items():
        resource = BY_TABLE.get((draft.replica.name, table))
        if resource is not None and resource.name in quotas and uuids:
            found[table] = resource.name, quotas[resource.name]
    return found


def check(
    limited: Mapping[str, tuple[str, int]], draft: Draft, coming: Mapping[str, set[str]]
) -> None:
    """See that there is room for the new rows besides those that are `coming`. Raises Problem."""
    for table, (name, most) in limited.items():
        rows = draft.replica.rows[table]
        n_rows = draft.view.count(rows) + sum(
            rows.get(uuid) is None for uuid in coming.get(table, ())
        )
        n_new = len(draft.inserted[table]) - len(draft.deleted.get(table, ()))
        if n_new > 0 and n_rows + n_new > most:
            raise Problem("quota", f"the tenant has {n_rows} of {most} {name}")
