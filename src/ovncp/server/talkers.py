"""Which clients the server works for: traffic in all, and the sessions with most of it.

Rates are over the time since the last time somebody asked, at least a second, whoever that was;
nothing is counted while nobody asks. However many sessions there are, few are named.
"""

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
        self._known: dict[Session, tuple[int, int, int]] = _counts(server)
        self._talkers: list[Talker] = []

    def survey(self) -> Survey:
        """How it is now."""
        seconds = monotonic() - self._surveyed
        if seconds >= _LEAST_SECONDS:
            self._look(seconds)
        traffic = Traffic()
        traffic.add(self._server.past_traffic)
        n_sessions: Counter[str] = Counter()
        backlog = 0
        for session in _clients(self._server):
            n_sessions[session.remote.target.text] += 1
            traffic.add(session.traffic)
            backlog += session.backlog_bytes
        return Survey(n_sessions, traffic, backlog, self._talkers)

    def _look(self, seconds: float) -> None:
        known, self._known = self._known, _counts(self._server)
        self._surveyed += seconds
        talkers = [
            _talker(session, counts, known.get(session, (0, 0, 0)), seconds)
            for session, counts in self._known.items()
        ]
        # By peer, since the same may be foremost in several ways.
        named = {
            talker.peer: talker
            for figure in _FIGURES
            for talker in nlargest(N_NAMED, talkers, key=figure)
            if figure(talker)
        }
        self._talkers = list(named.values())


def _clients(server: Server) -> list[Session]:
    """The sessions but those of our own workers."""
    return [session for session in server.sessions if not session.remote.speaks_for_others]


def _counts(server: Server) -> dict[Session, tuple[int, int, int]]:
    return {
        session: (
            session.traffic.sent_bytes,
            session.traffic.received_bytes,
            session.traffic.n_requests,
        )
        for session in _clients(server)
    }


def _talker(
    session: Session, now: tuple[int, int, int], before: tuple[int, int, int], seconds: float
) -> Talker:
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
