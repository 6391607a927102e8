"""A worker: a process that serves clients as a relay of the main process (`--workers N`).

It has the databases of the main process, `_Server` among them, just as they are there. What a
client asks is answered as one process would: a transaction is executed by the main process, on
behalf of that client, and a monitor begins with everything that anybody was told of before it was
asked for. `workers` is the other side.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, cast

from ovncp.follow.link import Job
from ovncp.ovsdb.database import Settings
from ovncp.server import server_database, stream
from ovncp.server.channel import Channel, Message
from ovncp.server.clock import Clock
from ovncp.server.command import Command, CommandError
from ovncp.server.configuration import RemoteOptions
from ovncp.server.limits import Limits
from ovncp.server.lock_source import LockSource
from ovncp.server.remote import Remote
from ovncp.server.runner import Runner
from ovncp.server.server import Server
from ovncp.server.session import Session
from ovncp.server.shared_locks import Reply, SharedLocks
from ovncp.server.stream import Target
from ovncp.server.tls import TlsContexts, TlsFiles
from ovncp.server.upstream import Upstream
from ovncp.server.worker_relay import Who, WorkerRelay
from ovncp.wire.client import Notification


class _Upstream(Upstream):
    """The connection to the main process, without which there is nothing to do.

    `notify_for` is called with what the main process has to tell one of the clients.
    """

    notify_for: Callable[[int, str, list[Any]], None]

    def __init__(self, clock: Clock, connection: int, is_over: asyncio.Event) -> None:
        targets = [Target.of_descriptor(connection)]
        super().__init__(clock, targets, RemoteOptions(), TlsFiles)
        self._is_over = is_over

    def _ended(self, unanswered: Sequence[Any]) -> None:
        super()._ended(unanswered)
        self._is_over.set()

    def _told(self, notification: Notification) -> Job | None:
        if notification.method == "notify_for":
            self.notify_for(*notification.params)
            return None
        return super()._told(notification)


class _Locks:
    """The locks of the clients here, which the main process gives."""

    def __init__(self, upstream: Upstream, who: Who) -> None:
        self._upstream = upstream
        self._who = who
        self._owned: set[tuple[Session, str]] = set()

    def add_source(self, source: LockSource) -> None:
        """There is but one, which tells of locks in a way of its own."""
        source.lock_holder = self

    def source_found(self, source: LockSource) -> None:
        """See `LockHolder.source_found`."""

    def source_says(self, source: LockSource, method: str, name: str) -> None:
        """See `LockHolder.source_says`."""

    def source_lost(self, source: LockSource) -> None:
        """See `LockHolder.source_lost`; it is the end of us."""

    def owns(self, session: Session, name: str) -> bool:
        """See `SharedLocks.owns`."""
        return (session, name) in self._owned

    def lock(self, session: Session, name: str, reply: Reply) -> None:
        """See `SharedLocks.lock`."""
        self._ask("lock_for", session, name, reply)

    def steal(self, session: Session, name: str, reply: Reply) -> None:
        """See `SharedLocks.steal`."""
        self._ask("steal_for", session, name, reply)

    def _ask(self, method: str, session: Session, name: str, reply: Reply) -> None:
        def answered(result: Any, error: Any) -> None:
            if result["locked"]:
                self._owned.add((session, name))
            reply(result["locked"])

        self._upstream.request(method, [self._who(session), name], answered)

    def unlock(self, session: Session, name: str) -> None:
        """See `SharedLocks.unlock`."""
        self._owned.discard((session, name))
        if self._upstream.is_connected:
            self._upstream.request("unlock_for", [self._who(session), name], _ignore)

    def changed(self, session: Session, method: str, name: str) -> None:
        """Note that a client was given a lock, or robbed of it."""
        if method == "locked":
            self._owned.add((session, name))
        else:
            self._owned.discard((session, name))


async def _settled(runner: Runner) -> None:
    settled = asyncio.Event()
    runner.when_settled(settled.set)
    await settled.wait()


def _ignore(result: Any, error: Any) -> None:
    """Nothing follows from the answer."""


class _Server(Server):
    """The server of a worker. `_Server` and the list of the databases are the main process's."""

    def __init__(
        self,
        clock: Clock,
        new_uuid: Callable[[], str],
        settings: Settings,
        limits: Limits,
        upstream: _Upstream,
        ready: Callable[[], None],
    ) -> None:
        self._upstream = upstream
        self._ready = ready
        self._knows_databases = self._is_ready = False
        self._clients: dict[int, Session] = {}
        self._numbers: dict[Session, int] = {}
        self._n_clients = 0
        super().__init__(clock, new_uuid, settings, limits)
        self._own_locks = _Locks(upstream, self.who)
        self.locks = cast(SharedLocks, self._own_locks)
        upstream.notify_for = self._notify_client
        self.runners.clear()
        self._follow(server_database.NAME)
        self.runners[server_database.NAME].watchers.append(self._follow_databases)

    def who(self, session: Session) -> list[Any]:
        """How the main process is told of a client."""
        return [self._numbers[session], session.role, session.identity, session.read_only]

    def add_session(self, session: Session) -> None:
        super().add_session(session)
        self._n_clients += 1
        self._numbers[session] = self._n_clients
        self._clients[self._n_clients] = session

    def remove_session(self, session: Session) -> None:
        super().remove_session(session)
        number = self._numbers.pop(session)
        del self._clients[number]
        if self._upstream.is_connected:
            self._upstream.request("forget", [[number]], _ignore)

    def _notify_client(self, number: int, method: str, params: list[Any]) -> None:
        session = self._clients.get(number)
        if session is not None:
            self._own_locks.changed(session, method, params[0])
            session.notify(method, params)

    def _follow(self, name: str) -> None:
        self._attach(
            WorkerRelay(
                name,
                self._upstream,
                self.clock,
                self._tell,
                self.new_uuid,
                self.settings,
                self.who,
            )
        )

    def _follow_databases(self, _: set[str]) -> None:
        shown = server_database.names(self.runners[server_database.NAME].database)
        for name in shown:
            if name not in self.runners:
                self._follow(name)
        for name in self.runners.keys() - set(shown):
            self.spawn(self.remove_database(name))
        self._knows_databases = True
        self._check_whether_ready()

    async def caught_up(self) -> None:
        """Return once all is here that the main process has to tell by now."""
        await _settled(self.runners[server_database.NAME])  # which may name further ones
        for runner in list(self.runners.values()):
            await _settled(runner)

    def _describe(self, runner: Runner) -> None:
        """Leave `_Server` to the main process; a database may have come to be available."""
        self._check_whether_ready()

    def _check_whether_ready(self) -> None:
        if not self._knows_databases or self._is_ready:
            return
        if all(cast(WorkerRelay, runner).has_history for runner in self.runners.values()):
            self._is_ready = True
            self._ready()

    def _set_row(self, name: str, columns: dict[str, Any] | None) -> None:
        """Leave `_Server` to the main process."""


