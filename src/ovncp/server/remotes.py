"""The remotes that run, brought in line with those that are wanted.

One that cannot be served, as its port is taken, is tried again after pauses that grow.
"""

import logging
from collections.abc import Callable, Mapping

from ovncp.server.clock import Clock
from ovncp.server.configuration import RemoteOptions
from ovncp.server.database_remotes import RemoteStatus
from ovncp.server.remote import NEVER_CONNECTED, Remote
from ovncp.server.server import Server
from ovncp.server.tls import TlsFiles
from ovncp.server.workers import Workers

_LOG = logging.getLogger("ovncp.ovsdb_jsonrpc_server")

_SHORTEST_PAUSE_MSEC, _LONGEST_PAUSE_MSEC = 2500, 60_000


class Remotes:
    """The remotes of a server.

    `running` has those that are served, by target, and `failures` why others are not.
    """

    def __init__(
        self, server: Server, tls_files: Callable[[], TlsFiles], workers: Workers | None
    ) -> None:
        self.running: dict[str, Remote] = {}
        self.failures: dict[str, str] = {}
        self._server = server
        self._tls_files = tls_files
        self._workers = workers
        self._retries = _Retries(server.clock)

    async def serve(self, wanted: Mapping[str, RemoteOptions]) -> None:
        """Serve exactly the targets `wanted`, as far as that is possible."""
        for target in [target for target in self.running if target not in wanted]:
            _LOG.info("%s: remote deconfigured", target)
            await self.running.pop(target).close()
        tried = {target: await self._serve(target, wanted[target]) for target in wanted}
        if not self.failures:
            self._retries.begin()
        self.failures = {target: failure for target, failure in tried.items() if failure}

    async def _serve(self, target: str, options: RemoteOptions) -> str | None:
        """Serve `target` with `options`; what is wrong if that is not possible."""
        if target in self.running:
            if self.running[target].options.dscp == options.dscp:
                self.running[target].options = options
                return None
            # What marks packets belongs to sockets, so that these have to be made again.
            await self.running.pop(target).close()
        try:
            remote = Remote(self._server, target, options, self._tls_files, self._workers)
            await remote.start()
        except OSError as error:
            return self._failed(target, error.strerror or str(error))
        self.running[target] = remote
        return None

    def _failed(self, target: str, failure: str) -> str:
        """Log the failure, once however often it is tried again."""
        if self.failures.get(target) != failure:
            _LOG.error("%s: listen failed: %s", target, failure)
        return failure

    def retry_is_due(self) -> bool:
        """Whether it is time to try again what failed. Asked once for each time."""
        return bool(self.failures) and self._retries.is_due()

    def status(self, target: str) -> RemoteStatus:
        """What the status columns show of `target`."""
        if target in self.running:
            return self.running[target].status()
        details = {"last_error": self.failures.get(target, ""), **NEVER_CONNECTED.details}
        return RemoteStatus(False, {name: text for name, text in details.items() if text})

    async def close(self) -> None:
        """Serve none any more."""
        for remote in self.running.values():
            await remote.close()
        self.running.clear()


class _Retries:
    """When to try again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """What is tried fails for the first time now, if it fails."""
        self._pause_msec = _SHORTEST_PAUSE_MSEC
        self._next_msec = self._clock.now_msec() + self._pause_msec

    def is_due(self) -> bool:
        """Whether it is time to; if so, the next pause begins, which is longer."""
        now = self._clock.now_msec()
        if now < self._next_msec:
            return False
        self._pause_msec = min(2 * self._pause_msec, _LONGEST_PAUSE_MSEC)
        self._next_msec = now + self._pause_msec
        return True
