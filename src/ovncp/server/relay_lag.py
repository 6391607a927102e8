"""How far relayed databases are behind their source: what a question to it takes.

Its answer comes after all that the source had to say before, and is taken after all of that is
taken. Nothing is asked while nobody looks; each look has the answer to the question of the last.
"""

from collections.abc import Iterable
from functools import partial
from time import perf_counter_ns
from typing import Any

from ovncp.server.upstream import Upstream


class RelayLag:
    """Asks the sources. Times are in nanoseconds."""

    def __init__(self) -> None:
        # The connection on which a source was asked and when, until it answers.
        self._asked: dict[Upstream, tuple[int, int]] = {}
        self._answered: dict[Upstream, int] = {}

    def look(self, sources: Iterable[Upstream]) -> dict[Upstream, int]:
        """The lag of those of `sources` that are connected and have answered once."""
        connected = {source for source in sources if source.is_connected}
        self._answered = {s: lag for s, lag in self._answered.items() if s in connected}
        self._asked = {s: asked for s, asked in self._asked.items() if s in connected}
        now = perf_counter_ns()
        lags = {source: self._lag(source, lag, now) for source, lag in self._answered.items()}
        for source in connected:
            if self._asked.get(source, (0, 0))[0] != source.n_connections:
                self._asked[source] = source.n_connections, now
                source.request("echo", [], partial(self._take, source, now))
        return lags

    def _lag(self, source: Upstream, lag: int, now: int) -> int:
        number, asked = self._asked.get(source, (0, now))
        return max(lag, now - asked) if number == source.n_connections else lag

    def _take(self, source: Upstream, asked: int, result: Any, error: Any) -> None:
        if self._asked.pop(source, None) is not None:
            self._answered[source] = perf_counter_ns() - asked
