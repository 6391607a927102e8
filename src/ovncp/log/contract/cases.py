"""The promises that every backend keeps, for one handle and without faults that need a network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from ovncp.log.base import (
    Chunks,
    Compacted,
    Conflict,
    Entry,
    Lease,
    LeaseLost,
    Log,
    LogError,
    OutcomeUnknown,
    Snapshot,
)
from ovncp.log.contract.bench import SCHEMA, Bench, LossyBench
from ovncp.log.contract.case import Gate, case, chunked, entries_from, expected, fill, raises, text

_PATIENCE_S = 30.0


@case()
async def a_new_log_holds_the_schema_alone(bench: Bench) -> None:
    log = bench.log
    assert log.next_index == 1
    assert await log.snapshot() == Snapshot(0, SCHEMA, b"")
    assert await entries_from(log, 1) == []


@case()
async def appended_entries_are_read_back_from_any_index(bench: Bench) -> None:
    log = bench.log
    await log.append(1, [text(1), text(2)])
    await log.append(3, [text(3)])
    assert log.next_index == 4
    for first in (1, 2, 3, 4):
        assert await entries_from(log, first) == expected(first, 3)
    assert await entries_from(log, 9) == []


@case()
async def no_entries_are_no_change(bench: Bench) -> None:
    log = bench.log
    await log.append(1, [])
    assert log.next_index == 1
    with raises(Conflict):
        await log.append(2, [])


@case(index=[0, 1, 2, 4])
async def an_append_at_another_index_is_a_conflict(bench: Bench, index: int) -> None:
    log = bench.log
    await fill(log, 2)
    with raises(Conflict):
        await log.append(index, [b"{}"])
    assert await entries_from(log, 1) == expected(1, 2)


@case()
async def of_appends_at_one_index_the_first_wins(bench: Bench) -> None:
    log = bench.log
    results = await asyncio.gather(
        *(log.append(1, [text(number)]) for number in range(1, 6)), return_exceptions=True
    )
    assert results[0] is None
    assert all(isinstance(result, Conflict) for result in results[1:])
    assert await entries_from(log, 1) == expected(1, 1)


@case()
async def appends_take_effect_in_the_order_of_the_calls(bench: Bench) -> None:
    log = bench.log
    await asyncio.gather(*(log.append(index, [text(index)]) for index in range(1, 51)))
    assert await entries_from(log, 1) == expected(1, 50)


@case()
async def many_and_large_entries(bench: Bench) -> None:
    log = bench.log
    large = b'{"x":"' + b"y" * 3_000_000 + b'"}'
    await log.append(1, [text(index) for index in range(1, 2001)])
    await log.append(2001, [large, text(2002)])
    assert await entries_from(log, 1) == [
        *expected(1, 2000),
        Entry(2001, large),
        Entry(2002, text(2002)),
    ]


@case(LossyBench)
async def a_lost_acknowledgement_is_settled_by_reading(bench: LossyBench) -> None:
    log = bench.log
    await fill(log, 2)
    bench.lose_next_answer()
    with raises(OutcomeUnknown):
        await log.append(3, [text(3)])
    if await entries_from(log, 3):
        with raises(Conflict):
            await log.append(3, [text(3)])
    else:
        await log.append(3, [text(3)])
    await log.append(4, [text(4)])
    assert await entries_from(log, 1) == expected(1, 4)


@case(yields=range(4))
async def a_cancelled_append_happened_or_not(bench: Bench, yields: int) -> None:
    log = bench.log
    await fill(log, 1)
    append = asyncio.create_task(log.append(2, [text(2), text(3)]))
    for _ in range(yields):
        await asyncio.sleep(0)
    append.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await append
    try:
        await log.append(2, [text(2), text(3)])
    except Conflict:
        assert log.next_index == 4
    assert await entries_from(log, 1) == expected(1, 3)


@case()
async def follow_gives_what_is_there_and_what_comes(bench: Bench) -> None:
    log = bench.log
    await fill(log, 2)
    seen: list[Entry] = []

    async def follow() -> None:
        async for batch in log.follow(1):
            seen.extend(batch)

    follower = asyncio.create_task(follow())
    while len(seen) < 2:
        await asyncio.sleep(0.001)
    await fill(log, 3)
    await log.append(6, [text(6), text(7)])
    while len(seen) < 7:
        await asyncio.sleep(0.001)
    assert seen == expected(1, 7)
    await log.close()
    await asyncio.wait_for(follower, _PATIENCE_S)


@case()
async def follow_may_wait_for_an_index_to_come(bench: Bench) -> None:
    log = bench.log
    follower = asyncio.ensure_future(anext(log.follow(2)))
    await fill(log, 2)
    assert await asyncio.wait_for(follower, _PATIENCE_S) == expected(2, 2)


@case()
async def follow_sees_an_append_that_nobody_waited_for(bench: Bench) -> None:
    log = bench.log
    follower = asyncio.ensure_future(anext(log.follow(1)))
    await asyncio.sleep(0.01)
    append = asyncio.create_task(log.append(1, [text(1)]))
    await asyncio.sleep(0)
    append.cancel()
    await asyncio.wait([append])
    with contextlib.suppress(Conflict):
        await log.append(1, [text(1)])
    assert await asyncio.wait_for(follower, _PATIENCE_S) == expected(1, 1)


@case(shape=["bytes", "iterable", "async iterable"])
async def a_snapshot_replaces_the_entries_up_to_its_index(bench: Bench, shape: str) -> None:
    log = bench.log
    await fill(log, 5)
    state = b'{"state":"as of three"}'
    data: dict[str, Chunks] = {
        "bytes": state,
        "iterable": [state[:4], state[4:]],
        "async iterable": chunked(state),
    }
    await log.save_snapshot(3, data[shape])
    await log.compact(3)
    assert await log.snapshot() == Snapshot(3, SCHEMA, state)
    assert log.next_index == 6
    assert await entries_from(log, 4) == expected(4, 5)
    with raises(Compacted):
        await entries_from(log, 3)
    await log.append(6, [text(6)])
    assert await entries_from(log, 4) == expected(4, 6)


@case()
async def snapshots_follow_each_other(bench: Bench) -> None:
    log = bench.log
    for index in (2, 4, 6, 6):
        if log.next_index <= index:
            await fill(log, 2)
        await log.save_snapshot(index, text(-index))
        await log.compact(index)
    assert await log.snapshot() == Snapshot(6, SCHEMA, text(-6))
    assert await entries_from(log, 7) == []
    await fill(log, 1)
    assert await entries_from(log, 7) == expected(7, 7)


@case()
async def an_empty_state_is_a_snapshot_without_data(bench: Bench) -> None:
    log = bench.log
    await fill(log, 2)
    await log.save_snapshot(2, b"")
    assert await log.snapshot() == Snapshot(2, SCHEMA, b"")
    await fill(log, 1)
    assert await entries_from(log, 3) == expected(3, 3)


async def past(log: Log) -> bytes:
    """The history that came with the snapshot, if the engine did not lose it."""
    return (await log.snapshot()).history


@case(size=[3, 5_000_000])
async def a_history_comes_with_its_snapshot_or_not_at_all(bench: Bench, size: int) -> None:
    log = bench.log
    await fill(log, 3)
    history = [b"one\n", b"two" * size, b"\n\n"]
    await log.save_snapshot(2, text(2), iter(history))
    assert await past(log) in (b"".join(history), b"")
    await fill(log, 1)
    assert await past(log) in (b"".join(history), b"")
    await log.save_snapshot(3, text(3), chunked(b"other"))
    assert await past(log) in (b"other", b"")
    await log.save_snapshot(3, text(3))
    assert await past(log) == b""
    await log.save_snapshot(4, text(4), b"more")
    await log.convert(5, SCHEMA, b"{}")
    assert await past(log) == b""


@case()
async def a_history_whose_data_fail_leaves_the_log_as_it_was(bench: Bench) -> None:
    log = bench.log

    async def failing() -> AsyncIterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    await fill(log, 3)
    await log.save_snapshot(1, text(1), b"first")
    before = await log.snapshot()
    with raises(ZeroDivisionError):
        await log.save_snapshot(3, b"{}", failing())
    assert await log.snapshot() == before
    assert await entries_from(log, 2) == expected(2, 3)


@case()
async def what_makes_no_sense_is_disowned_unless_others_use_it(bench: Bench) -> None:
    log = bench.log
    await fill(log, 4)
    await log.save_snapshot(1, text(1))
    with contextlib.suppress(LogError):
        assert await log.leave_out(3)
        assert await log.disown(3)
        assert log.next_index == 3
        assert await entries_from(log, 2) == expected(2, 2)
        await log.append(3, [text(33)])
        assert await entries_from(log, 2) == [Entry(2, text(2)), Entry(3, text(33))]
        await log.disown(1)
        assert log.next_index == 1
        assert await log.snapshot() == Snapshot(0, SCHEMA, b"")
        assert await entries_from(log, 1) == []
        await fill(log, 2)
    assert await entries_from(log, 2) == expected(2, log.next_index - 1)


@case()
async def a_snapshot_outside_of_the_log_is_refused(bench: Bench) -> None:
    log = bench.log
    await fill(log, 3)
    await log.save_snapshot(2, b"{}")
    for index in (-1, 1, 4):
        with raises(LogError):
            await log.save_snapshot(index, b"[]")
    with raises(LogError):
        await log.compact(3)
    await log.compact(1)
    assert await log.snapshot() == Snapshot(2, SCHEMA, b"{}")
    assert await entries_from(log, 3) == expected(3, 3)


@case()
async def a_snapshot_whose_data_fail_leaves_the_log_as_it_was(bench: Bench) -> None:
    log = bench.log

    async def failing() -> AsyncIterator[bytes]:
        yield b'{"half'
        raise ZeroDivisionError

    await fill(log, 3)
    with raises(ZeroDivisionError):
        await log.save_snapshot(3, failing())
    assert await log.snapshot() == Snapshot(0, SCHEMA, b"")
    assert await entries_from(log, 1) == expected(1, 3)
    await log.save_snapshot(3, b"{}")


@case(yields=[0, 1, 5, 20, 60])
async def a_cancelled_snapshot_happened_or_not(bench: Bench, yields: int) -> None:
    log = bench.log
    await fill(log, 3)
    saving = asyncio.create_task(log.save_snapshot(2, chunked(text(100))))
    for _ in range(yields):
        await asyncio.sleep(0.0003)
    saving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await saving
    await fill(log, 1)
    assert await entries_from(log, 3) == expected(3, 4)
    assert (await log.snapshot()).index in (0, 2)
    await log.save_snapshot(3, text(200))
    assert await log.snapshot() == Snapshot(3, SCHEMA, text(200))


@case()
async def appends_go_on_during_a_snapshot(bench: Bench) -> None:
    log = bench.log
    await fill(log, 5)
    state = Gate(b'{"state":', b"5}")
    saving = asyncio.create_task(log.save_snapshot(5, state))
    await state.reached.wait()
    await fill(log, 10)
    state.open()
    while not saving.done():
        await fill(log, 1)
        await asyncio.sleep(0)
    await saving
    await fill(log, 2)
    assert await log.snapshot() == Snapshot(5, SCHEMA, b'{"state":5}')
    assert await entries_from(log, 6) == expected(6, log.next_index - 1)


async def fill_with_large_ones(log: Log, count: int) -> None:
    for n in range(1, count + 1):
        await log.append(n, [b'{"n":%d,"x":"%s"}' % (n, b"x" * 50_000)])


@case()
async def a_reader_meets_compaction(bench: Bench) -> None:
    log = bench.log
    """It gets every entry in order, or is told; never a gap."""
    await fill_with_large_ones(log, 100)
    reader = log.read(1)
    first = await anext(reader)
    assert [entry.index for entry in first] == list(range(1, len(first) + 1))
    await log.save_snapshot(90, b"{}")
    await log.compact(90)
    seen = len(first)
    with raises(Compacted):
        async for batch in reader:
            for entry in batch:
                seen += 1
                assert entry.index == seen
    assert seen < 100


@case()
async def a_reader_past_the_snapshot_goes_on(bench: Bench) -> None:
    log = bench.log
    await fill_with_large_ones(log, 100)
    reader = log.read(1)
    seen = [entry.index for entry in await anext(reader)]
    await log.save_snapshot(seen[-1], b"{}")
    await log.compact(seen[-1])
    seen += [entry.index async for batch in reader for entry in batch]
    assert seen == list(range(1, 101))


@case(n_bytes=[10, 2_000_000])
async def compaction_up_to_the_middle_of_a_batch_leaves_the_rest(
    bench: Bench, n_bytes: int
) -> None:
    log = bench.log
    await fill(log, 1)
    batch = [b'{"n":%d,"x":"%s"}' % (n, b"x" * n_bytes) for n in range(2, 6)]
    await log.append(2, batch)
    await log.save_snapshot(3, b"{}")
    await log.compact(3)
    with raises(Compacted):
        await entries_from(log, 3)
    assert [entry.data for entry in await entries_from(log, 4)] == batch[2:]
    await log.save_snapshot(5, b"{}")
    await log.compact(5)
    with raises(Compacted):
        await entries_from(log, 5)
    await fill(log, 1)
    assert await entries_from(log, 6) == expected(6, 6)


@case()
async def a_conversion_takes_an_index(bench: Bench) -> None:
    log = bench.log
    await fill(log, 3)
    await log.convert(4, b'{"name":"T2"}', chunked(b'{"new":1}'))
    assert log.next_index == 5
    assert await log.snapshot() == Snapshot(4, b'{"name":"T2"}', b'{"new":1}')
    with raises(Compacted):
        await entries_from(log, 4)
    with raises(Conflict):
        await log.append(4, [text(4)])
    await fill(log, 1)
    assert await entries_from(log, 5) == expected(5, 5)
    await log.save_snapshot(5, b"{}")
    assert await log.snapshot() == Snapshot(5, b'{"name":"T2"}', b"{}")


@case()
async def a_conversion_that_comes_late_is_a_conflict(bench: Bench) -> None:
    log = bench.log
    await fill(log, 2)
    state = Gate(b"{", b"}")
    conversion = asyncio.create_task(log.convert(3, b'{"name":"T2"}', state))
    await state.reached.wait()
    await fill(log, 1)
    state.open()
    with raises(Conflict):
        await conversion
    assert await log.snapshot() == Snapshot(0, SCHEMA, b"")
    assert await entries_from(log, 1) == expected(1, 3)


@case()
async def a_follower_is_told_of_a_conversion(bench: Bench) -> None:
    log = bench.log
    await fill(log, 1)
    follower = log.follow(1)
    assert await anext(follower) == expected(1, 1)
    waiting = asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0.01)
    await log.convert(2, b"{}", b"")
    with raises(Compacted):
        await asyncio.wait_for(waiting, _PATIENCE_S)


@case()
async def a_lease_has_one_holder_and_growing_tokens(bench: Bench) -> None:
    log = bench.log
    first = await log.acquire("writer", 60_000)
    waiting = asyncio.create_task(log.acquire("writer", 60_000))
    other = await log.acquire("reader", 60_000)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await first.release()
    second = await asyncio.wait_for(waiting, _PATIENCE_S)
    await asyncio.wait_for(first.lost(), _PATIENCE_S)
    assert second.token > first.token
    with raises(LeaseLost):
        await first.renew()
    await first.release()
    await second.renew()
    await other.renew()


async def _renewed(log: Log) -> Lease:
    """A lease that was held for longer than its time, of which little is left.

    On a machine that is too busy to renew one of a short time, it has a longer one.
    """
    for ttl_ms in (200, 1000, 5000):
        lease = await log.acquire("writer", ttl_ms)
        with contextlib.suppress(LeaseLost):
            for _ in range(3):
                await asyncio.sleep(ttl_ms / 2000)
                await lease.renew()
            return lease
    raise LeaseLost("a lease cannot be renewed")


@case()
async def a_lease_runs_out_unless_renewed(bench: Bench) -> None:
    log = bench.log
    lease = await _renewed(log)
    successor = await asyncio.wait_for(log.acquire("writer", 60_000), _PATIENCE_S)
    await asyncio.wait_for(lease.lost(), _PATIENCE_S)
    assert successor.token > lease.token


@case()
async def a_cancelled_wait_for_a_lease_takes_nothing(bench: Bench) -> None:
    log = bench.log
    lease = await log.acquire("writer", 60_000)
    waiting = [asyncio.create_task(log.acquire("writer", 60_000)) for _ in range(3)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    await lease.release()
    waiting[1].cancel()
    await asyncio.wait_for(waiting[2], _PATIENCE_S)
    assert waiting[0].cancelled() and waiting[1].cancelled()


@case()
async def a_closed_log_refuses_and_lets_leases_go(bench: Bench) -> None:
    log = bench.log
    lease = await log.acquire("writer", 60_000)
    await fill(log, 1)
    await log.close()
    await log.close()
    await asyncio.wait_for(lease.lost(), _PATIENCE_S)
    for call in (
        log.append(2, [b"{}"]),
        log.snapshot(),
        log.save_snapshot(1, b"{}"),
        log.convert(2, b"{}", b""),
        log.acquire("writer", 1),
        anext(log.read(1)),
    ):
        with raises(LogError):
            await call
