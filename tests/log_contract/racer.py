"""A process that proposes batches at whatever head it is told, whatever it may know by itself.

`python racer.py LOCATION NAME` says `ready`, and then for each line `INDEX VERSION N_ENTRIES` that
it reads whether a batch of so many entries at that head was `made` or `refused`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

from ovncp.log.engine import Head, SharedLog
from ovncp.log.registry import open_log


class Racer:
    """The process, as whoever started it sees it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process):
        self.name = name
        self._process = process

    async def propose(self, head: Head, n_entries: int) -> bool:
        """Whether it could append a batch to a log with that head."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d %d %d\n" % (head.next_index, head.version, n_entries))
        return await self.said() == "made"

    async def said(self) -> str:
        """The next line that it says."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 30)
        return line.decode().strip()


@contextlib.asynccontextmanager
async def racers(location: str, count: int) -> AsyncIterator[list[Racer]]:
    """So many processes, ready to race."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for number in range(count):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, location, f"racer {number}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
            found.append(Racer(f"racer {number}", process))
        assert {await racer.said() for racer in found} == {"ready"}
        yield found


_PATIENT = 20
"""An attempt that takes a busy machine's time."""


async def _is_made(log: SharedLog, name: str, head: Head, n_entries: int) -> bool:
    entries = [b'"%s"' % name.encode()] * n_entries
    async with log._batch(head.next_index, entries, ()) as change:
        made, _ = await log._propose(change, head, _PATIENT)
        return made


async def _main(location: str, name: str) -> None:
    log = await open_log(location)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        next_index, version, n_entries = map(int, line.split())
        made = await _is_made(log, name, Head(next_index, version), n_entries)
        print("made" if made else "refused", flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
