"""Runs one database: performs what `Database` asks for, in the order that makes it safe.

Requests execute at once, on top of those whose entries are still being appended, and are answered
in the order in which they executed, when all before them is durable (group commit). A request that
must see exactly what is visible waits until nothing is under way. When an append fails, all that
is not durable is taken back; the requests of that append fail, and the later ones execute again.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

import orjson

from ovncp.log.base import Log, LogError
from ovncp.ovsdb import entry
from ovncp.ovsdb.database import Client, Database, Outcome
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.monitor import Notification
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.server.change_log import ChangeLog
from ovncp.server.clock import Clock
from ovncp.server.coverage import COUNTERS, define
from ovncp.server.perf_counter import JOBS
from ovncp.server.snapshot import Moment

_LOG = logging.getLogger("ovncp.ovsdb")

define("txn_success", "txn_error", "txn_aborted", "log_append", "log_append_failed")


class Requester(Client, Protocol):
    """A client that is told of results and updates.

    `waiting` has the runner of each of its transactions that waits, by the JSON id.
    """

    waiting: "dict[bytes, Runner]"

    def reply(self, id_bytes: bytes, result: bytes) -> None:
        """Send the JSON `result` of the request with the JSON id `id_bytes`."""

    def reply_error(self, id_bytes: bytes, error: Any) -> None:
        """Send an error instead."""


class Transact:
    """A "transact" request under way. `arrived_msec` is on the server's clock.

    `on_wait` is called each time it begins to wait.
    """

    __slots__ = ("arrived_msec", "client", "id_bytes", "on_wait", "operations", "outcome")

    def __init__(
        self,
        client: Requester,
        id_bytes: bytes,
        operations: list[Any],
        arrived_msec: int,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.client = client
        self.id_bytes = id_bytes
        self.operations = operations
        self.arrived_msec = arrived_msec
        self.on_wait = on_wait
        self.outcome: Outcome


class Runner:
    """One database and its log. `tell` sends notifications to the sessions that they are for.

    A database with no log (`_Server`) is in memory only.
    """

    def __init__(
        self,
        database: Database,
        log: Log | None,
        clock: Clock,
        tell: Callable[[Sequence[Notification], str], None],
    ) -> None:
        self.database = database
        self.log = log
        self.clock = clock
        self._tell = tell
        self._executed: deque[Transact] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._triggers: dict[Transact, None] = {}
        # What waits for its turn, and whether it wants everything settled.
        self._deferred: deque[tuple[Callable[[], None], bool]] = deque()
        self._exclusive = False
        self._alarm: asyncio.TimerHandle | None = None
        # Who is told of the names of the tables that changed.
        self.watchers: list[Callable[[set[str]], None]] = []
        # Who is told of the changes of tables that are logged.
        self.change_log: ChangeLog | None = None
        self.failure: LogError | None = None
        self.closed = False
        clock.on_warp(self._try_overdue)

    @property
    def name(self) -> str:
        """The database's name."""
        return self.database.name

    @property
    def n_triggers(self) -> int:
        """How many transactions wait for a condition."""
        return len(self._triggers)

    # Requests

    def transact(self, request: Transact) -> None:
        """Execute `request`, which has just arrived, when its turn comes, and answer the client."""
        if self._deferred or self._exclusive:
            self._deferred.append((partial(self._execute_late, request), False))
        else:
            self._execute(request, 0)

    def when_settled(self, action: Callable[[], None]) -> None:
        """Call `action` when its turn comes and all that executed before it is visible."""
        if self._deferred or self._exclusive or not self.database.is_settled:
            self._deferred.append((action, True))
        else:
            action()

    def _drain(self) -> None:
        """Run what was deferred, as far as may be."""
        while self._deferred and not self._exclusive:
            action, needs_settled = self._deferred[0]
            if needs_settled and not self.database.is_settled:
                return
            self._deferred.popleft()
            action()

    async def exclusively(self, job: Callable[[], Awaitable[Any]]) -> Any:
        """Run `job` when all is settled, while no request executes; returns what it returns."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def begin() -> None:
            self._exclusive = True
            turn.set_result(None)

        self.when_settled(begin)
        await turn
        try:
            return await job()
        finally:
            self._exclusive = False
            self._drain()

    def cancel(self, client: Requester, id_bytes: bytes) -> None:
        """Give up a transaction that waits (RFC 7047 section 4.1.4)."""
        for request in self._triggers:
            if request.client is client and request.id_bytes == id_bytes:
                self._give_up(request)
                return

    def _give_up(self, request: Transact) -> None:
        self._wake(request)
        request.client.reply_error(request.id_bytes, "canceled")

    def give_up_all(self) -> None:
        """Give up all transactions that wait."""
        for request in list(self._triggers):
            self._give_up(request)

    def cancel_all(self, client: Requester) -> None:
        """Forget the waiting transactions of a client that is gone."""
        for request in [request for request in self._triggers if request.client is client]:
            self._wake(request)

    # Execution

    def _execute(self, request: Transact, elapsed_msec: int) -> None:
        outcome = request.outcome = self.database.transact(
            request.operations,
            request.client,
            now_msec=self.clock.wall_msec(),
            elapsed_msec=elapsed_msec,
        )
        if outcome.results is None:
            self._wait(request)
        elif outcome.commit is None and not self._executed:
            self._answer(request)
        else:
            self._executed.append(request)
            if self._flushing is None:
                self._flushing = asyncio.get_running_loop().create_task(self._flush())
                self._flushing.add_done_callback(_end_if_failed)

    def _execute_late(self, request: Transact) -> None:
        self._execute(request, self.clock.now_msec() - request.arrived_msec)

    def _answer(self, request: Transact) -> None:
        request.client.reply(request.id_bytes, orjson.dumps(request.outcome.results))

    async def _flush(self) -> None:
        """Append what executed, batch by batch, and answer each batch when it is durable."""
        while self._executed:
            batch = list(self._executed)
            try:
                await self._append(batch)
            except LogError as error:
                self._fail(batch, error)
            else:
                self._settle(len(batch))
            if self.database.is_settled:
                self._drain()
        self._flushing = None

    async def _append(self, batch: list[Transact]) -> None:
        entries = [
            request.outcome.commit.data
            for request in batch
            if request.outcome.commit is not None and request.outcome.commit.data is not None
        ]
        if entries and self.log is not None:
            COUNTERS["log_append"] += 1
            await self.log.append(self.log.next_index, entries)
            self.failure = None

    def _settle(self, n_requests: int) -> None:
        started = JOBS.start()
        changed: set[str] = set()
        for _ in range(n_requests):
            request = self._executed.popleft()
            if request.outcome.commit is not None:
                changed |= self._publish()
            self._answer(request)
        for watch in self.watchers:
            watch(changed)
        JOBS.finish("settle", started, n_requests)
        if changed and self._triggers:
            self._retry(lambda waiting: not changed.isdisjoint(waiting.outcome.waits_on))

    def _publish(self) -> set[str]:
        """Make the oldest commit visible; the names of the tables that it changed."""
        before = self.database.transaction_id
        commit, notifications = self.database.settle()
        COUNTERS["txn_success"] += 1
        self._tell(notifications, before)
        if self.change_log is not None:
            self.change_log.show(commit.changes)
        return {change.table.name for change in commit.changes}

    def _fail(self, batch: list[Transact], error: LogError) -> None:
        """Take back all that is not durable; what was not in the failed append executes again."""
        COUNTERS["log_append_failed"] += 1
        self.failure = error
        _LOG.error("%s: cannot store transactions: %s", self.name, error)
        self.database.revert()
        later = list(self._executed)[len(batch) :]
        self._executed.clear()
        for request in batch:
            if request.outcome.commit is None or request.outcome.commit.data is None:
                later.append(request)
                continue
            request.outcome.results.append(log_failure(error).to_json())
            self._answer(request)
        for request in later:
            self._execute_late(request)

    # Waiting

    def _wait(self, request: Transact) -> None:
        if request.id_bytes in request.client.waiting:
            # Its namesake came first, but had not executed yet when this one came.
            error = OvsdbError("syntax error", "transact: duplicate request ID")
            request.client.reply_error(request.id_bytes, error.to_json())
            return
        self._triggers[request] = None
        request.client.waiting[request.id_bytes] = self
        request.on_wait()
        self._set_alarm()

    def _wake(self, request: Transact) -> None:
        del self._triggers[request]
        del request.client.waiting[request.id_bytes]

    def _deadline(self, request: Transact) -> int | None:
        timeout = request.outcome.timeout_msec
        return None if timeout is None else request.arrived_msec + timeout

    def _set_alarm(self) -> None:
        """Be woken when the first of the waiting transactions has waited enough."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        deadlines = [
            deadline for t in self._triggers if (deadline := self._deadline(t)) is not None
        ]
        if deadlines:
            delay = max(0, min(deadlines) - self.clock.now_msec()) / 1000
            self._alarm = asyncio.get_running_loop().call_later(delay, self._try_overdue)

    def _try_overdue(self) -> None:
        if not self._triggers:
            return
        now = self.clock.now_msec()

        def is_overdue(request: Transact) -> bool:
            deadline = self._deadline(request)
            return deadline is not None and deadline <= now

        self._retry(is_overdue)
        self._set_alarm()

    def _retry(self, wanted: Callable[[Transact], bool]) -> None:
        for request in [request for request in self._triggers if wanted(request)]:
            self._wake(request)
            if self._deferred or self._exclusive:
                self._deferred.append((partial(self._execute_late, request), False))
            else:
                self._execute_late(request)

    # Upkeep

    def publish_replayed(self, json: Any) -> None:
        """Apply a transaction of the server itself to a database in memory."""
        before = self.database.transaction_id
        self._tell(self.database.replay(json, orjson.dumps(json)), before)

    async def compact(self) -> None:
        """Replace the log's past by a snapshot of what is visible now. Raises LogError."""
        assert self.log is not None
        log = self.log
        moment = await self._moment()
        await log.save_snapshot(moment.index, moment.chunks())
        await log.compact(moment.index)

    async def _moment(self) -> Moment:
        """The state of now, with the index of the last entry that it includes."""
        log = self.log
        assert log is not None

        async def take() -> Moment:
            return Moment(self.database, log.next_index - 1, self.clock.wall_msec())

        moment: Moment = await self.exclusively(take)
        return moment

    async def convert(self, schema: DatabaseSchema) -> None:
        """Give the database a new schema, keeping the data that fits.

        Nothing executes meanwhile. Raises OvsdbError or LogError, and then nothing has changed.
        """

        async def job() -> None:
            moment = Moment(self.database, 0, self.clock.wall_msec())
            data = await moment.text()
            converted = Database(
                schema,
                self.database.new_uuid,
                self.database.settings,
                self.database.transaction_id,
            )
            json = orjson.loads(data)
            entry.spell_out_defaults(json, self.database.tables, converted.tables)
            converted.replay(json, data, converting=True)
            if self.log is not None:
                fitting = Moment(converted, 0, self.clock.wall_msec())
                schema_json = orjson.dumps(schema.to_json())
                await self.log.convert(self.log.next_index, schema_json, fitting.chunks())
            self.database = converted

        await self.exclusively(job)
        for watch in self.watchers:
            watch(set(self.database.tables))

    async def close(self) -> None:
        """Finish what is under way and close the log; waiting transactions are given up."""
        self.closed = True
        self.clock.forget(self._try_overdue)
        self.give_up_all()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._flushing is not None:
            await self._flushing
        if self.log is not None:
            await self.log.close()


def _end_if_failed(flushing: "asyncio.Task[None]") -> None:
    """End the process for an error that is ours: what it shows and what is stored may differ now.

    All that was acknowledged is stored, and a new process shows what is stored.
    """
    if not flushing.cancelled() and flushing.exception() is not None:
        _LOG.critical("internal error", exc_info=flushing.exception())
        os.abort()


def log_failure(error: LogError) -> OvsdbError:
    """The error that tells a client of a failure of the log."""
    return OvsdbError(error.tag, error.details, io_error=error.io_error)
