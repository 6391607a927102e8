"""The hint that a log of this process has grown; what has grown is read from the log itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from ovncp.log.base import Entry, LogError

Read = Callable[[int], AsyncIterator[list[Entry]]]


class Growth:
    """Wakes the followers of one log; belongs to one event loop."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._closed = False

    def notify(self) -> None:
        """Wake whoever waits for entries."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def close(self) -> None:
        """Let every follower end, now and later."""
        self._closed = True
        self.notify()

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Return when `is_true`, asked again after each notification, or the log is closed."""
        while not self._closed and not is_true():
            await self._changed.wait()

    async def follow(self, read: Read, from_index: int) -> AsyncIterator[list[Entry]]:
        """What `read` gives from `from_index` on, again after each notification."""
        while not self._closed:
            # Taken before reading, so that growth during the read wakes us as well.
            changed = self._changed
            try:
                async for batch in read(from_index):
                    yield batch
                    from_index = batch[-1].index + 1
            except LogError:
                if not self._closed:
                    raise
                return
            await changed.wait()
