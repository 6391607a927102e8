"""The connection to the source of relayed databases (ovsdb(7), "Relay Service Model").

There is one for each source, which is a list of remotes, however many databases are relayed from
it: a lock belongs to a connection, and what asserts it has to come over the same.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ovncp.follow.link import Clock, Endpoint, Job, Link, SourceDatabase
from ovncp.server import stream
from ovncp.server.configuration import RemoteOptions
from ovncp.server.stream import Target
from ovncp.server.tls import TlsFiles
from ovncp.wire.client import Notification
from ovncp.wire.reconnect import PROBE_INTERVAL_MSEC

if TYPE_CHECKING:
    from ovncp.server.lock_source import LockHolder

_LOG = logging.getLogger("ovncp.relay")


class Follower(Protocol):
    """A database that is relayed."""

    @property
    def name(self) -> str:
        """Its name, here and at the source."""

    def source_is(self, shown: SourceDatabase | None) -> None:
        """Note how the source shows the database, None if it is not there."""

    def source_says(self, method: str, params: list[Any]) -> Job | None:
        """Take a notification about one of the monitors."""

    def source_lost(self) -> None:
        """Note that the connection is lost: what was asked has no answer."""


class Upstream(Link):
    """The connection to the source that can be reached at any of `targets`."""

    def __init__(
        self,
        clock: Clock,
        targets: Iterable[Target],
        options: RemoteOptions,
        tls_files: Callable[[], TlsFiles],
    ) -> None:
        self.targets = {target.text: target for target in targets}
        self.name = ",".join(self.targets)
        self.options = options
        self.followers: dict[str, Follower] = {}
        self.lock_holder: LockHolder
        self._tls_files = tls_files
        self._knows_source = False
        endpoints = [Endpoint(text, self._connector(each)) for text, each in self.targets.items()]
        random.shuffle(endpoints)
        super().__init__(clock, endpoints, _LOG)

    def _connector(self, target: Target) -> Callable[[stream.Factory], Any]:
        async def connect(factory: stream.Factory) -> asyncio.BaseTransport:
            return await stream.connect(target, factory, self._tls_files, self.options.dscp)

        return connect

    # The databases

    def attach(self, follower: Follower) -> None:
        """Relay another database."""
        self.followers[follower.name] = follower
        if self._knows_source:
            follower.source_is(self._database(follower.name))

    def detach(self, follower: Follower) -> None:
        """Relay a database no more."""
        del self.followers[follower.name]

    @property
    def order(self) -> str:
        """See `LockSource.order`."""
        return min(self.followers)

    # What the source says, and whether it is there (see `Link`)

    def _began(self) -> None:
        self.lock_holder.source_found(self)

    def _shown(self) -> None:
        self._knows_source = True
        shown = {name: self._database(name) for name in self.followers}
        is_of_use = any(database and database.is_usable for database in shown.values())
        if shown and not is_of_use and len(self.targets) > 1:
            self.leave("the server is not connected to the databases")
            return
        if is_of_use:
            self._stay()
        for name, follower in list(self.followers.items()):
            follower.source_is(shown[name])

    def _told(self, notification: Notification) -> Job | None:
        method, params = notification.method, notification.params
        if not params:
            return None
        if method in ("locked", "stolen"):
            self.lock_holder.source_says(self, method, params[0])
        elif type(params[0]) is list and params[0] and params[0][0] in self.followers:
            return self.followers[params[0][0]].source_says(method, params)
        return None

    def _ended(self, unanswered: Sequence[Any]) -> None:
        self._knows_source = False
        for follower in list(self.followers.values()):
            follower.source_lost()
        self.lock_holder.source_lost(self)

    # How it is reached

    def _max_backoff_msec(self) -> int:
        return self.options.max_backoff_msec or 0

    def _probe_msec(self) -> int:
        if self.options.inactivity_probe_msec is not None:
            return self.options.inactivity_probe_msec
        return PROBE_INTERVAL_MSEC if self.targets[self.endpoint].needs_probes else 0
