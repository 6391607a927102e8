"""A database that is a copy of another server's (ovsdb(7), "Relay Service Model").

Its log is the source's "monitor_cond_since": each update of the source becomes one commit here,
under the source's transaction id, so that a client may resume here, at another relay or at the
source. Monitors, and transactions that only read, are answered here. All others are forwarded; a
reply comes after the updates that came before it, so that a client sees what it has written.

A client that may not do everything is checked here, since the source does not know it: what it
asks for is executed and taken back before it is forwarded.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter_ns
from typing import Any, Final

from ovncp.follow.following import Following
from ovncp.follow.link import Job, SourceDatabase, ignore
from ovncp.ovsdb.atom import ZERO_UUID
from ovncp.ovsdb.database import Client, Database, Settings
from ovncp.ovsdb.execution import only_reads
from ovncp.ovsdb.json_bytes import encode
from ovncp.ovsdb.monitor import Notification
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.transaction import Transaction
from ovncp.server.clock import Clock
from ovncp.server.coverage import COUNTERS, define
from ovncp.server.perf_counter import JOBS
from ovncp.server.runner import Requester, Runner, Transact, refuse_duplicate
from ovncp.server.upstream import Upstream

_LOG = logging.getLogger("ovncp.relay")

define("txn_forward_sent", "txn_forward_complete", "txn_forward_cancel", "relay_update")
define("relay_full_dump")

_FORWARD: Final = JOBS.job("transaction_forward")

_PATIENCE_MSEC = 30_000
"""How long a lost source may be absent before clients are told, so that a restart of it does not
send all of them elsewhere; C's relays wait as long."""

_MOST_WAITING = 10_000  # transactions of one client


