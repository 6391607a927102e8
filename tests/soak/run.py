"""What all who take part in a soak have in common."""

from __future__ import annotations

import random
import time
from collections import Counter


class Run:
    """A soak until the time `ends` on the monotonic clock, against `endpoints`.

    The servers may come and go, at the same addresses. While it `is_quiet` nobody does anything
    new. `counts` says what has happened, and how often.
    """

    def __init__(self, endpoints: list[str], seed: int, seconds: float) -> None:
        self.endpoints = endpoints
        self.draw = random.Random(seed)
        self.ends = time.monotonic() + seconds
        self.is_quiet = False
        self.counts: Counter[str] = Counter()

    @property
    def is_over(self) -> bool:
        """Whether all are to leave."""
        return time.monotonic() > self.ends
