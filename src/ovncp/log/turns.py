"""Whose turn it is to append, among handles of a log that all have much to append (ADR 13).

A handle that others come before asks for its turn.  Each of them hears of that, and of every
append, in the order of the log, and so has the same queue; it lets those append first that asked
before it did.  Once others have asked, a handle asks before it makes anything ready, until it finds
itself alone: what is made ready in vain costs more than the question.

This is a courtesy, on which nothing depends but the rate: one that does not append soon, or as soon
as it said, is passed over, and what makes the entries right is the condition of each append.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ovncp.log.base import LogError

_logger = logging.getLogger("ovncp.log")

_LEAST_PATIENCE_S = 0.4
_MOST_PATIENCE_S = 5.0
"""How long the first one in the queue is waited for, at the least and the most.

Longer than a turn takes on a machine that has much else to do: to pass over one that is merely slow
lets two execute at once.  It is also how long the others write nothing if the first one dies.
"""

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
        # Whether others have since it asked the last time, or were in the queue then.
        self.is_contested = False

    # What is heard, in the order of the log.

    def asked(self, writer: str, patience_s: float) -> None:
        """Note that `writer` asks for its turn, and to be waited for so long."""
        self._queue[writer] = min(patience_s, _MOST_PATIENCE_S)
        self.is_contested = writer != self._own or len(self._queue) > 1
        self._wake()

    def ended(self, writer: str) -> None:
        """Note that `writer` has appended, or wants to no more."""
        if self._queue.pop(writer, None) is not None:
            self._wake()

    def forget(self) -> None:
        """Note that something may have been missed: nobody has asked, as far as is known."""
        self._queue.clear()
        self.is_contested = False
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # For the one who appends.

    @property
    def is_to_be_taken(self) -> bool:
        """Whether this handle is to `take` its turn, as others come first, or are likely to."""
        if not self._queue:
            return self.is_contested
        return self._is_others

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
        if self.has_asked:
            # Those who asked before are heard of before.
            await self._hear(lambda: self._own in self._queue, _LEAST_PATIENCE_S)
        while self._is_others:
            await self._let_go_first(*next(iter(self._queue.items())))

    async def _let_go_first(self, writer: str, patience_s: float) -> None:
        # It may have asked again already, and is the last one then.
        if not await self._hear(lambda: self._first != writer, patience_s):
            self.ended(writer)

    @property
    def _first(self) -> str:
        return next(iter(self._queue), self._own)

    @property
    def _is_others(self) -> bool:
        return self._first != self._own

    async def _hear(self, is_true: Callable[[], bool], patience_s: float) -> bool:
        """Whether what is heard within `patience_s` has made that true."""
        try:
            async with asyncio.timeout(patience_s):
                while not is_true():
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

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
