"""How often something happened lately, counted over all nodes and asked without waiting.

A node counts for itself and tells the others, by way of the store, a few times a second: so more
than the limit gets through only within such a moment.  While the store is away, nodes count for
themselves.  The last window counts too, as far as it reaches into the time of one window before
now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from ovncp.cluster.base import Store, Unavailable

_SYNC_S = 0.25


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `n` in `window_s`."""

    n: int
    window_s: float


@dataclass(slots=True)
class _Count:
    """One key in one window: what all nodes have counted, and what this one has not told yet."""

    window_s: float
    shared: int = 0
    own: int = 0

    @property
    def sum(self) -> int:
        return self.shared + self.own


_Key = tuple[str, int]


class Rates:
    """The counters, as one node sees them."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time):
        """`clock` is much the same at all nodes, in seconds."""
        self._store = store
        self._clock = clock
        self._counts: dict[_Key, _Count] = {}

    def admit(self, key: str, limit: Limit) -> float:
        """Count one more, if that keeps to the limit: 0 then, else the seconds to wait."""
        wait_s = self.wait_s(key, limit)
        if not wait_s:
            self.add(key, limit)
        return wait_s

    def wait_s(self, key: str, limit: Limit) -> float:
        """The seconds to wait until one more keeps to the limit, 0 if it does now."""
        window, share = divmod(self._clock() / limit.window_s, 1)
        count, before = (self._counts.get((_name(key, limit), int(window) - i)) for i in (0, 1))
        lately = (count.sum if count else 0) + (before.sum if before else 0) * (1 - share)
        return max(limit.window_s * (1 - share) / 2, 0.1) if lately + 1 > limit.n else 0.0

    def add(self, key: str, limit: Limit) -> None:
        """Count one more, whatever the limit."""
        window = int(self._clock() / limit.window_s)
        self._counts.setdefault((_name(key, limit), window), _Count(limit.window_s)).own += 1

    def take_back(self, key: str, limit: Limit) -> None:
        """Count one that was counted just now no more."""
        window = int(self._clock() / limit.window_s)
        self._counts.setdefault((_name(key, limit), window), _Count(limit.window_s)).own -= 1

    async def run(self) -> None:
        """Tell the other nodes, and hear from them, for ever."""
        while True:
            await asyncio.sleep(_SYNC_S)
            try:
                await self.sync()
            except Unavailable:
                await asyncio.sleep(_SYNC_S)

    async def sync(self) -> None:
        """Do so once.  Raises Unavailable."""
        now = self._clock()
        self._counts = {
            (name, window): count
            for (name, window), count in self._counts.items()
            if (window + 2) * count.window_s > now
        }
        news: dict[float, dict[_Key, _Count]] = {}
        for key, count in self._counts.items():
            if count.own:
                news.setdefault(count.window_s, {})[key] = count
        for window_s, counts in news.items():
            await self._tell(window_s, counts)

    async def _tell(self, window_s: float, counts: dict[_Key, _Count]) -> None:
        amounts = {f"{name}/{window}": count.own for (name, window), count in counts.items()}
        sums = await self._store.count(amounts, 2 * window_s)
        for count, amount, total in zip(
            counts.values(), amounts.values(), sums.values(), strict=True
        ):
            count.own -= amount
            count.shared = total


def _name(key: str, limit: Limit) -> str:
    return f"{key}/{limit.n}/{limit.window_s:g}"
