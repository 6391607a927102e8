"""Runs the database `_Server`, which is in memory only and is up to date when somebody looks."""

from collections.abc import Callable, Sequence

from ovncp.ovsdb.database import Database
from ovncp.ovsdb.monitor import Notification
from ovncp.server.clock import Clock
from ovncp.server.runner import Runner, Transact


class ServerRunner(Runner):
    """`refresh` writes what changes too often to be written at each change."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        tell: Callable[[Sequence[Notification], str], None],
        refresh: Callable[[], None],
    ) -> None:
        super().__init__(database, None, clock, tell)
        self._refresh = refresh

    def transact(self, request: Transact) -> None:
        self._refresh()
        super().transact(request)

    def when_settled(self, action: Callable[[], None]) -> None:
        self._refresh()
        super().when_settled(action)
