"""Writes that come together go together: one OVSDB transaction for many (group commit).

While a group is on its way the next one gathers. It goes when that is answered, when it is full, or
when its first write has waited for `timeout_s`; at most so many are on their way at once. A
transaction fails as a whole, so when a group fails its writes are executed again one by one, each
with a result of its own.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ovncp.ovn.draft import Operation, Unmet
from ovncp.ovn.replica import Replica


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
    operations: Sequence[Operation]
    done: asyncio.Future[list[Any]]


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

    async def write(self, operations: Sequence[Operation]) -> list[Any]:
        """The results of `operations`, executed in a group with others. Raises as `alone`."""
        done: asyncio.Future[list[Any]] = self._loop.create_future()
        self._gathered.append(_Waiting(operations, done))
        if len(self._gathered) == 1:
            self._timer = self._loop.call_later(self._grouping.timeout_s, self._send_if_room)
        if self._n_under_way == 0:
            # At the end of this turn, so that what came together goes together.
            self._loop.call_soon(self._send_if_idle)
        elif len(self._gathered) >= self._grouping.size:
            self._send_if_room()
        return await done

    async def alone(self, operations: Sequence[Operation]) -> list[Any]:
        """The results of `operations`, executed as a transaction.

        Raises SessionLost, and Rejected.
        """
        answer = await self._replica.transact(operations)
        if answer.error is not None:
            raise Rejected("error", str(answer.error), None)
        return checked(answer.result, len(operations))

    def _send_if_idle(self) -> None:
        if self._n_under_way == 0:
            self._send_if_room()

    def _send_if_room(self) -> None:
        while self._gathered and self._n_under_way < self._grouping.max_concurrent:
            size = self._grouping.size
            group, self._gathered = self._gathered[:size], self._gathered[size:]
            self._n_under_way += 1
            task = self._loop.create_task(self._send(group))
            self._groups.add(task)
            task.add_done_callback(self._sent)
        if self._timer is not None and not self._gathered:
            self._timer.cancel()

    def _sent(self, task: "asyncio.Task[None]") -> None:
        self._groups.discard(task)
        self._n_under_way -= 1
        self._send_if_room()

    async def _send(self, group: list[_Waiting]) -> None:
        self._observe(len(group))
        if len(group) > 1:
            try:
                results = await self.alone([o for each in group for o in each.operations])
            except Rejected:
                await asyncio.gather(*map(self._send_one, group))
            except Exception as error:  # noqa: BLE001 - whoever wrote is told
                for each in group:
                    _fail(each, error)
            else:
                for each in group:
                    n_operations = len(each.operations)
                    _succeed(each, results[:n_operations])
                    results = results[n_operations:]
        else:
            await self._send_one(group[0])

    async def _send_one(self, waiting: _Waiting) -> None:
        try:
            _succeed(waiting, await self.alone(waiting.operations))
        except Exception as error:  # noqa: BLE001 - whoever wrote is told
            _fail(waiting, error)


def _succeed(waiting: _Waiting, results: list[Any]) -> None:
    if not waiting.done.done():
        waiting.done.set_result(results)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)


def checked(results: list[Any], n_operations: int) -> list[Any]:
    """The results of a transaction of so many operations. Raises Rejected."""
    for place, result in enumerate(results):
        if type(result) is dict and "error" in result:
            where = place if place < n_operations else None
            raise Rejected(result["error"], result.get("details", ""), where)
    return results


def reason(error: Rejected, conditions: dict[int, Unmet]) -> Unmet | Rejected:
    """What it means that the transaction was rejected, whose conditions are these."""
    if error.tag == "timed out" and error.place is not None:
        return conditions.get(error.place, error)
    return error