class Worker:
    """What the main process wants of this one. `ended` is set when it wants nothing more."""

    def __init__(
        self,
        clock: Clock,
        new_uuid: Callable[[], str],
        settings: Settings,
        limits: Limits,
        channel: socket.socket,
        connection: int,
    ) -> None:
        self.ended = asyncio.Event()
        self._remotes: dict[str, Remote] = {}
        self._tls_files = TlsFiles()
        self._contexts = TlsContexts()
        self._commands: dict[str, Command] = {}
        self._channel = Channel(channel, self._received, self.ended.set)
        upstream = _Upstream(clock, connection, self.ended)
        self.server = _Server(clock, new_uuid, settings, limits, upstream, self._is_ready)

    def register(self, commands: Iterable[Command]) -> None:
        """Answer these runtime commands."""
        self._commands.update((command.name, command) for command in commands)

    def _is_ready(self) -> None:
        self._channel.send({"ready": True})

    def _received(self, message: Message, connection: socket.socket | None) -> None:
        if connection is not None:
            self._serve(message["serve"], connection)
        elif "configure" in message:
            self._configure(**message["configure"])
        elif "reconnect" in message:
            self._remotes[message["reconnect"]].reconnect()
        else:
            self.server.spawn(self._run(message["run"], message["question"]))

    def _configure(
        self,
        server_id: str,
        disabled_methods: list[str],
        tls_files: dict[str, Any],
        remotes: dict[str, dict[str, Any]],
    ) -> None:
        self.server.server_id = server_id
        self.server.disabled_methods = frozenset(disabled_methods)
        self._tls_files = TlsFiles(**tls_files)
        for target in self._remotes.keys() - remotes.keys():
            self._remotes.pop(target).reconnect()
        for target, options in remotes.items():
            remote = self._remotes.get(target)
            if remote is None:
                remote = self._remotes[target] = _Remote(self.server, target, self._has_ended)
            remote.options = RemoteOptions(**options)

    def _serve(self, target: str, connection: socket.socket) -> None:
        remote = self._remotes.get(target)
        if remote is None:
            connection.close()
            self._has_ended(target)
            return
        self.server.spawn(self._accept(remote, connection))

    async def _accept(self, remote: Remote, connection: socket.socket) -> None:
        session: Session | None = None

        def make() -> asyncio.Protocol:
            nonlocal session
            session = Session(self.server, remote)
            return cast(asyncio.Protocol, session)

        await stream.adopt(
            remote.target,
            connection,
            make,
            self._contexts,
            lambda: self._tls_files,
            self.server.handshakes,
        )
        if session is None:
            self._has_ended(remote.target.text)

    def _has_ended(self, target: str) -> None:
        self._channel.send({"ended": target})

    async def _run(self, words: list[str], question: int) -> None:
        name, *args = words
        try:
            text = self._commands[name].handler(args)
            if isinstance(text, Awaitable):
                text = await text
        except CommandError as error:
            self._channel.send({"answer": question, "error": str(error)})
        else:
            self._channel.send({"answer": question, "text": text})

    async def close(self) -> None:
        """Part with all clients."""
        await self.server.close()
        self._channel.close()


class _Remote(Remote):
    """A remote that the main process listens on."""

    def __init__(self, server: Server, target: str, ended: Callable[[str], None]) -> None:
        super().__init__(server, target, RemoteOptions(), TlsFiles)
        self._ended = ended

    def disconnected(self, session: Session, error: int) -> None:
        super().disconnected(session, error)
        self._ended(self.target.text)
