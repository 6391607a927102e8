"""The server: databases, the sessions of their clients, and the locks that these share."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any

import orjson

from ovncp.log.base import Log, LogError
from ovncp.ovsdb.database import Database, Settings
from ovncp.ovsdb.errors import json_text
from ovncp.ovsdb.lock import Locks
from ovncp.ovsdb.monitor import Notification
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.server import server_database
from ovncp.server.clock import Clock
from ovncp.server.runner import Runner
from ovncp.server.session import Session
from ovncp.server.snapshot import open_database

_LOG = logging.getLogger("ovncp.ovsdb_server")

_PROBE_SWEEP_SECONDS = 0.5


class Server:
    """All that clients share. `runners` has the databases by name, `_Server` among them."""

    def __init__(self, clock: Clock, new_uuid: Callable[[], str], settings: Settings) -> None:
        self.clock = clock
        self.new_uuid = new_uuid
        self.settings = settings
        self.server_id = new_uuid()
        self.locks = Locks()
        # What `ovsdb-server/disable-monitor-cond` takes away.
        self.disabled_methods: frozenset[str] = frozenset()
        self.sessions: dict[Session, None] = {}
        self.runners: dict[str, Runner] = {}
        self._loop = asyncio.get_running_loop()
        self._unflushed: list[Session] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._self_database = server_database.make(new_uuid)
        self._add_runner(self._self_database, None)
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
        database = await open_database(log, self.new_uuid, self.settings)
        if database.name in self.runners:
            raise LogError(f"{database.name}: duplicate database name")
        runner = self._add_runner(database, log)
        self._describe(runner)
        self._databases_changed()
        return runner

    def _add_runner(self, database: Database, log: Log | None) -> Runner:
        runner = self.runners[database.name] = Runner(database, log, self.clock, self._tell)
        if log is None:
            self.runners[database.name] = runner
            self._describe(runner)
        return runner

    def _describe(self, runner: Runner) -> None:
        """Write the database's row of `_Server`."""
        columns = {
            "model": "standalone",
            "connected": True,
            "leader": True,
            "schema": json_text(runner.database.schema.to_json()),
        }
        self._set_row(runner.name, columns)

    def _set_row(self, name: str, columns: dict[str, Any] | None) -> None:
        change = server_database.row_change(self._self_database, name, columns)
        self.runners[server_database.NAME].publish_replayed(change)

    async def remove_database(self, name: str) -> None:
        """Stop serving the database `name`."""
        runner = self.runners.pop(name)
        self._cancel_monitors(runner)
        runner.give_up_all()
        self._set_row(name, None)
        self._databases_changed()
        await runner.close()

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
        """Disconnect the clients that would not learn of the change in any other way."""
        for session in list(self.sessions):
            if not session.is_change_aware:
                session.close()

    # Sessions

    def add_session(self, session: Session) -> None:
        """Serve a new client."""
        self.sessions[session] = None

    def remove_session(self, session: Session) -> None:
        """Forget a client that is gone: its monitors, its waiting transactions, its locks."""
        self.sessions.pop(session, None)
        for key in list(session.monitors):
            session.forget_monitor(key)
        for runner in set(session.waiting.values()):
            runner.cancel_all(session)
        for name in list(session.locks):
            self.unlock(session, name)

    def unlock(self, session: Session, name: str) -> None:
        """Take a lock, or the wait for it, from `session`."""
        session.locks.pop(name, None)
        heir = self.locks.unlock(session, name)
        if heir is not None:
            self.notify_lock(heir, "locked", name)

    def notify_lock(self, session: Hashable, method: str, name: str) -> None:
        """Tell a session that it was given the lock `name`, or lost it."""
        assert isinstance(session, Session)
        session.notify(method, [name])

    def _tell(self, notifications: Sequence[Notification], before: str) -> None:
        for notification in notifications:
            message = notification.message
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
            await asyncio.sleep(_PROBE_SWEEP_SECONDS)
            self.probe_sessions()

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
