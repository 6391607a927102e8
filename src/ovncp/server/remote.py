"""Remotes: where clients come from or the server connects to (ovsdb(7), "Connection Methods").

A passive remote listens; an active one connects and, when the connection is lost, connects again
after growing pauses. Either way the peer becomes a session.
"""

import asyncio
import logging
from collections.abc import Callable

from ovncp.server import stream, tls
from ovncp.server.configuration import RemoteOptions
from ovncp.server.database_remotes import RemoteStatus
from ovncp.server.server import Server
from ovncp.server.session import Session
from ovncp.server.stream import Listener, Target

_LOG = logging.getLogger("ovncp.ovsdb_jsonrpc_server")
_RECONNECT_LOG = logging.getLogger("ovncp.reconnect")

MIN_BACKOFF_MSEC = 1000
DEFAULT_MAX_BACKOFF_MSEC = 8000
MIN_PROBE_MSEC = 1000
DEFAULT_PROBE_MSEC = 5000

NEVER_CONNECTED = RemoteStatus(False, {"sec_since_connect": "0", "sec_since_disconnect": "0"})
"""The status of a listener with no clients, and of a remote that is not served."""


class Remote:
    """One remote. `sessions` are its present clients."""

    def __init__(
        self,
        server: Server,
        target: str,
        options: RemoteOptions,
        tls_files: Callable[[], tls.TlsFiles],
    ) -> None:
        """Raises TargetError for a `target` that is none."""
        self.target = Target.parse(target)
        self.options = options
        self.sessions: dict[Session, None] = {}
        self.last_error: str | None = None
        self._server = server
        self._tls_files = tls_files
        self._listener: Listener | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._disconnected = asyncio.Event()
        # What the status columns show of a remote that connects (all times on the server's clock).
        self._state = "VOID"
        self._backoff_msec = 0
        self._connected_msec: int | None = None
        self._disconnected_msec: int | None = None

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
        return DEFAULT_PROBE_MSEC if self.target.needs_probes else 0

    async def start(self) -> None:
        """Listen, or begin to connect. Raises OSError when the address cannot be listened on."""
        if self.target.is_passive:
            self._listener = await stream.listen(self.target, self._session, self._tls_files)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._stay_connected())

    def _session(self) -> Session:
        return Session(self._server, self)

    async def _stay_connected(self) -> None:
        while True:
            self._disconnected.clear()
            self._state = "CONNECTING"
            self._log("connecting...")
            try:
                await stream.connect(self.target, self._session, self._tls_files)
            except OSError as error:
                self.last_error = error.strerror or str(error)
                self._log(f"connection attempt failed ({self.last_error})")
                self._back_off()
            else:
                await self._disconnected.wait()
            self._state = "BACKOFF"
            await self._server.clock.sleep(self._backoff_msec)

    @property
    def _max_backoff_msec(self) -> int:
        return max(MIN_BACKOFF_MSEC, self.options.max_backoff_msec or DEFAULT_MAX_BACKOFF_MSEC)

    def _back_off(self) -> None:
        """Wait twice as long as the last time, and at the longest wait fall silent."""
        longest = self._max_backoff_msec
        if not self._backoff_msec:
            self._backoff_msec = MIN_BACKOFF_MSEC
        elif self._backoff_msec < longest // 2:
            self._backoff_msec *= 2
            self._log(f"waiting {self._backoff_msec / 1000:g} seconds before reconnect")
        else:
            self._log("continuing to reconnect in the background but suppressing further logging")
            self._backoff_msec = longest

    def _log(self, message: str) -> None:
        level = logging.INFO if self._backoff_msec < self._max_backoff_msec else logging.DEBUG
        _RECONNECT_LOG.log(level, "%s: %s", self.target, message)

    def connected(self, session: Session) -> None:
        """Note a new client."""
        self.sessions[session] = None
        if not self.target.is_passive:
            self._state = "ACTIVE"
            self.last_error = None
            self._backoff_msec = 0
            self._connected_msec = self._server.clock.now_msec()
            self._log("connected")

    def disconnected(self, session: Session) -> None:
        """Note that a client is gone."""
        self.sessions.pop(session, None)
        if not self.target.is_passive:
            self._disconnected_msec = self._server.clock.now_msec()
            self._log("connection dropped")
            self._backoff_msec = MIN_BACKOFF_MSEC
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
            "sec_since_connect": self._seconds_since(self._connected_msec),
            "sec_since_disconnect": self._seconds_since(self._disconnected_msec),
            "state": "IDLE" if any(s.is_probing for s in self.sessions) else self._state,
        }
        return RemoteStatus(
            bool(self.sessions), {name: text for name, text in details.items() if text}
        )

    def _listener_status(self) -> RemoteStatus:
        details = dict(NEVER_CONNECTED.details)
        if self._listener is not None and self._listener.port:
            details["bound_port"] = str(self._listener.port)
        if len(self.sessions) > 1:
            details["n_connections"] = str(len(self.sessions))
        return RemoteStatus(bool(self.sessions), dict(sorted(details.items())))

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

    async def close(self) -> None:
        """Stop listening or connecting, and drop all clients."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._listener is not None:
            await self._listener.close()
        self.reconnect()
