"""A circuit breaker: what fails again and again is left alone for a while, and fails at once then.

It is *closed* while all is well; *open* after some failures in a row, for a pause that grows while
they go on; and then *half open*: the next one who comes tries, and the others wait for what becomes
of it.  One for each dependency; whoever asks it uses `attempt` around each call.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

STATES = ("closed", "half open", "open")


class BreakerOpen(Exception):
    """The dependency has failed lately, and is not asked for now."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """After `n_failures` in a row it opens, for `pause_s`, doubled each time up to a longest."""

    n_failures: int = 3
    pause_s: float = 0.5
    longest_pause_s: float = 2.0


class Breaker:
    """The breaker of one dependency."""

    def __init__(
        self,
        name: str,
        failures: tuple[type[Exception], ...],
        settings: BreakerSettings = BreakerSettings(),
        clock: Callable[[], float] = time.monotonic,
    ):
        """`failures` are the errors which say that the dependency cannot be used."""
        self.name = name
        self.on_change: list[Callable[[str], None]] = []
        """Called with the new state."""
        self._failures = failures
        self._settings = settings
        self._clock = clock
        self._n_failures = 0
        self._pause_s = settings.pause_s
        self._open_until = 0.0
        self._is_trying = False
        self._state = "closed"

    @property
    def state(self) -> str:
        """One of `STATES`."""
        return self._state

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Use the dependency in the block.  Raises BreakerOpen if it is not to be used now."""
        self._admit()
        try:
            yield
        except self._failures:
            self._failed()
            raise
        except Exception:
            # It answered, even if that it will not do this.
            self._succeeded()
            raise
        except BaseException:
            self._is_trying = False
            raise
        else:
            self._succeeded()

    def _admit(self) -> None:
        if self._state == "closed":
            return
        if self._is_trying or self._clock() < self._open_until:
            raise BreakerOpen(f"{self.name} has failed lately")
        self._is_trying = True
        self._change("half open")

    def _failed(self) -> None:
        self._n_failures += 1
        if self._is_trying or self._n_failures == self._settings.n_failures:
            self._open_until = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, self._settings.longest_pause_s)
            self._is_trying = False
            self._change("open")

    def _succeeded(self) -> None:
        self._n_failures = 0
        self._pause_s = self._settings.pause_s
        self._is_trying = False
        self._change("closed")

    def _change(self, state: str) -> None:
        if state == self._state:
            return
        self._state = state
        for tell in self.on_change:
            tell(state)
