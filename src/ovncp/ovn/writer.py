"""Writes that come together go together: one OVSDB transaction for many (group commit).

While a group is on its way the next one gathers. It goes when that is answered, when it is full, or
when its first write has waited for `timeout_s`; at most so many are on their way at once. A
transaction fails as a whole, so when a group fails its writes are executed again one by one, each
with a result of its own.

A group is as good as its writes one after the other. So two of which one relies on what the other
changes are not in the same one; nor is what deletes rows with anything else, since C's server would
leave weak references to them in rows that others change.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ovncp.ovn.draft import Draft, Operation, Unmet
from ovncp.ovn.replica import Replica

_LOG = logging.getLogger("ovncp.ovn")


@dataclass(frozen=True)
class Grouping:
    """How writes are grouped: writes in a group, seconds to gather, groups on their way."""

    size: int = 100
    timeout_s: float = 0.1
    max_concurrent: int = 4


class Rejected(Exception):
    """The database did not execute the transaction.

    `tag` and `details` are those of RFC 7047 section 3.1, `place` that of the operation that
    failed; None is the commit.
    """

    def __init__(self, tag: str, details: str, place: int | None) -> None:
        super().__init__(f"{tag}: {details}" if details else tag)
        self.tag = tag
        self.details = details
        self.place = place


@dataclass(eq=False)
class _Waiting:
    draft: Draft
    done: asyncio.Future[None]


class Writer:
    """Executes operations on `replica`. `observe` is told the number of writes in each group."""

    def __init__(
        self,
        replica: Replica,
        grouping: Grouping = Grouping(),
        observe: Callable[[int], None] = lambda n_writes: None,
    ) -> None:
        self._replica = replica
        self._grouping = grouping
        self._observe = observe
        self._gathered: list[_Waiting] = []
        self._n_under_way = 0
        self._timer: asyncio.TimerHandle | None = None
        self._groups: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    async def write(self, draft: Draft) -> None:
        """Execute `draft`, in a group with others. Raises as `alone`."""
        if draft.deletes:
            await self.alone(draft)
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._gathered.append(_Waiting(draft, done))
        if len(self._gathered) == 1:
            self._timer = self._loop.call_later(self._grouping.timeout_s, self._send_if_room)
        if self._n_under_way == 0:
            # At the end of this turn, so that what came together goes together.
            self._loop.call_soon(self._send_if_idle)
        elif len(self._gathered) >= self._grouping.size:
            self._send_if_room()
        await done

    async def alone(self, draft: Draft) -> None:
        """Execute `draft` in a transaction of its own.

        Raises SessionLost, Rejected, and Unmet.
        """
        try:
            await self._execute(draft.operations)
        except Rejected as error:
            raise meaning(error, draft) from error

    async def _execute(self, operations: Sequence[Operation]) -> None:
        answer = await self._replica.transact(operations)
        if answer.error is not None:
            raise Rejected("error", str(answer.error), None)
        check(answer.result, len(operations))

    def _send_if_idle(self) -> None:
        if self._n_under_way == 0:
            self._send_if_room()

    def _send_if_room(self) -> None:
        while self._gathered and self._n_under_way < self._grouping.max_concurrent:
            group = self._take_group()
            self._n_under_way += 1
            task = self._loop.create_task(self._send(group))
            self._groups.add(task)
            task.add_done_callback(self._sent)
        if self._timer is not None and not self._gathered:
            self._timer.cancel()

    def _take_group(self) -> list[_Waiting]:
        """Those that can go together, of the first ones."""
        group: list[_Waiting] = []
        left: list[_Waiting] = []
        guards: set[Hashable] = set()
        touches: set[Hashable] = set()
        for each in self._gathered:
            draft = each.draft
            is_apart = draft.touches.isdisjoint(guards) and draft.guards.isdisjoint(touches)
            if is_apart and len(group) < self._grouping.size:
                group.append(each)
                guards |= draft.guards
                touches |= draft.touches
            else:
                left.append(each)
        self._gathered = left
        return group

    def _sent(self, task: "asyncio.Task[None]") -> None:
        self._groups.discard(task)
        self._n_under_way -= 1
        self._send_if_room()

    async def _send(self, group: list[_Waiting]) -> None:
        self._observe(len(group))
        try:
            if len(group) > 1:
                await self._execute([o for each in group for o in each.draft.operations])
                for each in group:
                    _succeed(each)
                return
        except Rejected as error:
            _LOG.info("%d writes are executed one by one: %s", len(group), error)
        except Exception as error:  # noqa: BLE001 - whoever wrote is told
            for each in group:
                _fail(each, error)
            return
        await asyncio.gather(*map(self._send_one, group))

    async def _send_one(self, waiting: _Waiting) -> None:
        try:
            await self.alone(waiting.draft)
        except Exception as error:  # noqa: BLE001 - whoever wrote is told
            _fail(waiting, error)
        else:
            _succeed(waiting)


def _succeed(waiting: _Waiting) -> None:
    if not waiting.done.done():
        waiting.done.set_result(None)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)


def check(results: Sequence[Any], n_operations: int) -> None:
    """See that a transaction of so many operations succeeded. Raises Rejected."""
    for place, result in enumerate(results):
        if type(result) is dict and "error" in result:
            where = place if place < n_operations else None
            raise Rejected(result["error"], result.get("details", ""), where)


def meaning(error: Rejected, draft: Draft) -> Unmet | Rejected:
    """What it means that `draft` was rejected."""
    if error.tag == "timed out" and error.place is not None:
        return draft.conditions[error.place]
    return error
