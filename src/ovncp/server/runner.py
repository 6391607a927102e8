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
from time import perf_counter_ns
from typing import Any, Final, Protocol

import orjson

from ovncp.log.base import Log, LogError
from ovncp.ovsdb.database import Client, Database, Outcome
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.json_bytes import encode
from ovncp.ovsdb.monitor import Notification
from ovncp.ovsdb.row import Change
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.server import snapshot
from ovncp.server.change_log import ChangeLog
from ovncp.server.clock import Clock
from ovncp.server.coverage import COUNTERS, define
from ovncp.server.perf_counter import JOBS, Histogram
from ovncp.server.rate_limit import RateLimit

_LOG = logging.getLogger("ovncp.ovsdb")

define("txn_success", "txn_unchanged", "txn_error", "txn_wait", "txn_canceled")
define("log_append", "log_append_failed")

# What a transaction's time goes to; docs/metrics.md says where each stage ends.
_TURN: Final = JOBS.job("transaction_turn")
_EXECUTE: Final = JOBS.job("transaction_execute")
_STORE: Final = JOBS.job("transaction_store")
_TELL: Final = JOBS.job("transaction_tell")
_WHOLE: Final = JOBS.job("transaction")
_APPEND: Final = JOBS.job("log_append")

_FAILURES_PER_MINUTE: Final = 12
_FAILURES_AT_ONCE: Final = 5

_NO_OPERATIONS: Final[list[Any]] = []

BATCH_SIZES: Final = Histogram()
"""The numbers of entries that were appended to a log at once."""


class Owner(Client, Protocol):
    """A client that may hold locks."""

    def has_owned(self, name: str, since_ns: int) -> bool:
        """Whether it holds the lock `name`, and has all the time since then (`perf_counter_ns`)."""


class Requester(Owner, Protocol):
    """A client that is told of results and updates.

    `waiting` has the runner of each of its transactions that waits, by the JSON id.
    """

    waiting: "dict[bytes, Runner]"

    def reply(self, id_bytes: bytes, result: bytes) -> None:
        """Send the JSON `result` of the request with the JSON id `id_bytes`."""

    def reply_error(self, id_bytes: bytes, error: Any) -> None:
        """Send an error instead."""


class _Latecomer:
    """A client, to a request that executes later than it came.

    It asserts only what it has held all the time: what others wrote under the lock meanwhile, it
    did not know of when it asked.
    """

    def __init__(self, who: Owner, arrived_ns: int) -> None:
        self.read_only = who.read_only
        self.role = who.role
        self.identity = who.identity
        self._who = who
        self._arrived_ns = arrived_ns

    def owns_lock(self, name: str) -> bool:
        """See `Client.owns_lock`."""
        return self._who.has_owned(name, self._arrived_ns)


