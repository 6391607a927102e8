"""What servers need of an engine besides the order: how it is, room in it, who else is there."""

from __future__ import annotations

import asyncio

from ovncp.log.base import Log, LogError
from ovncp.log.contract.bench import EngineBench
from ovncp.log.contract.case import case, entries_from, expected, fill, raises
from ovncp.log.engine import EngineLog, SharedLog

_PATIENCE_S = 30.0
_LONG_MS = 60_000
_SHORT_MS = 1_000


def _shared(log: Log) -> SharedLog:
    assert isinstance(log, EngineLog)
    return log


@case(EngineBench)
async def notices_are_seen_by_all(bench: EngineBench) -> None:
    log, other = _shared(bench.log), _shared(await bench.open())
    assert await log.notices() == {}
    await log.post("a", b"one", _LONG_MS)
    await other.post("b", b"\xff\x00", _LONG_MS)
    assert await log.notices() == await other.notices() == {"a": b"one", "b": b"\xff\x00"}
    await log.post("a", b"two", _LONG_MS)
    assert (await other.notices())["a"] == b"two"
    await log.withdraw("a")
    await log.withdraw("a")
    assert await other.notices() == {"b": b"\xff\x00"}


@case(EngineBench)
async def a_notice_that_is_not_renewed_goes(bench: EngineBench) -> None:
    log, other = _shared(bench.log), _shared(await bench.open())
    await log.post("a", b"one", _SHORT_MS)
    await log.post("b", b"two", _LONG_MS)
    async with asyncio.timeout(_PATIENCE_S):
        while "a" in await other.notices():
            await asyncio.sleep(0.1)
    assert await other.notices() == {"b": b"two"}
    await log.post("a", b"back", _LONG_MS)
    assert "a" in await other.notices()


@case(EngineBench)
async def a_closed_handle_shows_nothing_new(bench: EngineBench) -> None:
    log = _shared(await bench.open())
    await log.close()
    with raises(LogError):
        await log.post("a", b"one", _LONG_MS)
    with raises(LogError):
        await log.notices()


@case(EngineBench)
async def the_snapshot_of_another_handle_is_found(bench: EngineBench) -> None:
    log, other = _shared(bench.log), _shared(await bench.open())
    await fill(log, 3)
    await other.save_snapshot(2, b"{}")
    assert await log.find_snapshot() == log.snapshot_index == 2


@case(EngineBench)
async def the_engine_says_how_it_is(bench: EngineBench) -> None:
    log = _shared(bench.log)
    status, usage = await log.status(), await log.usage()
    assert status.engine
    assert status.version
    assert status.term >= 1
    assert not status.alarms
    assert status.leader is not None
    assert not status.leader.problem
    assert 0 < usage.used <= usage.allocated
    assert usage.quota is None or usage.allocated < usage.quota


@case(EngineBench)
async def making_room_leaves_what_is_needed(bench: EngineBench) -> None:
    log = _shared(bench.log)
    await fill(log, 5)
    await log.save_snapshot(3, b"{}", b"history")
    await log.post("a", b"one", _LONG_MS)
    await log.make_room()
    assert await entries_from(log, 4) == expected(4, 5)
    snapshot = await log.snapshot()
    assert (snapshot.index, snapshot.data, snapshot.history) == (3, b"{}", b"history")
    assert await log.notices() == {"a": b"one"}


@case(EngineBench)
async def a_snapshot_is_never_left_out(bench: EngineBench) -> None:
    log = _shared(bench.log)
    await fill(log, 3)
    await log.save_snapshot(2, b"{}")
    with raises(LogError):
        await log.leave_out(2)
    await log.leave_out(3)
