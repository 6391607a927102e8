"""The reference log: a list in memory that states what every backend does, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence

from ovncp.log.base import Chunks, Compacted, Conflict, Entry, Lease, Log, LogError, Snapshot
from ovncp.log.growth import Growth
from ovncp.log.leases import LocalLeases, check

_BATCH = 64


class MemoryLog(Log):
    """A log that lives as long as its object."""

    def __init__(self, schema: bytes):
        self._snapshot = Snapshot(0, schema, b"")
        self._entries: list[Entry] = []  # consecutive, the last one being next_index - 1
        self._next_index = 1
        self._growth = Growth()
        self._leases = LocalLeases()
        self._closed = False

    @property
    def next_index(self) -> int:
        return self._next_index

    async def confirm(self, index: int) -> None:
        self._check_next(index)

    async def append(
        self, index: int, entries: Sequence[bytes], guards: Sequence[Lease] = ()
    ) -> None:
        self._check_next(index)
        check(guards)
        self._entries += [Entry(index + i, data) for i, data in enumerate(entries)]
        self._next_index += len(entries)
        self._growth.notify()

    async def read(self, from_index: int) -> AsyncIterator[list[Entry]]:
        self._check_open()
        end = self._next_index
        while from_index < end:
            self._check_open()
            if from_index <= self._snapshot.index:
                raise Compacted(f"entry {from_index} is part of snapshot {self._snapshot.index}")
            start = from_index - (self._next_index - len(self._entries))
            batch = self._entries[start : start + min(_BATCH, end - from_index)]
            yield batch
            from_index += len(batch)

    def follow(self, from_index: int) -> AsyncIterator[list[Entry]]:
        return self._growth.follow(self.read, from_index)

    async def grown(self, index: int) -> None:
        await self._growth.until(lambda: self.next_index > index)

    async def snapshot(self) -> Snapshot:
        self._check_open()
        return self._snapshot

    async def save_snapshot(self, index: int, data: Chunks, history: Chunks = b"") -> None:
        text, past = await join(data), await join(history)
        self._check_open()
        if not self._snapshot.index <= index < self._next_index:
            raise LogError(f"cannot save a snapshot at {index}")
        self._snapshot = Snapshot(index, self._snapshot.schema, text, past)

    async def compact(self, index: int) -> None:
        self._check_open()
        if index > self._snapshot.index:
            raise LogError(f"no snapshot covers the entries up to {index}")
        self._entries = [entry for entry in self._entries if entry.index > index]

    async def convert(self, index: int, schema: bytes, data: Chunks) -> None:
        text = await join(data)
        self._check_next(index)
        self._snapshot = Snapshot(index, schema, text)
        self._entries = []
        self._next_index += 1
        self._growth.notify()

    async def disown(self, index: int) -> str:
        self._check_open()
        if index <= self._snapshot.index:
            self._snapshot = Snapshot(index - 1, self._snapshot.schema, b"")
        self._entries = [entry for entry in self._entries if entry.index < index]
        self._next_index = index
        return f"entry {index}"

    async def acquire(self, name: str, ttl_ms: int) -> Lease:
        self._check_open()
        return await self._leases.acquire(name, ttl_ms)

    async def try_acquire(self, name: str, ttl_ms: int) -> Lease | None:
        self._check_open()
        return self._leases.try_acquire(name, ttl_ms)

    async def seize(self, name: str, ttl_ms: int) -> Lease:
        self._check_open()
        return self._leases.seize(name, ttl_ms)

    async def close(self) -> None:
        self._closed = True
        self._growth.close()
        self._leases.close()

    def _check_next(self, index: int) -> None:
        self._check_open()
        if index != self._next_index:
            raise Conflict(f"index {index} is not the next one, {self._next_index}")

    def _check_open(self) -> None:
        if self._closed:
            raise LogError("the log is closed")


async def join(data: Chunks) -> bytes:
    """All of `data` as one text."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, AsyncIterable):
        return b"".join([chunk async for chunk in data])
    return b"".join(data)
