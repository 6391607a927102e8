"""A place in the line for a lease: who came first is served first, whichever handle it is of.

The engine keeps the line: a place is there for as long as it is renewed, as a lease is, so that
those behind somebody who died come forward.  The line is not an order of what is stored; a lease's
token says that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ovncp.log.timed_lease import TimedLease

RENEWALS_PER_TTL = 4


class Place(ABC):
    """What is the same on every engine; a subclass asks its own.

    `lease` is what has come of it so far.
    """

    def __init__(self, name: str, ttl_ms: int):
        """For the lease `name`, which the place's own time to live becomes that of."""
        self.name = name
        self.ttl_ms = ttl_ms
        self.lease: TimedLease | None = None

    @property
    def renewal_s(self) -> float:
        """In how many seconds it is to be renewed."""
        return self.ttl_ms / 1000 / RENEWALS_PER_TTL

    @abstractmethod
    async def enter(self, in_front: bool) -> None:
        """Take the lease if it is free and nobody comes before, else stand in the line.

        That is at its end, or `in_front` of all who did not come so.  Raises LogError.
        """

    @abstractmethod
    async def advance(self) -> float:
        """Renew the place, and take the lease if it is free and this the first place.

        Returns in how many seconds to do so again at the latest.  Raises LeaseLost when the place
        is not there any more, LogError.
        """

    @abstractmethod
    async def leave(self) -> None:
        """Give up the place, and the lease if it has come to that.  Raises LogError."""
