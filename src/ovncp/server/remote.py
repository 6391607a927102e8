"""Remotes: where clients come from, or where the server connects to (ovsdb(7), "Connection Methods").

A passive remote listens; an active one connects and, when the connection is lost, connects again
after growing pauses. Either way the peer becomes a session.
"""

import asyncio
import logging
from collections.abc import Callable

from ovncp.server import stream, tls
from ovncp.server.configuration import RemoteOptions
from ovncp.server.server import Server
from ovncp.server.session import Session
from ovncp.server.stream import Listener, Target

_LOG = logging.getLogger("ovncp.ovsdb_jsonrpc_server")
_RECONNECT_LOG = logging.getLogger("ovncp.reconnect")

MIN_BACKOFF_MSEC = 1000
DEFAULT_MAX_BACKOFF_MSEC = 8000
DEFAULT_PROBE_MSEC = 5000


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
            return self.options.inactivity_probe_msec
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
        backoff_msec = 0
        max_backoff = self.options.max_backoff_msec or DEFAULT_MAX_BACKOFF_MSEC
        while True:
            self._disconnected.clear()
            try:
                await stream.connect(self.target, self._session, self._tls_files)
            except OSError as error:
                self.last_error = error.strerror or str(error)
                level = logging.WARNING if backoff_msec < max_backoff else logging.DEBUG
                _RECONNECT_LOG.log(
                    level, "%s: connection attempt failed (%s)", self.target, self.last_error
                )
            else:
                backoff_msec = 0
                await self._disconnected.wait()
            backoff_msec = min(max_backoff, max(MIN_BACKOFF_MSEC, 2 * backoff_msec))
            await asyncio.sleep(backoff_msec / 1000)

    def connected(self, session: Session) -> None:
        """Note a new client."""
        self.sessions[session] = None

    def disconnected(self, session: Session) -> None:
        """Note that a client is gone."""
        self.sessions.pop(session, None)
        self._disconnected.set()

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