class Transact:
    """A "transact" request under way. `arrived_msec` is on the server's clock.

    It is executed as one of `who`, on whose behalf `client` may have sent it.
    `on_wait` is called each time it begins to wait. `arrived_ns` and `executed_ns` are on
    `perf_counter_ns`; what waited for a condition arrives again, to these, when it goes on.
    """

    __slots__ = (
        "arrived_msec",
        "arrived_ns",
        "client",
        "executed_ns",
        "id_bytes",
        "on_wait",
        "operations",
        "outcome",
        "who",
    )

    def __init__(
        self,
        client: Requester,
        id_bytes: bytes,
        operations: list[Any],
        arrived_msec: int,
        on_wait: Callable[[], None] = lambda: None,
        arrived_ns: int = 0,
    ) -> None:
        self.client = client
        self.who: Owner = client
        self.id_bytes = id_bytes
        self.operations = operations
        self.arrived_msec = arrived_msec
        self.on_wait = on_wait
        self.arrived_ns = arrived_ns or perf_counter_ns()
        self.executed_ns = 0
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
        # How many want that nothing executes.
        self._exclusive = 0
        self._alarm: asyncio.TimerHandle | None = None
        # Who is told of the names of the tables that changed.
        self.watchers: list[Callable[[set[str]], None]] = []
        # Who is told of the changes of tables that are logged.
        self.change_log: ChangeLog | None = None
        self.failure: LogError | None = None
        self._failures = RateLimit(_FAILURES_PER_MINUTE, _FAILURES_AT_ONCE)
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

    @property
    def model(self) -> str:
        """The service model (ovsdb(7), "Service Models")."""
        return "standalone"

    @property
    def is_available(self) -> bool:
        """Whether the schema and the data are known."""
        return True

    @property
    def is_connected(self) -> bool:
        """Whether the database can be changed (ovsdb-server(5), "connected")."""
        return True

    # Requests

    def transact(self, request: Transact) -> None:
        """Execute `request`, which has just arrived, when its turn comes, and answer the client."""
        if self._deferred or self._exclusive:
            self._deferred.append((partial(self._execute_late, request), False))
        else:
            self._execute(request, request.who, 0)

    def when_settled(self, action: Callable[[], None]) -> None:
        """Call `action` when its turn comes and all that executed before it is visible."""
        if self._deferred or self._exclusive or not self.database.is_settled:
            self._deferred.append((action, True))
        else:
            action()

    def is_latest(self, later: Callable[[], None]) -> bool:
        """Whether what is here cannot be older than what another server has shown.

        If it can be, `later` is called when it no longer can.
        """
        return True

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
            self._exclusive += 1
            turn.set_result(None)

        self.when_settled(begin)
        await turn
        try:
            return await job()
        finally:
            self._exclusive -= 1
            self._drain()

    def pass_on(self, method: str, params: list[Any], answered: Callable[[Any, Any], None]) -> bool:
        """Whether another process does what is asked; `answered` gets the result and the error."""
        return False

    def cancel(self, client: Requester, id_bytes: bytes) -> None:
        """Give up a transaction that waits (RFC 7047 section 4.1.4)."""
        for request in self._triggers:
            if request.client is client and request.id_bytes == id_bytes:
                self._give_up(request)
                return

    def _give_up(self, request: Transact) -> None:
        COUNTERS["txn_canceled"] += 1
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

    def _execute(self, request: Transact, who: Client, elapsed_msec: int) -> None:
        started = perf_counter_ns()
        outcome = request.outcome = self.database.transact(
            request.operations,
            who,
            now_msec=self.clock.wall_msec(),
            elapsed_msec=elapsed_msec,
        )
        executed = request.executed_ns = perf_counter_ns()
        _TURN.add(started - request.arrived_ns)
        _EXECUTE.add(executed - started)
        if outcome.results is None:
            self._wait(request)
        elif outcome.commit is None and self._may_answer_at_once():
            self._answer(request)
            _WHOLE.add(executed - request.arrived_ns)
        else:
            self._executed.append(request)
            self._start_to_flush()

    def _start_to_flush(self) -> None:
        """Have `_flush` run, unless it does."""
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())
            self._flushing.add_done_callback(end_if_failed)

    def _may_answer_at_once(self) -> bool:
        """Whether what changes nothing can be answered as soon as it has executed."""
        return not self._executed

    def _execute_late(self, request: Transact) -> None:
        who = _Latecomer(request.who, request.arrived_ns)
        self._execute(request, who, self.clock.now_msec() - request.arrived_msec)

    def _answer(self, request: Transact) -> None:
        if request.outcome.commit is None:
            COUNTERS["txn_error" if request.outcome.failed else "txn_unchanged"] += 1
        request.client.reply(request.id_bytes, encode(request.outcome.results))

    async def _flush(self) -> None:
        """Append what executed, batch by batch, and answer each batch when it is durable."""
        while self._executed:
            batch = list(self._executed)
            try:
                await self._append(batch)
            except LogError as error:
                self._fail(batch, error)
            else:
                self._settle(batch)
            if self.database.is_settled:
                self._drain()
        self._flushing = None

    async def _append(self, batch: list[Transact]) -> None:
        entries = entries_of(batch)
        if entries and self.log is not None:
            COUNTERS["log_append"] += 1
            BATCH_SIZES.add(len(entries))
            started = perf_counter_ns()
            await self._store(batch, entries)
            _APPEND.add(perf_counter_ns() - started)
            self.failure = None

    async def _store(self, batch: list[Transact], entries: list[bytes]) -> None:
        assert self.log is not None
        for request in batch:
            if is_stored(request):
                # Whatever comes of the append, it is not executed again.
                request.operations = _NO_OPERATIONS
        await self.log.append(self._next_index(), entries)

    def _next_index(self) -> int:
        """The index of the entry that follows what is visible."""
        assert self.log is not None
        return self.log.next_index

    def _settle(self, batch: list[Transact]) -> None:
        durable = perf_counter_ns()
        changed: set[str] = set()
        for request in batch:
            self._executed.popleft()
            _STORE.add(durable - request.executed_ns)
            if request.outcome.commit is not None:
                changed |= self._publish()
            self._answer(request)
        told = perf_counter_ns()
        _TELL.add(told - durable, len(batch))
        for request in batch:
            _WHOLE.add(told - request.arrived_ns)
        self._follow_up(changed)

    def _publish(self) -> set[str]:
        """Make the oldest commit visible; the names of the tables that it changed."""
        before = self.database.transaction_id
        commit, notifications = self.database.settle()
        COUNTERS["txn_success"] += 1
        return self._show(commit.changes, notifications, before)

    def _show(
        self, changes: list[Change], notifications: Sequence[Notification], before: str
    ) -> set[str]:
        """Tell of what is visible now; the names of the tables that changed."""
        if notifications:
            self._tell(notifications, before)
        if self.change_log is not None:
            self.change_log.show(changes)
        return {change.table.name for change in changes}

    def _follow_up(self, changed: set[str]) -> None:
        """Do what waits for a change of the tables `changed`."""
        for watch in self.watchers:
            watch(changed)
        if changed and self._triggers:
            self._retry(lambda waiting: not changed.isdisjoint(waiting.outcome.waits_on))

    def _fail(self, batch: list[Transact], error: LogError) -> None:
        """Take back all that is not durable; what was not in the failed append executes again."""
        COUNTERS["log_append_failed"] += 1
        self.failure = error
        self._failures.log(
            _LOG, logging.ERROR, "%s: cannot store transactions: %s", self.name, error
        )
        self._refuse(batch, error)

    def _refuse(self, batch: list[Transact], error: LogError) -> None:
        later = self._take_back()[len(batch) :]
        for request in batch:
            if is_stored(request):
                fail(request, error)
            else:
                later.append(request)
        self._execute_again(later)

    def _execute_again(self, requests: list[Transact]) -> None:
        """Execute `requests`, which had executed before those that wait for their turn."""
        if self._exclusive:
            actions = [(partial(self._execute_late, request), False) for request in requests]
            self._deferred.extendleft(reversed(actions))
            return
        for request in requests:
            self._execute_late(request)

    def _take_back(self) -> list[Transact]:
        """Undo all that is not durable; returns the requests, which are to execute again."""
        self.database.revert()
        requests = list(self._executed)
        self._executed.clear()
        return requests

    # Waiting

    def _wait(self, request: Transact) -> None:
        if refuse_duplicate(request):
            return
        COUNTERS["txn_wait"] += 1
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
            request.arrived_ns = perf_counter_ns()
            if self._deferred or self._exclusive:
                self._deferred.append((partial(self._execute_late, request), False))
            else:
                self._execute_late(request)

    # Upkeep

    def publish_replayed(self, json: Any) -> None:
        """Apply a transaction of the server itself to a database in memory."""
        before = self.database.transaction_id
        self._tell(self.database.replay(json, orjson.dumps(json))[1], before)
        self._follow_up(set(json))

    async def compact(self) -> None:
        """Replace the log's past by a snapshot of what is visible now. Raises LogError."""
        assert self.log is not None
        log = self.log
        moment = await self._moment()
        data = moment.data("compacting database online")
        await log.save_snapshot(moment.index, data, moment.history())
        await log.compact(moment.index)

    async def _moment(self) -> snapshot.Moment:
        """The state of now, with the index of the last entry that it includes."""

        async def take() -> snapshot.Moment:
            return snapshot.Moment(self.database, self._next_index() - 1, self.clock.wall_msec())

        moment: snapshot.Moment = await self.exclusively(take)
        return moment

    async def convert(self, schema: DatabaseSchema) -> None:
        """Give the database a new schema, keeping the data that fits.

        Nothing executes meanwhile. Raises OvsdbError or LogError, and then nothing has changed.
        """
        await self.exclusively(partial(self._convert, schema))
        for watch in self.watchers:
            watch(set(self.database.tables))

    async def _convert(self, schema: DatabaseSchema) -> None:
        assert self.log is not None
        self.database = await snapshot.convert(
            self.database, schema, self.log, self._next_index(), self.clock.wall_msec()
        )

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


