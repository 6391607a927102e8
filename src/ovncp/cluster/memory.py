"""The store within one process: what every implementation does, and nothing else.

A `Memory` is what is shared; each node of the process has a `MemoryStore` of its own on it.
"""

from __future__ import annotations

import asyncio
import bisect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ovncp.cluster.base import (
    ZERO,
    Conflict,
    Fenced,
    Grant,
    Item,
    Store,
    StreamId,
    Unavailable,
    following,
)

T = TypeVar("T")


class Timed(Generic[T]):
    """What was put under names, each for a time."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, T]] = {}
        self._sweep_at = 1024

    def put(self, name: str, value: T, until: float) -> None:
        """Keep `value` until a moment of the event loop's clock."""
        self._kept[name] = until, value
        if len(self._kept) >= self._sweep_at:
            self._kept = {n: (at, v) for n, (at, v) in self._kept.items() if at > _now()}
            self._sweep_at = max(1024, 2 * len(self._kept))

    def get(self, name: str) -> T | None:
        """The value, unless its time is over."""
        until, value = self._kept.get(name, (0.0, None))
        return value if until > _now() else None

    def until(self, name: str) -> float:
        """When its time is over."""
        return self._kept[name][0]

    def pop(self, name: str) -> T | None:
        """Take the value out."""
        value = self.get(name)
        self._kept.pop(name, None)
        return value

    def items(self) -> list[tuple[str, T]]:
        """All whose time is not over."""
        now = _now()
        return [(name, value) for name, (until, value) in self._kept.items() if until > now]


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class _Stream:
    token: int = 0
    last: StreamId = ZERO
    items: list[Item] = field(default_factory=list)
    until: float = float("inf")


class Memory:
    """What the nodes of one process share; belongs to one event loop."""

    def __init__(self, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000):
        """`clock_ms` gives tokens and ids, so that they grow from one process to the next, too."""
        self.clock_ms = clock_ms
        self.last_token = 0
        self.values: Timed[bytes] = Timed()
        self.counters: Timed[int] = Timed()
        self.leases: Timed[tuple[str, int]] = Timed()
        self.registers: dict[str, Timed[bytes]] = {}
        self._streams: dict[str, _Stream] = {}
        self._grown = asyncio.Event()

    def stream(self, name: str) -> _Stream:
        """The stream of a name, empty if there was none."""
        stream = self._streams.setdefault(name, _Stream())
        if stream.until <= _now():
            stream = self._streams[name] = _Stream()
        return stream

    def extend(self, stream: _Stream, token: int, items: Sequence[bytes], keep: int) -> StreamId:
        """Append to a stream, and tell those who wait."""
        for data in items:
            id = following(token, stream.last, 1)
            stream.items.append(Item(id, stream.last, data))
            stream.last = id
        del stream.items[:-keep]
        self.wake()
        return stream.last

    def wake(self) -> None:
        """Have those who wait look again."""
        self._grown.set()
        self._grown = asyncio.Event()

    async def changed(self, wait_s: float) -> None:
        """Return when something was appended to any stream, or after a while."""
        grown = self._grown
        try:
            async with asyncio.timeout(wait_s):
                await grown.wait()
        except TimeoutError:
            return


