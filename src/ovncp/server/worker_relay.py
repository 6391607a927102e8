"""A database of the main process, as a worker has it (`--workers N`).

It is a relay of which clients notice nothing: whatever has to be done at one place is done by the
main process on behalf of the client, and what is answered here waits until all is known here that
the main process has told anybody.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from ovncp.follow.link import Job
from ovncp.ovsdb.database import Client, Database, Settings
from ovncp.ovsdb.monitor import Notification
from ovncp.server import snapshot
from ovncp.server.clock import Clock
from ovncp.server.relay import Relay
from ovncp.server.runner import Transact
from ovncp.server.session import Session
from ovncp.server.upstream import Upstream

Who = Callable[[Any], list[Any]]


class WorkerRelay(Relay):
    """The database `name` of the main process. `who` says how it is told of a client."""

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        clock: Clock,
        tell: Callable[[Sequence[Notification], str], None],
        new_uuid: Callable[[], str],
        settings: Settings,
        who: Who,
    ) -> None:
        super().__init__(name, upstream, clock, tell, new_uuid, settings)
        self._who = who
        self.has_history = False
        # What waits for the rows under a new schema.
        self._held: list[Callable[[], None]] = []

    @property
    def is_available(self) -> bool:
        """As in the main process, where it always is; requests wait until it is here."""
        return True

    def replace(self, database: Database, last_id: str) -> None:
        """See `Copy.replace`."""
        super().replace(database, last_id)
        self.upstream.request("history", [self.name], self._remember)

    def _remember(self, texts: list[str], error: Any) -> Job:
        return self._restore_history(texts)

    async def _restore_history(self, texts: list[str]) -> None:
        """Have the main process's history, so that clients which knew it resume here."""
        if texts:
            await snapshot.restore_history("".join(texts).encode(), self.database)
        self.has_history = True
        self.announce(self)

    def when_settled(self, action: Callable[[], None]) -> None:
        """See `Runner.when_settled`; what the main process has told anybody is seen by then."""
        # The answer comes after all that the main process has to tell by now.
        self.upstream.request("echo", [], partial(self._go_on, action))

    def _go_on(self, action: Callable[[], None], result: Any, error: Any) -> None:
        if self._may_forward:
            super().when_settled(action)
        else:
            self._held.append(action)

    def synchronized(self, *, by_dump: bool) -> None:
        """See `Copy.synchronized`."""
        super().synchronized(by_dump=by_dump)
        held, self._held = self._held, []
        for action in held:
            super().when_settled(action)

    def pass_on(self, method: str, params: list[Any], answered: Callable[[Any, Any], None]) -> bool:
        """See `Runner.pass_on`."""
        self.upstream.request(method, params, answered)
        return True

    def _execute(self, request: Transact, who: Client, elapsed_msec: int) -> None:
        self._forward(request)

    def _request(self, request: Transact) -> tuple[str, list[Any]]:
        who = self._who(cast(Session, request.client))
        return "transact_for", [who, self.name, *request.operations]

    def _answered(self, request: Transact, result: Any, error: Any) -> None:
        """Answer, but not one who is about to be disconnected by a conversion."""
        if self._may_forward or cast(Session, request.client).is_change_aware:
            super()._answered(request, result, error)
