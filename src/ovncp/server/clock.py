"""The server's clock, which `time/warp` can push forward to try out what takes long."""

import time
from collections.abc import Callable


class Clock:
    """Milliseconds, monotonic and since the epoch; listeners hear of every push."""

    def __init__(self) -> None:
        self._warped_msec = 0
        self._listeners: list[Callable[[], None]] = []

    def now_msec(self) -> int:
        """Milliseconds since some fixed time; never goes back."""
        return time.monotonic_ns() // 1_000_000 + self._warped_msec

    def wall_msec(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000 + self._warped_msec

    def on_warp(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each push."""
        self._listeners.append(listener)

    def warp(self, msec: int) -> None:
        """Push the clock forward."""
        self._warped_msec += msec
        for listener in self._listeners:
            listener()
