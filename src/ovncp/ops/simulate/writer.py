"""The CMS: it writes to ports at a given rate, whether or not the server keeps up.

What it has not been answered when the connection is lost, it writes again on the next one: a write
says which version of the row it makes, so that doing it twice changes nothing.
"""

import asyncio
import time
from array import array
from typing import Any

from ovncp.follow.link import Connect
from ovncp.ops.client import Client, words
from ovncp.ops.refusal import Refusal
from ovncp.ops.simulate.ledger import Ledger
from ovncp.ops.simulate.plan import Plan, update
from ovncp.wire.client import Answer

_TICK_SEC = 0.005
_PAUSE_SEC = 0.05
_GIVE_UP_SEC = 60.0

_Write = tuple[int, int, float]  # the port, its version, and when it was sent


class Writer:
    """Writes to the ports in turn: the rows `uuids` of `table` in `database`.

    `failure` says what became of the first of the `failed` writes.
    """

    def __init__(
        self, plan: Plan, connect: Connect, ledger: Ledger, table: tuple[str, str], uuids: list[str]
    ) -> None:
        self.writes = 0
        self.failed = 0
        self.failure = ""
        self.answered = array("d")
        self.last_write = 0.0
        self._plan = plan
        self._ledger = ledger
        self._database, self._table = table
        self._uuids = uuids
        self._unanswered = 0
        self._client = Client(connect)
        self._client.answered = self._take_answer
        self._client.lost = self._lost
        self._returning: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises OSError."""
        await self._client.open()

    async def close(self) -> None:
        """Write no more."""
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.wait([self._returning])
        self._client.close()

    @property
    def unanswered(self) -> int:
        """How many writes the server has not answered yet."""
        return self._unanswered

    def burst(self, number: int) -> None:
        """Send so many writes at once."""
        for _ in range(number):
            self._write()
        self._client.flush()

    async def pace(self, per_second: float, seconds: float, stopping: asyncio.Event) -> None:
        """Send so many writes per second, until `stopping` is set at the latest."""
        start, sent = time.perf_counter(), 0
        while not stopping.is_set():
            elapsed = min(time.perf_counter() - start, seconds)
            due = int(elapsed * per_second)
            self.burst(due - sent)
            sent = due
            if elapsed == seconds:
                return
            await asyncio.sleep(_TICK_SEC)

    async def answers(self, seconds: float) -> None:
        """Wait until all writes are answered, but not for longer."""
        deadline = time.perf_counter() + seconds
        while self._unanswered and time.perf_counter() < deadline:
            await asyncio.sleep(_TICK_SEC)

    def _write(self) -> None:
        port = self.writes % len(self._uuids)
        now = time.perf_counter()
        self.writes += 1
        self.last_write = now
        self._unanswered += 1
        self._post((port, self._ledger.write(port, now), now))

    def _post(self, write: _Write) -> None:
        port, version, _ = write
        row = {"options": self._plan.version(port, version)}
        operation = update(self._table, self._uuids[port], row)
        self._client.post("transact", [self._database, operation], write)

    def _take_answer(self, about: Any, answer: Answer) -> None:
        port, version, sent = about
        self._unanswered -= 1
        if answer.error is None and answer.result == [{"count": 1}]:
            self.answered.append(time.perf_counter() - sent)
            return
        self.failed += 1
        self.failure = self.failure or _failure(answer)
        self._ledger.fail(port, version)

    def _lost(self, abandoned: list[Any]) -> None:
        for write in abandoned:
            self._post(write)
        self._returning = asyncio.get_running_loop().create_task(self._return())

    async def _return(self) -> None:
        deadline = time.perf_counter() + _GIVE_UP_SEC
        while True:
            try:
                await self._client.open()
            except OSError as error:
                if time.perf_counter() > deadline:
                    raise Refusal(f"the server does not come back: {error}") from error
                await asyncio.sleep(_PAUSE_SEC)
            else:
                return


def _failure(answer: Answer) -> str:
    if answer.error is not None:
        return words(answer.error)
    errors = [words(result) for result in answer.result if result and "error" in result]
    return errors[0] if errors else "the row is gone; has ovn-northd deleted it?"
