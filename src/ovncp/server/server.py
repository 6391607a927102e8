"""The server: databases, the sessions of their clients, and the locks that these share."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from typing import Any

import orjson

from ovncp.log.base import Log, LogError
from ovncp.log.engine import EngineLog
from ovncp.ovsdb.database import Settings
from ovncp.ovsdb.encoded import UPDATES
from ovncp.ovsdb.errors import json_text
from ovncp.ovsdb.monitor import Notification
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.server import server_database
from ovncp.server.backlog import Backlog
from ovncp.server.clock import Clock
from ovncp.server.clustered import Clustered
from ovncp.server.dumps import Dumps
from ovncp.server.handshakes import Handshakes
from ovncp.server.limits import Limits
from ovncp.server.on_behalf import Principal
from ovncp.server.relay import Relay
from ovncp.server.runner import Runner
from ovncp.server.server_runner import ServerRunner
from ovncp.server.session import Session, Traffic
from ovncp.server.shared_locks import SharedLocks
from ovncp.server.snapshot import open_database
from ovncp.server.upstream import Upstream

_LOG = logging.getLogger("ovncp.ovsdb_server")

_PROBE_SWEEP_SECONDS = 0.5
_SWEEPS_PER_CLEARANCE = 120
_SWEEPS_PER_SHOW = 10


class Server:
    """All that clients share. `runners` has the databases by name, `_Server` among them.

    `past_traffic` is that of the sessions that are gone.
    """

    def __init__(
        self,
        clock: Clock,
        new_uuid: Callable[[], str],
        settings: Settings,
        limits: Limits = Limits(),
    ) -> None:
        self.clock = clock
        self.limits = limits
        self.new_uuid = new_uuid
        self.settings = settings
        self.server_id = new_uuid()
        self.locks = SharedLocks(self._notify_lock)
        # What `ovsdb-server/disable-monitor-cond` takes away.
        self.disabled_methods: frozenset[str] = frozenset()
        self.sessions: dict[Session, None] = {}
        self.past_traffic = Traffic()
        self.dumps = Dumps(limits)
        self.handshakes = Handshakes(limits.handshakes)
        self.backlog = Backlog(limits.backlog_bytes, self.sessions)
        self.runners: dict[str, Runner] = {}
        self._loop = asyncio.get_running_loop()
        self._unflushed: list[Session] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._self_database = server_database.make(new_uuid)
        runner = ServerRunner(self._self_database, clock, self._tell, self._show_indexes)
        self.runners[runner.name] = runner
        self._describe(runner)
        clock.on_warp(self.probe_sessions)
        self.spawn(self._sweep())

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` beside everything else, until the server closes."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.critical("internal error", exc_info=task.exception())

    # Databases

    async def add_database(self, log: Log) -> Runner:
        """Open the database that `log` holds, and serve it. Raises LogError and OvsdbError."""
        database, index = await open_database(log, self.new_uuid, self.settings)
        if database.name in self.runners:
            raise LogError(f"{database.name}: duplicate database name")
        if isinstance(log, EngineLog):
            runner = self._take_part(Clustered(database, index, log, self.clock, self._tell))
        else:
            runner = Runner(database, log, self.clock, self._tell)
        self.runners[database.name] = runner
        self._databases_changed()
        self._describe(runner)
        return runner

    def _take_part(self, runner: Clustered) -> Runner:
        runner.announce = self._describe
        runner.replaced = self._reloaded
        runner.start()
        self.locks.add_source(runner.lease_locks)
        return runner

    def add_relay(self, name: str, upstream: Upstream) -> Relay:
        """Serve the database `name` of the source behind `upstream`. Raises LogError."""
        if name.startswith("_"):
            raise LogError(f'{name}: names beginning with "_" are reserved')
        if name in self.runners:
            raise LogError(f"{name}: duplicate database name")
        relay = Relay(name, upstream, self.clock, self._tell, self.new_uuid, self.settings)
        self._attach(relay)
        return relay

    def _attach(self, relay: Relay) -> None:
        relay.announce = self._describe
        relay.replaced = self._replaced
        self.runners[relay.name] = relay
        self._databases_changed()
        self._describe(relay)
        relay.upstream.attach(relay)
        self.locks.add_source(relay.upstream)

    def move_relay(self, relay: Relay, upstream: Upstream) -> None:
        """Relay a database from another source, or the same."""
        old = relay.upstream
        if upstream is not old:
            relay.move(upstream)
            self._forget_source(old)
            self.locks.add_source(upstream)

    def _forget_source(self, upstream: Upstream) -> None:
        if not upstream.followers:
            self.locks.remove_source(upstream)

    def _replaced(self, runner: Runner) -> None:
        """Bring what clients know into line with a database that is another one now."""
        self._cancel_monitors(runner)
        self._describe(runner)
        self.finish_conversion(runner)

    def _reloaded(self, runner: Clustered) -> None:
        """As `_replaced`, of one that another server may have converted.

        A client that was told nothing yet stays, as it will be told of the new one: it may have
        come from that server.
        """
        self._cancel_monitors(runner)
        self._describe(runner)
        self._disconnect_unaware([session for session in self.sessions if session.was_told])
        runner.give_up_all()

    def _describe(self, runner: Runner) -> None:
        """Write the database's row of `_Server`."""
        columns = {
            "model": runner.model,
            "connected": runner.is_connected,
            "leader": runner.model != "relay" and runner.is_connected,
            "schema": ["set", []],
        }
        if isinstance(runner, Clustered):
            columns["cid"] = ["uuid", runner.shared_log.identity]
            columns["sid"] = ["uuid", runner.server_id]
            columns["index"] = runner.shown_index = runner.index
        if runner.is_available:
            columns["schema"] = json_text(runner.database.schema.to_json())
        self._set_row(runner.name, columns)

    def _show_indexes(self) -> None:
        """Write how far the databases are that others change as well."""
        for runner in self.runners.values():
            if isinstance(runner, Clustered) and runner.shown_index != runner.index:
                runner.shown_index = runner.index
                self._set_row(runner.name, {"index": runner.index})

    def _set_row(self, name: str, columns: dict[str, Any] | None) -> None:
        change = server_database.row_change(self._self_database, name, columns)
        self.runners[server_database.NAME].publish_replayed(change)

    async def remove_database(self, name: str) -> None:
        """Stop serving the database `name`."""
        runner = self.runners.pop(name)
        self._cancel_monitors(runner)
        runner.give_up_all()
        self._databases_changed()
        self._set_row(name, None)
        if isinstance(runner, Clustered):
            self.locks.remove_source(runner.lease_locks)
        await runner.close()
        if isinstance(runner, Relay):
            self._forget_source(runner.upstream)

    async def convert(self, runner: Runner, schema: DatabaseSchema) -> None:
        """Give a database another schema (ovsdb-server(7) section 4.1.19).

        To be followed by `finish_conversion` once the client has its answer.
        """
        await runner.convert(schema)
        self._cancel_monitors(runner)
        self._describe(runner)

    def finish_conversion(self, runner: Runner) -> None:
        """Part with the clients that do not expect another schema, and with what waited for it."""
        self._databases_changed()
        runner.give_up_all()

    def _cancel_monitors(self, runner: Runner) -> None:
        """Tell clients that what they monitored is gone (ovsdb-server(7) section 4.1.21)."""
        for session in list(self.sessions):
            for key, (_, monitored) in list(session.monitors.items()):
                if monitored is runner:
                    session.lose_monitor(key)
                    if session.is_change_aware:
                        session.notify("monitor_canceled", [orjson.loads(key)])

    def _databases_changed(self) -> None:
        """Disconnect the clients that would not learn of the change in any other way.

        Before `_Server` tells of a database that comes or goes: as in C, they do not hear of that.
        """
        self._disconnect_unaware(list(self.sessions))

    def _disconnect_unaware(self, sessions: Iterable[Session]) -> None:
        for session in sessions:
            if not session.is_change_aware:
                session.close()

    # Sessions

    def add_session(self, session: Session) -> None:
        """Serve a new client."""
        self.sessions[session] = None

    def remove_session(self, session: Session) -> None:
        """Forget a client that is gone: its monitors, its waiting transactions, its locks."""
        self.sessions.pop(session, None)
        self.past_traffic.add(session.traffic)
        for key in list(session.monitors):
            session.forget_monitor(key)
        for runner in set(session.waiting.values()):
            runner.cancel_all(session)
        self.unlock_all(session)
        for principal in session.principals.values():
            self.unlock_all(principal)

    def unlock_all(self, client: Session | Principal) -> None:
        """Take all locks, and the wait for any, from `client`."""
        for name in list(client.locks):
            self.unlock(client, name)

    def unlock(self, client: Session | Principal, name: str) -> None:
        """Take a lock, or the wait for it, from `client`."""
        client.locks.pop(name, None)
        self.locks.unlock(client, name)

    def _notify_lock(self, client: Hashable, method: str, name: str) -> None:
        """Tell a client that it was given the lock `name`, or lost it."""
        assert isinstance(client, Session | Principal)
        client.notify(method, [name])

    def _tell(self, notifications: Sequence[Notification], before: str) -> None:
        for notification in notifications:
            message = notification.message
            UPDATES.made += 1
            UPDATES.used += len(notification.monitors)
            for monitor in notification.monitors:
                monitor.owner.update(monitor, message, before)

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after a while."""
        self._loop.call_later(seconds, action)

    def wants_flush(self, session: Session) -> None:
        """Write the session's output at the end of this turn of the loop."""
        if not self._unflushed:
            self._loop.call_soon(self._flush)
        self._unflushed.append(session)

    def _flush(self) -> None:
        sessions, self._unflushed = self._unflushed, []
        for session in sessions:
            session.flush()

    async def _sweep(self) -> None:
        while True:
            for sweep in range(_SWEEPS_PER_CLEARANCE):
                await asyncio.sleep(_PROBE_SWEEP_SECONDS)
                self.probe_sessions()
                self.dumps.check()
                if sweep % _SWEEPS_PER_SHOW == 0:
                    self._show_indexes()
            for runner in self.runners.values():
                runner.database.monitors.drop_unused()

    def probe_sessions(self) -> None:
        """Ask silent clients for a sign of life."""
        now = self.clock.now_msec()
        for session in list(self.sessions):
            session.probe(now)

    async def close(self) -> None:
        """Finish what is under way, close all sessions and all databases."""
        for task in list(self._tasks):
            task.cancel()
        for runner in self.runners.values():
            await runner.close()
        for session in list(self.sessions):
            session.close()
        await asyncio.sleep(0)
