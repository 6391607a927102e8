"""Whose turn it is to append, among handles of a log that all have much to append (ADR 13).

A handle that others come before asks for its turn.  Each of them hears of that, and of every
append, in the order of the log, and so has the same queue; it lets those append first that asked
before it did.  This is a courtesy, on which nothing depends but the rate: one that does not append
soon, or as soon as it said, is passed over, and what makes the entries right is the condition of
each append.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ovncp.log.base import LogError

_logger = logging.getLogger("ovncp.log")

_LEAST_PATIENCE_S = 0.1
_MOST_PATIENCE_S = 5.0
"""How long the first one in the queue is waited for, at the least and the most."""

_LONGER_THAN_LAST_TIME = 2
_TELLING_S = 1.0


class Turns:
    """The queue, as one handle knows it."""

    def __init__(self, own: str, tell: Callable[[float | None], Awaitable[None]]):
        """`own` is the handle's name.

        `tell` has all handles hear that it asks, and for how many seconds at the most it is to be
        waited for, or with None that it has ended.
        """
        self._own = own
        self._tell = tell
        # How long to wait for each.
        self._queue: dict[str, float] = {}
        self._changed = asyncio.Event()
        # Whether this handle has, and has not appended since.
        self.has_asked = False

    # What is heard, in the order of the log.

    def asked(self, writer: str, patience_s: float) -> None:
        """Note that `writer` asks for its turn, and to be waited for so long."""
        self._queue[writer] = min(patience_s, _MOST_PATIENCE_S)

    def ended(self, writer: str) -> None:
        """Note that `writer` has appended, or wants to no more."""
        if self._queue.pop(writer, None) is not None:
            self._wake()

    def forget(self) -> None:
        """Note that something may have been missed: nobody has asked, as far as is known."""
        self._queue.clear()
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # For the one who appends.

    @property
    def is_others(self) -> bool:
        """Whether another handle is to append first."""
        return next(iter(self._queue), self._own) != self._own

    @property
    def is_wanted(self) -> bool:
        """Whether another handle has asked."""
        return len(self._queue) > (self._own in self._queue)

    def appended(self) -> None:
        """Note that this handle has appended, or wants to no more, of which it hears later only."""
        self.ended(self._own)
        self.has_asked = False

    async def ask(self, took_s: float) -> None:
        """Ask for the turn, again if it was asked for.

        `took_s` is how many seconds this handle took the last time.
        """
        self.has_asked = await self._say(max(_LEAST_PATIENCE_S, _LONGER_THAN_LAST_TIME * took_s))

    async def take(self, took_s: float) -> None:
        """Ask for the turn, and return when it has come; `took_s` as for `ask`."""
        if not self.has_asked:
            await self.ask(took_s)
        while self.is_others:
            first, patience_s = next(iter(self._queue.items()))
            try:
                async with asyncio.timeout(patience_s):
                    while first in self._queue:
                        await self._changed.wait()
            except TimeoutError:
                self.ended(first)

    async def end(self) -> None:
        """Let the others go on, if they wait for this handle, as it has nothing to append."""
        if self.has_asked:
            self.appended()
            await self._say(None)

    async def _say(self, patience_s: float | None) -> bool:
        """Whether all handles will hear of it."""
        try:
            async with asyncio.timeout(_TELLING_S):
                await self._tell(patience_s)
        except (LogError, TimeoutError) as error:
            _logger.debug("%s", error)
            return False
        return True
