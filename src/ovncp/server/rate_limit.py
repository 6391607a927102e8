"""A bound on how often one kind of message is logged (`vlog/disable-rate-limit` lifts it).

Clients can make a server log as fast as they connect. The C server bounds what its parts
`jsonrpc` and `stream_ssl` say of bad ones; what it does not bound, as the end of each connection
under an error, is not bound here either.
"""

import logging
import time

LIFTED: set[str] = set()
"""The loggers of the modules whose messages are not limited now."""


class RateLimit:
    """At most `per_minute` messages, after a burst of `burst`.

    What is dropped is counted, and told with the next message that passes.
    """

    def __init__(self, per_minute: float, burst: int) -> None:
        self._per_second = per_minute / 60
        self._burst = self._tokens = float(burst)
        self._filled = 0.0
        self._dropped = 0
        self._first_dropped = self._last_dropped = 0.0

    def log(self, logger: logging.Logger, level: int, message: str, *args: object) -> None:
        """Do what `logger.log(level, message, *args)` does, unless there was too much of it."""
        if not logger.isEnabledFor(level):
            return
        if logger.name not in LIFTED:
            now = time.monotonic()
            if not self._take(now):
                self._drop(now)
                return
            if self._dropped:
                self._tell(logger, level, now)
        logger.log(level, message, *args)

    def _take(self, now: float) -> bool:
        gained = (now - self._filled) * self._per_second
        self._tokens = min(self._burst, self._tokens + gained)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _drop(self, now: float) -> None:
        if not self._dropped:
            self._first_dropped = now
        self._last_dropped = now
        self._dropped += 1

    def _tell(self, logger: logging.Logger, level: int, now: float) -> None:
        text = (
            "Dropped %d log messages in last %d seconds"
            " (most recently, %d seconds ago) due to excessive rate"
        )
        first, last = now - self._first_dropped, now - self._last_dropped
        logger.log(level, text, self._dropped, first, last)
        self._dropped = 0