class Relay(Runner):
    """The database `name` of the source behind `upstream`.

    `announce` is called when what `_Server` shows of it may have changed, `replaced` when it has
    another schema.
    """

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        clock: Clock,
        tell: Callable[[Sequence[Notification], str], None],
        new_uuid: Callable[[], str],
        settings: Settings,
    ) -> None:
        super().__init__(
            Database(DatabaseSchema(name, "", ""), new_uuid, settings), None, clock, tell
        )
        self.upstream = upstream
        self.announce: Callable[[Relay], None]
        self.replaced: Callable[[Relay], None]
        self._is_available = False
        self._announced = (False, False)
        self._patience: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._following = Following(self, upstream)
        self._is_source_usable = False
        self._has_source_id = False
        self._lost_msec: int | None = None
        # Requests on their way to the source: those that are not sent yet, and those that are.
        self._unsent: dict[Transact, None] = {}
        self._sent: dict[Transact, int] = {}

    # What `_Server` shows

    @property
    def model(self) -> str:
        return "relay"

    @property
    def is_available(self) -> bool:
        return self._is_available

    @property
    def is_connected(self) -> bool:
        """Whether the source is in reach, or was a short while ago."""
        if self._may_forward:
            return True
        if self._lost_msec is None:
            return False
        return self.clock.now_msec() - self._lost_msec < _PATIENCE_MSEC

    @property
    def _may_forward(self) -> bool:
        return self._following.is_synchronized and self._is_source_usable

    # Following the source

    def move(self, upstream: Upstream) -> None:
        """Follow another source from now on."""
        self._leave_source()
        self.source_lost()
        self.upstream = self._following.source = upstream
        upstream.attach(self)

    def _leave_source(self) -> None:
        self.upstream.detach(self)
        if self._following.monitor_id is not None and self.upstream.is_connected:
            self.upstream.request("monitor_cancel", [self._following.monitor_id], ignore)

    def source_is(self, shown: SourceDatabase | None) -> None:
        """See `Follower.source_is`."""
        self._note_whether_usable(shown is not None and shown.is_usable)
        if shown is not None and shown.schema is not None and self._is_source_usable:
            self._following.follow(shown.schema)

    def source_says(self, method: str, params: list[Any]) -> Job | None:
        """See `Follower.source_says`."""
        return self._following.told(method, params)

    def _note_whether_usable(self, usable: bool) -> None:
        could = self._may_forward
        self._is_source_usable = usable
        self._note_connection(could)

    def _note_connection(self, could: bool) -> None:
        """Act on that transactions can be forwarded now, or no more; `could` is from before."""
        if could and not self._may_forward:
            self._lost_msec = self.clock.now_msec()
            self._patience = self._loop.create_task(self._lose_patience())
        elif self._may_forward:
            self._lost_msec = None
            self._end_patience()
            self._send_all()
        self._announce()

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    async def _lose_patience(self) -> None:
        await self.clock.sleep(_PATIENCE_MSEC)
        self._announce()

    def _announce(self) -> None:
        shown = (self.is_available, self.is_connected)
        if shown != self._announced:
            self._announced = shown
            self.announce(self)

    # Being a copy (see `Copy`)

    def known_id(self) -> str | None:
        """See `Copy.known_id`."""
        if not self.is_available:
            return None
        return self.database.transaction_id if self._has_source_id else ZERO_UUID

    def begin(self, schema: DatabaseSchema, last_id: str) -> Database:
        """See `Copy.begin`."""
        old = self.database
        return Database(schema, old.new_uuid, old.settings, self._id_for(last_id))

    def replace(self, database: Database, last_id: str) -> None:
        """See `Copy.replace`."""
        self.database = database
        self.replaced(self)
        self._is_available = True
        self._follow_up(set(database.tables))

    def apply(self, transaction: Transaction, last_id: str) -> None:
        """See `Copy.apply`."""
        COUNTERS["relay_update"] += 1
        before = self.database.transaction_id
        if last_id == before and not transaction.changes:
            return
        changes, notifications = self.database.apply(transaction, self._id_for(last_id))
        self._follow_up(self._show(changes, notifications, before))

    def _id_for(self, last_id: str) -> str:
        """The source's id; one of our own if the source has none."""
        self._has_source_id = last_id != ZERO_UUID
        return last_id if self._has_source_id else self.database.new_uuid()

    def synchronized(self, *, by_dump: bool) -> None:
        """See `Copy.synchronized`."""
        COUNTERS["relay_full_dump"] += by_dump
        self._note_connection(could=False)

    def unsynchronized(self, *, was_synchronized: bool) -> None:
        """See `Copy.unsynchronized`."""
        self._note_connection(was_synchronized and self._is_source_usable)

    def canceled(self) -> bool:
        """See `Copy.canceled`."""
        if self._is_source_usable:
            self.replaced(self)
        return self._is_source_usable

    def distrust(self, error: Exception) -> None:
        """See `Copy.distrust`."""
        _LOG.warning("%s: %s", self.name, error)
        self._has_source_id = False

    def source_lost(self) -> None:
        """See `Follower.source_lost`; what was sent may have happened or not."""
        self._note_whether_usable(False)
        self._following.end()
        for request in list(self._sent):
            self._cancel(request)

    # Forwarding

    def _execute(self, request: Transact, who: Client, elapsed_msec: int) -> None:
        client = request.client
        if only_reads(request.operations) and self not in client.waiting.values():
            super()._execute(request, who, elapsed_msec)
        elif _needs_check(request, who):
            self._check(request, who, elapsed_msec)
        else:
            self._forward(request)

    def _check(self, request: Transact, who: Client, elapsed_msec: int) -> None:
        """Forward what `request` asks for if its client may do it."""
        outcome = request.outcome = self.database.rehearse(
            request.operations, who, elapsed_msec=elapsed_msec
        )
        if outcome.results is None:
            self._wait(request)
        elif outcome.results:
            self._answer(request)
        else:
            self._forward(request)

    def _forward(self, request: Transact) -> None:
        client = request.client
        if refuse_duplicate(request):
            return
        if len(client.waiting) >= _MOST_WAITING:
            COUNTERS["txn_forward_cancel"] += 1
            client.reply_error(request.id_bytes, "canceled")
            return
        client.waiting[request.id_bytes] = self
        self._unsent[request] = None
        if self._may_forward:
            self._send_all()
        request.on_wait()

    def _send_all(self) -> None:
        for request in self._unsent:
            answered = partial(self._answered, request)
            method, params = self._request(request)
            self._sent[request] = self.upstream.request(method, params, answered)
            COUNTERS["txn_forward_sent"] += 1
        self._unsent.clear()

    def _request(self, request: Transact) -> tuple[str, list[Any]]:
        """The method and the parameters by which the source is asked for `request`."""
        return "transact", [self.name, *request.operations]

    def _answered(self, request: Transact, result: Any, error: Any) -> None:
        if self._sent.pop(request, None) is None:
            return  # the client is gone
        COUNTERS["txn_forward_complete"] += 1
        _FORWARD.add(perf_counter_ns() - request.arrived_ns)
        del request.client.waiting[request.id_bytes]
        if error is not None:
            request.client.reply_error(request.id_bytes, error)
        else:
            request.client.reply(request.id_bytes, encode(result))

    def cancel(self, client: Requester, id_bytes: bytes) -> None:
        """Give up a transaction; one that was sent is answered as the source answers it."""
        for request in (*self._unsent, *self._sent):
            if request.client is client and request.id_bytes == id_bytes:
                if request in self._sent:
                    self.upstream.notify("cancel", [self._sent[request]])
                else:
                    self._cancel(request)
                return
        super().cancel(client, id_bytes)

    def _cancel(self, request: Transact) -> None:
        """Answer `request` without the source."""
        COUNTERS["txn_forward_cancel"] += 1
        self._forget(request)
        request.client.reply_error(request.id_bytes, "canceled")

    def _forget(self, request: Transact) -> None:
        self._unsent.pop(request, None)
        self._sent.pop(request, None)
        del request.client.waiting[request.id_bytes]

    def give_up_all(self) -> None:
        super().give_up_all()
        for request in (*self._unsent, *self._sent):
            self._withdraw(request)
            self._cancel(request)

    def cancel_all(self, client: Requester) -> None:
        super().cancel_all(client)
        for request in (*self._unsent, *self._sent):
            if request.client is client:
                self._withdraw(request)
                self._forget(request)

    def _withdraw(self, request: Transact) -> None:
        """Have the source give up `request`, if it can still."""
        if request in self._sent and self.upstream.is_connected:
            self.upstream.notify("cancel", [self._sent[request]])

    async def close(self) -> None:
        self._leave_source()
        self._end_patience()
        await super().close()


def _needs_check(request: Transact, client: Client) -> bool:
    if client.read_only or client.role:
        return True
    locks = [
        operation.get("lock")
        for operation in request.operations
        if type(operation) is dict and operation.get("op") == "assert"
    ]
    return any(type(name) is not str or not client.owns_lock(name) for name in locks)
