"""The session with the server of one database, at the endpoint that serves it (ovsdb-server(5)).

There are several endpoints where there is a cluster or a spare server. Of a cluster of C servers
the leader is wanted, since what the others have may be old; one that has lost the cluster is left.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from ovncp.follow.link import Endpoint, Job, Link, Monotonic
from ovncp.wire.client import Answer, Notification

_LOG = logging.getLogger("ovncp.ovn")


class SessionLost(Exception):
    """There is no answer; if the request was `sent`, it may have had its effect or not."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class Follower(Protocol):
    """Who the session is for."""

    def found(self, schema: str) -> None:
        """Note that the server serves the database, under the schema that this is the text of."""

    def told(self, method: str, params: list[Any]) -> Job | None:
        """Take a notification, which has parameters."""

    def lost(self) -> None:
        """Note that there is no session any more."""


class _Asked:
    """A question for whose answer somebody waits."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def __call__(self, result: Any, error: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(Answer(None, result, error))

    def fail(self, error: SessionLost) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Session(Link):
    """The session with the server of `database` at one of `endpoints`, the preferred one first."""

    def __init__(self, database: str, endpoints: Sequence[Endpoint], follower: Follower) -> None:
        super().__init__(Monotonic(), endpoints, _LOG)
        self.database = database
        self._follower = follower

    async def ask(self, method: str, params: list[Any]) -> Answer:
        """Ask the server, and wait. What it had told before has been taken then.

        Raises SessionLost.
        """
        if not self.is_connected:
            raise SessionLost(f"{self.database} is out of reach", sent=False)
        asked = _Asked()
        self.request(method, params, asked)
        return await asked.answer

    @property
    def silence_s(self) -> float:
        """For how many seconds the server has not given a sign of life."""
        return (self._clock.now_msec() - self.heard_msec) / 1000

    # What the server has and says, and whether it is there (see `Link`)

    def _began(self) -> None:
        """What is asked follows from what the server has."""

    def _shown(self) -> None:
        shown = self._database(self.database)
        problem = ""
        if shown is None:
            problem = f"the server has no database {self.database}"
        elif not shown.is_usable:
            problem = f"the server is not connected to {self.database}"
        elif shown.model == "clustered" and len(self._endpoints) > 1 and not shown.is_leader:
            problem = "the server is not the leader of the cluster"
        elif shown.schema is not None:
            self._stay()
            self._follower.found(shown.schema)
        if problem and len(self._endpoints) > 1:
            self.leave(problem)

    def _told(self, notification: Notification) -> Job | None:
        if not notification.params:
            return None
        return self._follower.told(notification.method, notification.params)

    def _ended(self, unanswered: Sequence[Any]) -> None:
        self._follower.lost()
        for asked in unanswered:
            if isinstance(asked, _Asked):
                asked.fail(SessionLost(f"the session with {self.endpoint} was lost", sent=True))