class MemoryStore(Store):
    """One node's handle to a `Memory`."""

    def __init__(self, memory: Memory):
        self._memory = memory
        self._closed = False

    async def check(self) -> None:
        self._open()

    def _open(self) -> Memory:
        if self._closed:
            raise Unavailable("the store is closed")
        return self._memory

    async def get(self, key: str) -> bytes | None:
        return self._open().values.get(key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self._open().values.put(key, value, _now() + ttl_s)

    async def swap(
        self, key: str, expected: bytes | None, value: bytes | None, ttl_s: float
    ) -> bool:
        values = self._open().values
        if values.get(key) != expected:
            return False
        if value is None:
            values.pop(key)
        else:
            values.put(key, value, _now() + ttl_s)
        return True

    async def count(self, amounts: Mapping[str, int], window_s: float) -> dict[str, int]:
        counters = self._open().counters
        for key, amount in amounts.items():
            before = counters.get(key)
            until = _now() + window_s if before is None else counters.until(key)
            counters.put(key, (before or 0) + amount, until)
        return {key: counters.get(key) or 0 for key in amounts}

    async def take(self, name: str, holder: str, ttl_s: float) -> Grant:
        memory = self._open()
        held = memory.leases.get(name)
        if held is None:
            memory.last_token = max(memory.last_token + 1, memory.clock_ms())
            held = holder, memory.last_token
        if held[0] == holder:
            memory.leases.put(name, held, _now() + ttl_s)
        return self._grant(name, *held)

    def _grant(self, name: str, holder: str, token: int) -> Grant:
        return Grant(name, holder, token, self._memory.leases.until(name) - _now())

    async def prolong(self, name: str, token: int, ttl_s: float) -> bool:
        leases = self._open().leases
        held = leases.get(name)
        if held is None or held[1] != token:
            return False
        leases.put(name, held, _now() + ttl_s)
        return True

    async def release(self, name: str, token: int) -> bool:
        leases = self._open().leases
        held = leases.get(name)
        if held is None or held[1] != token:
            return False
        leases.pop(name)
        return True

    async def revoke(self, name: str) -> Grant | None:
        leases = self._open().leases
        held = leases.get(name)
        if held is None:
            return None
        grant = self._grant(name, *held)
        leases.pop(name)
        return grant

    async def leases(self) -> list[Grant]:
        return [self._grant(name, *held) for name, held in sorted(self._open().leases.items())]

    async def enter(self, register: str, entries: Mapping[str, bytes], ttl_s: float) -> None:
        kept = self._open().registers.setdefault(register, Timed())
        for key, value in entries.items():
            kept.put(key, value, _now() + ttl_s)

    async def strike(self, register: str, keys: Iterable[str]) -> int:
        kept = self._open().registers.setdefault(register, Timed())
        return sum(kept.pop(key) is not None for key in keys)

    async def entries(self, register: str) -> dict[str, bytes]:
        return dict(self._open().registers.setdefault(register, Timed()).items())

    async def begin(self, stream: str, token: int, *, broken: bool = False) -> StreamId:
        kept = self._open().stream(stream)
        if token < kept.token or (broken and token <= kept.last.token):
            raise Fenced(f"token {token} of stream {stream} is out of date")
        kept.token = token
        if broken:
            kept.last = StreamId(token, 0)
        return kept.last

    async def append(
        self, stream: str, token: int, after: StreamId, items: Sequence[bytes], keep: int
    ) -> StreamId:
        kept = self._open().stream(stream)
        if token < kept.token:
            raise Fenced(f"token {token} of stream {stream} is out of date")
        if after != kept.last:
            raise Conflict(kept.last)
        kept.token = token
        return self._memory.extend(kept, token, items, keep)

    async def publish(
        self, stream: str, items: Sequence[bytes], keep: int, ttl_s: float
    ) -> StreamId:
        kept = self._open().stream(stream)
        kept.until = _now() + ttl_s
        token = max(self._memory.clock_ms(), kept.last.token)
        return self._memory.extend(kept, token, items, keep)

    async def read(self, stream: str, after: StreamId, limit: int, wait_s: float) -> list[Item]:
        deadline = _now() + wait_s
        while not (found := self._after(stream, after, limit)) and _now() < deadline:
            await self._memory.changed(deadline - _now())
        return found

    def _after(self, stream: str, after: StreamId, limit: int) -> list[Item]:
        items = self._open().stream(stream).items
        start = bisect.bisect_right(items, after, key=lambda item: item.id)
        return items[start : start + limit]

    async def last(self, stream: str) -> StreamId:
        return self._open().stream(stream).last

    async def close(self) -> None:
        self._closed = True
        self._memory.wake()
