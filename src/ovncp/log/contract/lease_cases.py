"""The promises about leases beyond waiting for them: trying, seizing, and guarding appends."""

from __future__ import annotations

import asyncio

from ovncp.log.base import Conflict, Lease, LeaseLost, Log
from ovncp.log.contract.bench import Bench, EngineBench
from ovncp.log.contract.case import case, entries_from, expected, fill, raises, text
from ovncp.log.engine import EngineLog
from ovncp.log.timed_lease import TimedLease

_TTL_MS = 60_000
_PATIENCE_S = 20.0


@case()
async def a_confirmed_index_is_the_next_one(bench: Bench) -> None:
    log = bench.log
    await fill(log, 2)
    await log.confirm(3)
    for index in (0, 2, 4):
        with raises(Conflict):
            await log.confirm(index)


@case(EngineBench)
async def what_another_handle_appended_is_confirmed_at_once(bench: EngineBench) -> None:
    log, other = bench.log, await bench.open()
    await other.append(1, [text(1)])
    with raises(Conflict):
        await log.confirm(1)
    await log.confirm(2)


async def _held(lease: Lease | None) -> Lease:
    assert lease is not None
    assert lease.is_held
    return lease


@case()
async def trying_takes_a_free_lease_alone(bench: Bench) -> None:
    log = bench.log
    lease = await _held(await log.try_acquire("a", _TTL_MS))
    assert await log.try_acquire("a", _TTL_MS) is None
    await _held(await log.try_acquire("b", _TTL_MS))
    await lease.release()
    again = await _held(await log.try_acquire("a", _TTL_MS))
    assert again.token > lease.token


@case()
async def seizing_takes_a_lease_from_its_holder_who_is_told(bench: Bench) -> None:
    log = bench.log
    lease = await log.acquire("a", _TTL_MS)
    thief = await _held(await log.seize("a", _TTL_MS))
    assert thief.token > lease.token
    await lease.lost()
    with raises(LeaseLost):
        await lease.renew()
    await thief.renew()
    await _held(await log.seize("free", _TTL_MS))


@case(EngineBench)
async def seizing_takes_a_lease_from_another_handle(bench: EngineBench) -> None:
    log, other = bench.log, await bench.open()
    lease = await log.acquire("a", _TTL_MS)
    thief = await _held(await other.seize("a", _TTL_MS))
    assert thief.token > lease.token
    await lease.lost()
    assert not lease.is_held


@case(EngineBench)
async def seizing_leaves_no_gap_for_those_who_wait(bench: EngineBench) -> None:
    log, others = bench.log, [await bench.open() for _ in range(3)]
    await log.acquire("a", _TTL_MS)
    waiting = [asyncio.create_task(other.acquire("a", _TTL_MS)) for other in others]
    for _ in range(50):
        thief = await log.seize("a", _TTL_MS)
    assert thief.is_held
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def _in_line(log: Log, holders: list[Log]) -> list[asyncio.Task[Lease]]:
    """Who waits for the lease "a" of `log`, each behind the one before."""
    waiting = []
    for holder in holders:
        waiting.append(asyncio.create_task(holder.acquire("a", _TTL_MS)))
        await asyncio.sleep(0.3)
    assert await log.try_acquire("a", _TTL_MS) is None
    return waiting


@case()
async def who_waits_gets_a_lease_in_the_order_of_coming(bench: Bench) -> None:
    log = bench.log
    others = [await bench.open() for _ in range(2)] if isinstance(bench, EngineBench) else [log]
    lease = await log.acquire("a", _TTL_MS)
    waiting = await _in_line(log, [*others, log, *others])
    for place, task in enumerate(waiting):
        await lease.release()
        # Nor does anybody get in between.
        assert await log.try_acquire("a", _TTL_MS) is None
        following = await asyncio.wait_for(task, _PATIENCE_S)
        assert following.token > lease.token
        assert not any(later.done() for later in waiting[place + 1 :])
        lease = following


@case(EngineBench)
async def whoever_gives_up_waiting_is_in_nobodys_way(bench: EngineBench) -> None:
    log, other = bench.log, await bench.open()
    lease = await log.acquire("a", _TTL_MS)
    waiting = await _in_line(log, [other, log, other])
    for task in waiting[:2]:
        task.cancel()
    await asyncio.gather(*waiting[:2], return_exceptions=True)
    await lease.release()
    assert (await asyncio.wait_for(waiting[2], _PATIENCE_S)).is_held


@case(EngineBench)
async def a_place_of_one_who_dies_is_given_up(bench: EngineBench) -> None:
    log, other = bench.log, await bench.open()
    dying, wire = await bench.open_by_wire()
    lease = await log.acquire("a", _TTL_MS)
    dead = asyncio.create_task(dying.acquire("a", 1000))
    await asyncio.sleep(0.3)
    waiting = asyncio.create_task(other.acquire("a", _TTL_MS))
    await asyncio.sleep(0.3)
    wire.cut()
    await lease.release()
    assert (await asyncio.wait_for(waiting, _PATIENCE_S)).is_held
    dead.cancel()
    await asyncio.gather(dead, return_exceptions=True)


@case(EngineBench)
async def one_who_was_robbed_may_wait_in_front(bench: EngineBench) -> None:
    log, other = bench.log, await bench.open()
    lease = await log.acquire("a", _TTL_MS)
    waiting = await _in_line(log, [other])
    thief = await other.seize("a", _TTL_MS)
    await lease.lost()
    assert isinstance(lease, TimedLease) and lease.was_stolen
    assert isinstance(log, EngineLog)
    place = await log.line_up("a", _TTL_MS, in_front=True)
    assert place.lease is None
    await thief.release()
    assert (await asyncio.wait_for(log.come_first(place), _PATIENCE_S)).is_held
    assert not waiting[0].done()
    await place.leave()
    assert (await asyncio.wait_for(waiting[0], _PATIENCE_S)).is_held


@case()
async def an_append_is_guarded_by_leases_that_are_held(bench: Bench) -> None:
    log = bench.log
    leases = [await log.acquire("a", _TTL_MS), await log.acquire("b", _TTL_MS)]
    await log.append(1, [text(1)], leases)
    await leases[0].release()
    with raises(LeaseLost):
        await log.append(2, [text(2)], leases)
    await log.append(2, [text(2)], leases[1:])
    assert await entries_from(log, 1) == expected(1, 2)


@case(EngineBench, size=[1, 3 << 20])
async def a_guard_that_was_lost_unawares_keeps_an_append_from_happening(
    bench: EngineBench, size: int
) -> None:
    log, other = bench.log, await bench.open()
    lease = await log.acquire("a", _TTL_MS)
    thief = await other.seize("a", _TTL_MS)
    # Asked before the holder has been told.
    with raises(LeaseLost):
        await log.append(1, [b'{"x":"%s"}' % (b"x" * size)], [lease])
    assert await entries_from(log, 1) == []
    await other.append(1, [text(1)], [thief])
    assert await entries_from(log, 1) == expected(1, 1)
