"""The file backend: `LogFile` behind threads, so that the event loop never waits for the disk.

One thread owns the file: appends and reads pass through it in the order of the calls.  A second
one builds a compacted file beside it, and asks the first only for the exchange at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ovncp.log.base import Chunks, Conflict, Entry, Lease, Log, LogError, Snapshot
from ovncp.log.chunks import cut
from ovncp.log.growth import Growth
from ovncp.log.leases import LocalLeases, check
from ovncp.log.logfile import LogFile
from ovncp.log.rewrite import Rewrite

P = ParamSpec("P")
T = TypeVar("T")

_PIECE_BYTES = 1 << 20


class FileLog(Log):
    """A log in a standalone database file; leases are among the tasks of this process.

    Entry 1, or snapshot 1, is the file's first transaction record at the time of opening.  `file`
    is for the figures that only files have.
    """

    def __init__(self, file: LogFile):
        self.file = file
        self._loop = asyncio.get_running_loop()
        self._owner = ThreadPoolExecutor(1, "log")
        self._rewriter = ThreadPoolExecutor(1, "log-rewrite")
        self._one_rewrite = asyncio.Lock()
        self._growth = Growth()
        self._leases = LocalLeases()
        self._closed = False

    @classmethod
    async def open(cls, path: str, *, fsync: bool = True) -> FileLog:
        """Open `path`, with the errors of `LogFile`."""
        return cls(await asyncio.to_thread(LogFile, path, fsync=fsync))

    @property
    def next_index(self) -> int:
        return self.file.next_index

    async def confirm(self, index: int) -> None:
        self._check_open()
        if index != self.next_index:
            raise Conflict(f"index {index} is not the next one, {self.next_index}")

    async def append(
        self, index: int, entries: Sequence[bytes], guards: Sequence[Lease] = ()
    ) -> None:
        check(guards)
        await self._owned(self._append, index, entries)

    def _append(self, index: int, entries: Sequence[bytes]) -> None:
        self.file.append(index, entries)
        # From here, since nobody may be waiting for the append any more.
        self._loop.call_soon_threadsafe(self._growth.notify)

    async def read(self, from_index: int) -> AsyncIterator[list[Entry]]:
        self._check_open()
        end = self.next_index
        while from_index < end:
            batch = await self._owned(self.file.read, from_index)
            yield batch
            from_index += len(batch)

    def follow(self, from_index: int) -> AsyncIterator[list[Entry]]:
        return self._growth.follow(self.read, from_index)

    async def grown(self, index: int) -> None:
        await self._growth.until(lambda: self.next_index > index)

    async def snapshot(self) -> Snapshot:
        return await self._owned(self.file.snapshot)

    async def save_snapshot(self, index: int, data: Chunks, history: Chunks = b"") -> None:
        """See `Log.save_snapshot`; the file is compacted at once."""
        self._check_open()
        await self._rewrite(Rewrite(self.file, index), data, history)

    async def compact(self, index: int) -> None:
        """See `Log.compact`; there is nothing left to do after `save_snapshot`."""
        if index > self.file.snapshot_index:
            raise LogError(f"{self.file.name}: no snapshot covers the entries up to {index}")

    async def convert(self, index: int, schema: bytes, data: Chunks) -> None:
        self._check_open()
        await self._rewrite(Rewrite(self.file, index, schema), data, b"")

    async def disown(self, index: int) -> str:
        return await self._owned(self.file.disown, index)

    async def leave_out(self, index: int) -> str:
        return await self._owned(self.file.leave_out, index)

    async def _rewrite(self, rewrite: Rewrite, data: Chunks, history: Chunks) -> None:
        async with self._one_rewrite:
            self._check_open()
            try:
                await self._aside(rewrite.begin)
                async for piece in cut(data, _PIECE_BYTES):
                    await self._aside(rewrite.write, piece)
                async for piece in cut(history, _PIECE_BYTES):
                    await self._aside(rewrite.history.write, piece)
                await self._aside(rewrite.finish)
                await self._aside(self._exchange, rewrite)
            finally:
                # In the same thread after all of that, so that even a cancelled step is over.
                await asyncio.shield(self._aside(rewrite.discard))

    def _exchange(self, rewrite: Rewrite) -> None:
        self._owner.submit(self.file.adopt, rewrite).result()
        self._loop.call_soon_threadsafe(self._growth.notify)

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
        async with self._one_rewrite:
            await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        self._rewriter.shutdown()
        self._owner.shutdown()
        self.file.close()

    async def _owned(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_open()
        return await self._loop.run_in_executor(self._owner, lambda: call(*args, **kwargs))

    async def _aside(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._loop.run_in_executor(self._rewriter, lambda: call(*args, **kwargs))

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"{self.file.name}: the log is closed")
