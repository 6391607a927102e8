"""What the nodes of a platform share: values, counters, leases, registers and streams.

A `Store` is one node's handle.  Guarantees that every implementation gives, and that
tests/platform/cluster holds it to:

- **Atomicity.**  Each call happens wholly or not at all, at one moment, for all handles alike.  The
  exceptions are `read`, which waits, and `count` on several keys, which is atomic for each.
- **Time.**  A time to live runs on the store's own clock, not on the callers', and is in seconds.
  What has run out is as if it had never been.
- **Tokens.**  The token of a lease is larger than that of any lease of this name before it, even if
  the store has lost all of its data in between; so it can fence off those who had it earlier.
- **Order.**  The items of a stream are read in the order of their ids, and each tells the id of its
  predecessor.  So a reader notices whatever was dropped, or lost by the store, between two reads.
- **Errors.**  `Unavailable` alone tells that the store cannot be reached; the call may have
  happened then, or may yet happen a while later.  Every call can be made again after it: those that
  would happen twice by that say so.
- **Cancellation.**  As `Unavailable`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class ClusterError(Exception):
    """What is shared between the nodes cannot be used as asked."""


class Unavailable(ClusterError):
    """The store cannot be reached now; the call may have happened."""


class Fenced(ClusterError):
    """A newer token has been seen: whoever holds this one must stop."""


class Conflict(ClusterError):
    """The stream does not end where the caller said; `last` is where it does."""

    def __init__(self, last: StreamId):
        super().__init__(f"the stream ends at {last}")
        self.last = last


class Gap(ClusterError):
    """Items that the reader has not seen are gone: it has to start over."""


class LeaseLost(ClusterError):
    """The lease ran out or was taken away; its holder must stop acting on it."""


class NotAcquired(ClusterError):
    """Somebody else held the lock all the time."""


class StreamId(NamedTuple):
    """The id of an item: ids of one stream grow.

    `token` is the appender's, or the store's time in milliseconds for items that anybody may
    publish.
    """

    token: int
    number: int

    def __str__(self) -> str:
        return f"{self.token}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> StreamId:
        """The id that `str()` wrote.  Raises ValueError."""
        token, dash, number = text.partition("-")
        if not (dash and token.isdecimal() and number.isdecimal()):
            raise ValueError(f"not the id of an event: {text!r}")
        return cls(int(token), int(number))


ZERO = StreamId(0, 0)
"""Before the first item of any stream."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a stream, and the one before it."""

    id: StreamId
    previous: StreamId
    data: bytes


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease as the store knows it; `seconds_left` until it runs out."""

    name: str
    holder: str
    token: int
    seconds_left: float


class Store(ABC):
    """One node's handle; see the module for what holds of every method."""

    @abstractmethod
    async def check(self) -> None:
        """Return if the store answers."""

    # Values

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """The value, None if there is none."""

    @abstractmethod
    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Have `key` be `value` for `ttl_s`."""

    @abstractmethod
    async def swap(
        self, key: str, expected: bytes | None, value: bytes | None, ttl_s: float
    ) -> bool:
        """Compare and set: if the value is `expected`, have it be `value`.  Whether it was.

        None is no value.
        """

    @abstractmethod
    async def count(self, amounts: Mapping[str, int], window_s: float) -> dict[str, int]:
        """Add to counters, each of which begins at 0 `window_s` after its first amount again.

        Returns what each has come to.  Made again after `Unavailable` it may count twice.
        """

    # Leases

    @abstractmethod
    async def take(self, name: str, holder: str, ttl_s: float) -> Grant:
        """Have `holder` hold the lease `name` for `ttl_s`, unless somebody else does.

        Returns who holds it now: for a holder who has it already, the same lease anew.
        """

    @abstractmethod
    async def prolong(self, name: str, token: int, ttl_s: float) -> bool:
        """Start the time of the lease anew; false if the lease with this token is over."""

    @abstractmethod
    async def release(self, name: str, token: int) -> bool:
        """End the lease with this token; false if it is over."""

    @abstractmethod
    async def revoke(self, name: str) -> Grant | None:
        """End the lease whoever holds it; what it was."""

    @abstractmethod
    async def leases(self) -> list[Grant]:
        """All leases that are held, by name."""

    # Registers

    @abstractmethod
    async def enter(self, register: str, entries: Mapping[str, bytes], ttl_s: float) -> None:
        """Have these entries, under their keys, be in the register for `ttl_s`."""

    @abstractmethod
    async def strike(self, register: str, keys: Iterable[str]) -> int:
        """Remove entries; how many there were."""

    @abstractmethod
    async def entries(self, register: str) -> dict[str, bytes]:
        """All entries of a register."""

    # Streams

    @abstractmethod
    async def begin(self, stream: str, token: int, *, broken: bool = False) -> StreamId:
        """From now on refuse appends with a smaller token; the id of the last item of now.

        With `broken`, which wants a token that nothing was appended with yet, no reader gets on
        from where it is: each will be told of a gap.  The id that it begins after is returned.

        Raises Fenced if a larger token has been seen, or this one has been used.
        """

    @abstractmethod
    async def append(
        self, stream: str, token: int, after: StreamId, items: Sequence[bytes], keep: int
    ) -> StreamId:
        """Append `items`, one or more, if `after` is the last one; the id of the last one then.

        At least the last `keep` items stay.  Made again after `Unavailable`, it raises a Conflict
        whose `last` is `following(token, after, len(items))` if it had happened.

        Raises Fenced, Conflict.
        """

    @abstractmethod
    async def publish(
        self, stream: str, items: Sequence[bytes], keep: int, ttl_s: float
    ) -> StreamId:
        """Append `items` wherever the stream ends, without a token; the id of the last one.

        The whole stream is dropped when nothing was published for `ttl_s`.  Made again after
        `Unavailable` it may publish twice.  A stream is either appended or published to.
        """

    @abstractmethod
    async def read(self, stream: str, after: StreamId, limit: int, wait_s: float) -> list[Item]:
        """Up to `limit` kept items that come after an id; waits for one to come for `wait_s`.

        No items if none came.  Whether any are missing, the first one's `previous` tells.
        """

    @abstractmethod
    async def last(self, stream: str) -> StreamId:
        """The id of the last item ever appended, ZERO if there is none."""

    @abstractmethod
    async def close(self) -> None:
        """End what waits with `Unavailable`, and let go of connections; idempotent."""


def following(token: int, after: StreamId, n_items: int) -> StreamId:
    """The id of the last of `n_items` that are appended after an id with a token."""
    number = after.number if after.token == token else 0
    return StreamId(token, number + n_items)
