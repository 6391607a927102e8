"""Waiting for others to have seen a change: the server, southbound, the hypervisors (ovn-nb(5)).

`NB_Global` counts on its `nb_cfg` up to wherever somebody wants to know; ovn-northd copies it to
`sb_cfg` once the Southbound has what came before, and to `hv_cfg` once all hypervisors have. Those
who come to wait together count together.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from ovncp.ovn.draft import Unmet
from ovncp.ovn.replica import Replica
from ovncp.ovn.session import SessionLost
from ovncp.ovn.writer import check

T = TypeVar("T")

GLOBAL = "NB_Global"
LEVELS = {"sb": "sb_cfg", "hv": "hv_cfg"}
"""The columns of NB_Global that tell who has seen what, by what `wait` says."""

_COUNT: list[dict[str, Any]] = [
    {"op": "mutate", "table": GLOBAL, "where": [], "mutations": [["nb_cfg", "+=", 1]]},
    {"op": "select", "table": GLOBAL, "where": [], "columns": ["nb_cfg"]},
]


class Shared(Generic[T]):
    """Does something once for all who ask for it before it has begun."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._next: asyncio.Task[T] | None = None

    async def done(self) -> T:
        """The result of the work, begun after this was called. Raises what it does."""
        if self._next is None:
            self._next = asyncio.create_task(self._begin())
        return await asyncio.shield(self._next)

    async def _begin(self) -> T:
        await asyncio.sleep(0)
        self._next = None
        return await self._work()


class Barrier:
    """What has to be waited for, of a database that is followed as `replica`."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._server = Shared(self._ask_server)
        self._counted = Shared(self._count)

    async def server(self) -> None:
        """Return when all is here that was committed before. Raises SessionLost."""
        await self._server.done()

    async def _ask_server(self) -> None:
        await self._replica.transact([])

    def check(self) -> None:
        """See that there is something to count with. Raises Unmet."""
        if not len(self._replica.rows.get(GLOBAL, ())):
            raise Unmet(f"{GLOBAL} has no row: nothing follows the Northbound")

    async def seen(self, level: str, seconds: float) -> bool:
        """Whether all that was committed before is seen at `level` within that time.

        It is not where that cannot be found out, since the database is out of reach.
        """
        try:
            async with asyncio.timeout(seconds):
                number = await self._counted.done()
                while self._value(LEVELS[level]) < number:
                    await self._replica.changed()
        except (TimeoutError, SessionLost):
            return False
        return True

    async def _count(self) -> int:
        answer = await self._replica.transact(_COUNT)
        check(answer.result, len(_COUNT))
        number: int = answer.result[1]["rows"][0]["nb_cfg"]
        return number

    def _value(self, name: str) -> int:
        rows = self._replica.rows[GLOBAL]
        column = rows.table.columns[name]
        return max((row.values[column.index] for row in rows.values()), default=0)
