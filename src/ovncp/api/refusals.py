"""What was refused by role, for the audit trail: each attempt, as long as they are few.

Who tries again and again is not to fill the database: of all that somebody is refused within a
minute at this node, the first ones are records of their own, and the others one, with their number.
"""

import asyncio
from dataclasses import dataclass, replace

from ovncp.api.audit import Audit, Record
from ovncp.cluster.background import end

FEW = 10
SEVERAL = "several"
"""The action, and the resource, of a record of many attempts."""
_WINDOW_SECONDS = 60.0


@dataclass(eq=False)
class _Lately:
    """What somebody was refused since a minute began; `last` is what is not told yet."""

    audit: Audit
    ending: asyncio.Task[None] | None = None
    n: int = 0
    last: Record | None = None

    async def sum_up(self) -> None:
        if self.last is not None:
            last, self.last = self.last, None
            told = {"refused": self.n - FEW}
            many = replace(last, action=SEVERAL, resource=SEVERAL, uuid="", after=told, tenant=None)
            await self.audit.record([many])


_Who = tuple[str, str | None]  # principal, the tenant that they ask for


class Refusals:
    """Those of one node."""

    def __init__(self) -> None:
        self._lately: dict[_Who, _Lately] = {}

    async def tell(self, audit: Audit, record: Record) -> None:
        """Tell `audit` of an attempt, now or with others."""
        who = record.principal.id, record.principal.tenant
        lately = self._lately.get(who)
        if lately is None:
            lately = self._lately[who] = _Lately(audit)
            lately.ending = asyncio.create_task(self._end(who, lately))
        lately.n += 1
        if lately.n > FEW:
            lately.last = record
        else:
            await audit.record([record])

    async def _end(self, who: _Who, lately: _Lately) -> None:
        await asyncio.sleep(_WINDOW_SECONDS)
        del self._lately[who]
        await lately.sum_up()

    async def close(self) -> None:
        """Tell what is not told yet."""
        left = list(self._lately.values())
        self._lately.clear()
        await end([each.ending for each in left if each.ending is not None])
        for each in left:
            await each.sum_up()
