"""Event counters and their rates (`coverage/show` and `coverage/read-counter` of ovs-appctl(8)).

A part of the server defines its counters when it is imported and counts with
`COUNTERS["name"] += 1`.  `tick`, called about every five seconds, turns counts into rates.
"""

import zlib
from collections import deque
from itertools import islice

from ovncp.server.command import Command, CommandError

SLOT_SECONDS = 5
_MINUTE, _HOUR = 60 // SLOT_SECONDS, 3600 // SLOT_SECONDS  # in slots

COUNTERS: dict[str, int] = {}
"""Every defined counter and how often its event has happened."""


def define(*names: str) -> None:
    """Define counters; one that exists keeps its count."""
    for name in names:
        COUNTERS.setdefault(name, 0)


class Coverage:
    """The last hour of a set of counters, in slots of five seconds."""

    def __init__(self, counters: dict[str, int], now: float) -> None:
        """`now` is in seconds of any clock that `tick` is given too."""
        self._counters = counters
        self._seen: dict[str, int] = {}
        self._slots: dict[str, deque[int]] = {}
        self._next = now + SLOT_SECONDS

    def tick(self, now: float) -> None:
        """Close the slot that has ended, if one has.

        After a late call the counts are spread evenly over the slots that have passed.
        """
        if now < self._next:
            return
        slots = min(int((now - self._next) // SLOT_SECONDS) + 1, _HOUR)
        for name, total in self._counters.items():
            share, rest = divmod(total - self._seen.get(name, 0), slots)
            history = self._slots.setdefault(name, deque(maxlen=_HOUR))
            history.extend([share] * (slots - 1) + [share + rest])
        self._seen = dict(self._counters)
        self._next = now + SLOT_SECONDS

    def show(self) -> str:
        """The reply of `coverage/show`."""
        hit = {name: total for name, total in self._counters.items() if total}
        lines = [
            f"Event coverage, avg rate over last: {SLOT_SECONDS} seconds, last minute, last hour, "
            f" hash={self._hash(hit):08x}:",
            *(self._line(name, total) for name, total in hit.items()),
            f"{len(self._counters) - len(hit)} events never hit",
        ]
        return "\n".join(lines) + "\n"

    def _line(self, name: str, total: int) -> str:
        slots = self._slots.get(name, deque())
        last, minute, hour = (_recent(slots, count) for count in (1, _MINUTE, _HOUR))
        return (
            f"{name:<24} {last / SLOT_SECONDS:5.1f}/sec {minute / 60:9.3f}/sec "
            f"{hour / 3600:13.4f}/sec   total: {total}"
        )

    def _hash(self, hit: dict[str, int]) -> int:
        """A fingerprint of which events happen and how they rank, whatever the exact counts."""
        ranks = sorted(set(hit.values()), reverse=True)
        names = sorted((ranks.index(total), name) for name, total in hit.items())
        return zlib.crc32(repr(names).encode())

    def read_counter(self, name: str) -> str:
        """The reply of `coverage/read-counter`; CommandError if there is no such counter."""
        if name not in self._counters:
            raise CommandError("No such counter")
        return str(self._counters[name])

    def commands(self) -> list[Command]:
        """The `coverage/` commands, for `Unixctl.register_all`."""
        return [
            Command("coverage/show", "", 0, 0, lambda _: self.show()),
            Command("coverage/read-counter", "COUNTER", 1, 1, lambda a: self.read_counter(a[0])),
        ]


def _recent(slots: deque[int], count: int) -> int:
    return sum(islice(reversed(slots), count))
