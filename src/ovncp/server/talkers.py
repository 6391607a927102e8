"""Which clients the server works for: traffic in all, and the sessions with most of it.

Rates are over the time since the last time somebody asked, at least a second, whoever that was;
nothing is counted while nobody asks. However many sessions there are, few are named.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from heapq import nlargest
from time import monotonic
from typing import NamedTuple

from ovncp.server.server import Server
from ovncp.server.session import Session, Traffic

N_NAMED = 10
"""How many sessions are named for each figure."""

_LEAST_SECONDS = 1.0
_PER_SLICE = 200

Counts = tuple[int, int, int]


class Talker(NamedTuple):
    """One session. `identity` is the name in its certificate, or empty; rates are per second."""

    peer: str
    remote: str
    identity: str
    sent_bytes: float
    received_bytes: float
    requests: float
    backlog_bytes: int


_FIGURES: tuple[Callable[[Talker], float], ...] = (
    lambda talker: talker.sent_bytes,
    lambda talker: talker.received_bytes,
    lambda talker: talker.requests,
    lambda talker: talker.backlog_bytes,
)


class Survey(NamedTuple):
    """`traffic` since the start, and the sessions that are among the top ones by any figure.

    `n_sessions` is by remote.
    """

    n_sessions: dict[str, int]
    traffic: Traffic
    backlog_bytes: int
    talkers: list[Talker]


class Talkers:
    """Surveys the sessions of `server`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._surveyed = monotonic()
        # What each session had sent, received and asked for by then.
        self._known: dict[Session, Counts] = {
            session: _counts(session) for session in _clients(server)
        }
        self._talkers: list[Talker] = []

    async def survey(self) -> Survey:
        """How it is now, found out in slices with a breath for others between them."""
        traffic = Traffic()
        traffic.add(self._server.past_traffic)
        n_sessions: Counter[str] = Counter()
        backlog = 0
        sessions = _clients(self._server)
        for start in range(0, len(sessions), _PER_SLICE):
            for session in sessions[start : start + _PER_SLICE]:
                n_sessions[session.remote.target.text] += 1
                traffic.add(session.traffic)
                backlog += session.backlog_bytes
            await asyncio.sleep(0)
        seconds = monotonic() - self._surveyed
        if seconds >= _LEAST_SECONDS:
            self._surveyed += seconds
            await self._compare(sessions, seconds)
        return Survey(n_sessions, traffic, backlog, self._talkers)

    async def _compare(self, sessions: list[Session], seconds: float) -> None:
        """Find out what has become of each session in `seconds`."""
        known, self._known = self._known, {}
        # By peer, since the same may be foremost in several ways.
        named: dict[str, Talker] = {}
        for start in range(0, len(sessions), _PER_SLICE):
            talkers = list(named.values())
            for session in sessions[start : start + _PER_SLICE]:
                counts = self._known[session] = _counts(session)
                talkers.append(_talker(session, counts, known.get(session, (0, 0, 0)), seconds))
            named = _foremost(talkers)
            await asyncio.sleep(0)
        self._talkers = list(named.values())


def _foremost(talkers: list[Talker]) -> dict[str, Talker]:
    return {
        talker.peer: talker
        for figure in _FIGURES
        for talker in nlargest(N_NAMED, talkers, key=figure)
        if figure(talker)
    }


def _clients(server: Server) -> list[Session]:
    """The sessions but those of our own workers."""
    return [session for session in server.sessions if not session.remote.speaks_for_others]


def _counts(session: Session) -> Counts:
    traffic = session.traffic
    return traffic.sent_bytes, traffic.received_bytes, traffic.n_requests


def _talker(session: Session, now: Counts, before: Counts, seconds: float) -> Talker:
    sent, received, requests = ((new - old) / seconds for new, old in zip(now, before, strict=True))
    return Talker(
        session.name,
        session.remote.target.text,
        session.identity or "",
        sent,
        received,
        requests,
        session.backlog_bytes,
    )
