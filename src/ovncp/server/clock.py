"""The server's clock, which `time/warp` can push forward to try out what takes long."""

import asyncio
import time
from collections.abc import Callable


class Clock:
    """Milliseconds, monotonic and since the epoch; listeners hear of every push."""

    def __init__(self) -> None:
        self._warped_msec = 0
        self._stopped_msec: int | None = None
        self._listeners: list[Callable[[], None]] = []
        self._sleepers: set[asyncio.Event] = set()

    def now_msec(self) -> int:
        """Milliseconds since some fixed time; never goes back."""
        if self._stopped_msec is not None:
            return self._stopped_msec
        return time.monotonic_ns() // 1_000_000 + self._warped_msec

    def wall_msec(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000 + self._warped_msec

    def on_warp(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each push."""
        self._listeners.append(listener)

    def forget(self, listener: Callable[[], None]) -> None:
        """Take `on_warp` back."""
        self._listeners.remove(listener)

    def warp(self, msec: int) -> None:
        """Push the clock forward."""
        self._warped_msec += msec
        if self._stopped_msec is not None:
            self._stopped_msec += msec
        for listener in self._listeners:
            listener()
        for pushed in self._sleepers:
            pushed.set()

    def stop(self) -> None:
        """Let only `warp` move the monotonic clock from now on."""
        self._stopped_msec = self.now_msec()

    async def sleep(self, msec: int) -> None:
        """Return once the clock has gone on by `msec`, by itself or pushed."""
        due = self.now_msec() + msec
        pushed = asyncio.Event()
        self._sleepers.add(pushed)
        try:
            while (left := due - self.now_msec()) > 0:
                await _set_within(pushed, left)
        finally:
            self._sleepers.discard(pushed)


async def _set_within(event: asyncio.Event, msec: int) -> None:
    try:
        await asyncio.wait_for(event.wait(), msec / 1000)
    except TimeoutError:
        return  # the time has passed, which is as good
    event.clear()