def end_if_failed(task: "asyncio.Task[None]") -> None:
    """End the process for an error that is ours: what it shows and what is stored may differ now.

    All that was acknowledged is stored, and a new process shows what is stored.
    """
    if not task.cancelled() and task.exception() is not None:
        _LOG.critical("internal error", exc_info=task.exception())
        os.abort()


def is_stored(request: Transact) -> bool:
    """Whether what `request` has changed is to be in the log."""
    commit = request.outcome.commit
    return commit is not None and commit.data is not None


def entries_of(batch: list[Transact]) -> list[bytes]:
    """The entries that `batch` leaves in the log."""
    return [
        request.outcome.commit.data
        for request in batch
        if request.outcome.commit is not None and request.outcome.commit.data is not None
    ]


def fail(request: Transact, error: LogError) -> None:
    """Tell the client that what it asked for could be executed, but not stored."""
    COUNTERS["txn_error"] += 1
    request.outcome.results.append(log_failure(error).to_json())
    request.client.reply(request.id_bytes, encode(request.outcome.results))


def refuse_duplicate(request: Transact) -> bool:
    """Whether another transaction of the same id waits, which is answered then.

    The other came first, but had not executed yet when this one came.
    """
    if request.id_bytes not in request.client.waiting:
        return False
    error = OvsdbError("syntax error", "transact: duplicate request ID")
    request.client.reply_error(request.id_bytes, error.to_json())
    return True


def log_failure(error: LogError) -> OvsdbError:
    """The error that tells a client of a failure of the log."""
    return OvsdbError(error.tag, error.details, io_error=error.io_error)
