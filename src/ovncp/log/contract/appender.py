"""A process that appends to a log, for cases to run several of, or to kill.

`python -m ovncp.log.contract.appender LOCATION NAME N_BATCHES ENTRIES BYTES` appends batches, each
of ENTRIES entries `{"by":NAME,"n":number,"x":filling}` of about BYTES each, with numbers from 0 on,
and says `stored NUMBER INDEX` of each batch that is: its first number and index.  With N_BATCHES 0
it takes the lease "writer", says `holds TOKEN`, and keeps it for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ovncp.log.base import Conflict, Log, LogError, OutcomeUnknown
from ovncp.log.registry import open_log

LEASE_MS = 4000
_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Work:
    """What an appender is to append."""

    name: str
    n_batches: int
    n_entries: int
    n_bytes: int = 0

    def batch(self, number: int) -> list[bytes]:
        """The batch whose first entry is `number`."""
        filling = (f"{number:x}" * (self.n_bytes // len(f"{number:x}") + 1))[: self.n_bytes]
        return [
            json.dumps({"by": self.name, "n": number + i, "x": filling}).encode()
            for i in range(self.n_entries)
        ]


async def append_all(log: Log, work: Work) -> list[int]:
    """Append the batches of `work` in turn, against whoever else appends; the index of each."""
    return [await append_one(log, work.batch(i * work.n_entries)) for i in range(work.n_batches)]


async def append_one(log: Log, batch: list[bytes]) -> int:
    """Append `batch` at the first index that is free; returns that."""
    index = log.next_index
    while True:
        try:
            await log.append(index, batch)
            return index
        except Conflict:
            index = await _catch_up(log, index)
        except OutcomeUnknown:
            if await _is_own(log, index):
                return index


async def _is_own(log: Log, index: int) -> bool:
    """Whether this handle appended what is at `index`, asked until there is an answer."""
    while True:
        try:
            async for entries in log.read(index):
                return entries[0].own
            return False
        except LogError:
            await asyncio.sleep(_PAUSE_S)


async def _catch_up(log: Log, index: int) -> int:
    async for entries in log.read(index):
        index = entries[-1].index + 1
    return index


@contextlib.asynccontextmanager
async def appender(location: str, work: Work) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process, which ends with the block at the latest; read what it says from its stdout."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ovncp.log.contract.appender", location, work.name),
        *map(str, (work.n_batches, work.n_entries, work.n_bytes)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _main(location: str, name: str, *numbers: str) -> None:
    work = Work(name, *map(int, numbers))
    log = await open_log(location)
    if not work.n_batches:
        lease = await log.acquire("writer", LEASE_MS)
        print("holds", lease.token, flush=True)
        while True:
            await asyncio.sleep(LEASE_MS / 5000)
            await lease.renew()
    for number in range(0, work.n_batches * work.n_entries, work.n_entries):
        print("stored", number, await append_one(log, work.batch(number)), flush=True)
    await log.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
