"""Remotes: where clients come from or the server connects to (ovsdb(7), "Connection Methods").

A passive remote listens; an active one connects and, when the connection is lost, connects again
after growing pauses. Either way the peer becomes a session.
"""

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import cast

from ovncp.follow.link import error_number
from ovncp.server import stream, tls
from ovncp.server.configuration import RemoteOptions
from ovncp.server.database_remotes import RemoteStatus
from ovncp.server.server import Server
from ovncp.server.session import Session
from ovncp.server.stream import Listener, Target
from ovncp.server.workers import Workers
from ovncp.wire.reconnect import END_OF_FILE, PROBE_INTERVAL_MSEC, Reconnect

_LOG = logging.getLogger("ovncp.ovsdb_jsonrpc_server")

MIN_PROBE_MSEC = 1000

NEVER_CONNECTED = RemoteStatus(False, {"sec_since_connect": "0", "sec_since_disconnect": "0"})
"""The status of a listener with no clients, and of a remote that is not served."""


class Remote:
    """One remote. `sessions` are its present clients."""

    speaks_for_others = False

    def __init__(
        self,
        server: Server,
        target: str,
        options: RemoteOptions,
        tls_files: Callable[[], tls.TlsFiles],
        workers: Workers | None = None,
    ) -> None:
        """A `target` that is no connection method is one that fails to connect, again and again."""
        self.target = Target.parse_any(target, _LOG)
        self.options = options
        self.sessions: dict[Session, None] = {}
        self.last_error: str | None = None
        self._server = server
        self._tls_files = tls_files
        self._workers = workers
        self._listener: Listener | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._disconnected = asyncio.Event()
        # Of a remote that connects.
        self._reconnect = Reconnect(target, server.clock.now_msec())

    @property
    def read_only(self) -> bool:
        """Whether clients may change nothing."""
        return self.options.read_only

    @property
    def role(self) -> str:
        """The role of all clients of this remote."""
        return self.options.role

    @property
    def inactivity_probe_msec(self) -> int:
        """After how much silence a client is asked for a sign of life; 0 for never."""
        if self.options.inactivity_probe_msec is not None:
            wanted = self.options.inactivity_probe_msec
            return max(MIN_PROBE_MSEC, wanted) if wanted > 0 else 0
        return PROBE_INTERVAL_MSEC if self.target.needs_probes else 0

    async def start(self) -> None:
        """Listen, or begin to connect. Raises OSError when the address cannot be listened on."""
        if self.target.is_passive and self._workers is not None:
            serve = partial(self._workers.serve, self.target.text)
            self._listener = await stream.listen_for_others(self.target, serve, self.options.dscp)
        elif self.target.is_passive:
            self._listener = await stream.listen(
                self.target,
                self._session,
                self._tls_files,
                self._server.handshakes,
                self.options.dscp,
            )
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._stay_connected())

    def _session(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, Session(self._server, self))

    async def _stay_connected(self) -> None:
        clock, machine = self._server.clock, self._reconnect
        machine.enable(clock.now_msec())
        while True:
            machine.set_backoff(0, self.options.max_backoff_msec or 0)
            self._disconnected.clear()
            machine.connecting(clock.now_msec())
            try:
                async with asyncio.timeout(self._msec_left() / 1000):
                    await stream.connect(
                        self.target, self._session, self._tls_files, self.options.dscp
                    )
            except TimeoutError:
                self.last_error = os.strerror(errno.ETIMEDOUT)
                machine.connect_failed(clock.now_msec(), 0)
            except OSError as error:
                self.last_error = getattr(error, "strerror", None) or str(error)
                machine.connect_failed(clock.now_msec(), error_number(error))
            else:
                await self._disconnected.wait()
            await clock.sleep(self._msec_left())

    def _msec_left(self) -> int:
        return (self._reconnect.deadline() or 0) - self._server.clock.now_msec()

    def connected(self, session: Session) -> Reconnect:
        """Note a new client; the machine that is to be told how its connection fares."""
        self.sessions[session] = None
        now = self._server.clock.now_msec()
        machine = self._reconnect
        if self.target.is_passive:
            machine = Reconnect(session.name, now, quiet=True, tries_left=0)
        machine.connected(now)
        self.last_error = None
        return machine

    def disconnected(self, session: Session, error: int) -> None:
        """Note that a client is gone."""
        self.sessions.pop(session, None)
        self.last_error = _description(error)
        self._disconnected.set()

    def status(self) -> RemoteStatus:
        """What the columns "is_connected" and "status" show of the remote."""
        if self.target.is_passive:
            return self._listener_status()
        held, waiting = self._locks()
        details = {
            "last_error": self.last_error,
            "locks_held": " ".join(held),
            "locks_waiting": " ".join(waiting),
            "sec_since_connect": self._seconds_since(self._reconnect.last_connected),
            "sec_since_disconnect": self._seconds_since(self._reconnect.last_disconnected),
            "state": self._reconnect.state.value,
        }
        return RemoteStatus(
            bool(self.sessions), {name: text for name, text in details.items() if text}
        )

    def _listener_status(self) -> RemoteStatus:
        details = dict(NEVER_CONNECTED.details)
        if self._listener is not None and self._listener.port:
            details["bound_port"] = str(self._listener.port)
        n_connections = len(self.sessions)
        if self._workers is not None:
            n_connections += self._workers.n_clients(self.target.text)
        if n_connections > 1:
            details["n_connections"] = str(n_connections)
        return RemoteStatus(n_connections > 0, dict(sorted(details.items())))

    def _locks(self) -> tuple[list[str], list[str]]:
        """The names of the locks that the peer holds, and of those that it waits for."""
        locks = [(session, name) for session in self.sessions for name in sorted(session.locks)]
        held = [name for session, name in locks if session.owns_lock(name)]
        return held, [name for session, name in locks if not session.owns_lock(name)]

    def _seconds_since(self, moment_msec: int | None) -> str | None:
        if moment_msec is None:
            return None
        return str((self._server.clock.now_msec() - moment_msec) // 1000)

    def reconnect(self) -> None:
        """Drop all clients; they may come back."""
        for session in list(self.sessions):
            session.close()
        if self._workers is not None:
            self._workers.reconnect(self.target.text)

    async def close(self) -> None:
        """Stop listening or connecting, and drop all clients."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._listener is not None:
            await self._listener.close()
        self.reconnect()


def _description(error: int) -> str | None:
    """The `error` of a connection, as in `Reconnect`, for the column "status"."""
    if error == END_OF_FILE:
        return "End of file"
    return os.strerror(error) if error else None
