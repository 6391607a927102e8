"""The sources of relayed databases: a connection to each, made when the first database needs it."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ovncp.server.clock import Clock
from ovncp.server.configuration import RemoteOptions, split_relay_spec
from ovncp.server.stream import Target
from ovncp.server.tls import TlsFiles
from ovncp.server.upstream import Upstream

_LOG = logging.getLogger("ovncp.ovsdb_server")


class Sources:
    """Connections to sources. `options` are theirs, by `relay_spec`."""

    def __init__(self, clock: Clock, tls_files: Callable[[], TlsFiles]) -> None:
        self.options: Mapping[str, RemoteOptions] = {}
        self._clock = clock
        self._tls_files = tls_files
        # By the remotes, as `relay_spec` has them.
        self._upstreams: dict[str, Upstream] = {}

    def of(self, spec: str) -> Upstream:
        """The connection to the source that `spec` names, made now if there is none.

        Raises ConfigurationError.
        """
        _, remotes = split_relay_spec(spec)
        options = self.options.get(spec, RemoteOptions())
        upstream = self._upstreams.get(remotes)
        if upstream is None:
            targets = [Target.parse_any(text, _LOG) for text in remotes.split(",") if text]
            upstream = Upstream(self._clock, targets, options, self._tls_files)
            self._upstreams[remotes] = upstream
        upstream.options = options
        return upstream

    def probe(self, specs: Iterable[str], msec: int) -> None:
        """Ask silent sources for a sign of life after `msec` milliseconds, 0 for never."""
        for spec in specs:
            given = self.options.get(spec, RemoteOptions())
            probed = replace(given, inactivity_probe_msec=max(0, msec))
            self.options = {**self.options, spec: probed}
            self.of(spec)

    async def close_unused(self) -> None:
        """End the connections to sources of which no database is relayed any more."""
        for remotes, upstream in list(self._upstreams.items()):
            if not upstream.followers:
                del self._upstreams[remotes]
                await upstream.close()
