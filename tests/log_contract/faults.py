"""Appenders that go on while an engine is harmed; nothing may be lost or doubled by that."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from ovncp.log.base import Log, LogError
from ovncp.log.contract.appender import Work, append_one
from ovncp.log.contract.bench import SCHEMA
from ovncp.log.contract.case import entries_from
from ovncp.log.registry import engine, open_log

PATIENCE_S = 60.0
N_APPENDERS = 3
ENTRIES_PER_BATCH = 3


@contextlib.asynccontextmanager
async def opened(location: str) -> AsyncIterator[Log]:
    """A new log."""
    await engine(location).create(location, SCHEMA)
    log = await open_log(location)
    try:
        yield log
    finally:
        await log.close()


@contextlib.asynccontextmanager
async def load(location: str) -> AsyncIterator[None]:
    """Appenders, each with a handle of its own, all the while and until they have come to
    themselves; afterwards all that was acknowledged is there once."""
    async with opened(location) as log:
        done = asyncio.Event()
        names = [f"appender {i}" for i in range(N_APPENDERS)]
        appending = asyncio.gather(*(_append_until(done, location, name) for name in names))
        await asyncio.sleep(0.5)
        yield
        await _read_on(log, 20 * N_APPENDERS * ENTRIES_PER_BATCH)
        done.set()
        counts = await asyncio.wait_for(appending, PATIENCE_S)
        await _check_all_there(log, dict(zip(names, counts, strict=True)))


async def _append_until(done: asyncio.Event, location: str, name: str) -> int:
    """Append batch after batch, whatever happens; how many entries were acknowledged."""
    log = await open_log(location)
    work = Work(name, 0, ENTRIES_PER_BATCH)
    number = 0
    while not done.is_set():
        with contextlib.suppress(LogError):
            await append_one(log, work.batch(number))
            number += work.n_entries
    await log.close()
    return number


async def _read_on(log: Log, count: int) -> None:
    """Return when `count` further entries have come."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(LogError):
                start = (await entries_from(log, log.next_index - 1))[-1].index
                async for batch in log.follow(start):
                    if batch[-1].index >= start + count:
                        return


async def _check_all_there(log: Log, acknowledged: dict[str, int]) -> None:
    entries = await entries_from(log, 1)
    assert [entry.index for entry in entries] == list(range(1, len(entries) + 1))
    seen: dict[str, list[int]] = {}
    for entry in entries:
        content = json.loads(entry.data)
        seen.setdefault(content["by"], []).append(content["n"])
    assert seen == {name: list(range(count)) for name, count in acknowledged.items()}
