"""The promises that hold between handles and processes, and when the engine cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import Awaitable

from ovncp.log.base import (
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
from ovncp.log.contract.appender import Work, append_all, appender
from ovncp.log.contract.bench import SCHEMA, EngineBench
from ovncp.log.contract.case import case, entries_from, expected, fill, raises, text
from ovncp.log.contract.wire import Wire
from ovncp.log.location import Location
from ovncp.log.registry import engine, open_log

_PATIENCE_S = 30.0


async def written_by(log: Log) -> dict[str, list[int]]:
    """The numbers that each appender's entries have, in the order of the log, without a gap."""
    numbers: dict[str, list[int]] = {}
    entries = await entries_from(log, 1)
    assert [entry.index for entry in entries] == list(range(1, len(entries) + 1))
    for entry in entries:
        content = json.loads(entry.data)
        numbers.setdefault(content["by"], []).append(content["n"])
    return numbers


@case(EngineBench)
async def handles_exclude_each_other(bench: EngineBench) -> None:
    one, other = bench.log, await bench.open()
    await one.append(1, [text(1), text(2)])
    for index in (1, 2, 4):
        with raises(Conflict):
            await other.append(index, [text(9)])
    assert await entries_from(other, 1) == expected(1, 2)
    await other.append(3, [text(3)])
    with raises(Conflict):
        await one.append(3, [text(9)])
    await one.append(4, [text(4)])
    assert await entries_from(other, 1) == await entries_from(one, 1) == expected(1, 4)


@case(EngineBench)
async def entries_say_whether_this_handle_appended_them(bench: EngineBench) -> None:
    one, other = bench.log, await bench.open()
    await one.append(1, [text(1)])
    await other.append(2, [text(2), text(3)])
    assert [entry.own for entry in await entries_from(one, 1)] == [True, False, False]
    assert [entry.own for entry in await entries_from(other, 1)] == [False, True, True]


@case(EngineBench, n_bytes=[10, 700_000])
async def handles_that_append_at_once_lose_and_double_nothing(
    bench: EngineBench, n_bytes: int
) -> None:
    works = [Work(name, 20 if n_bytes < 1000 else 4, 3, n_bytes) for name in "abcd"]
    logs = [bench.log, *[await bench.open() for _ in works[1:]]]
    await asyncio.gather(*map(append_all, logs, works))
    for log in logs:
        expected_numbers = {w.name: list(range(w.n_batches * w.n_entries)) for w in works}
        assert await written_by(log) == expected_numbers


@case(EngineBench)
async def processes_that_append_at_once_lose_and_double_nothing(bench: EngineBench) -> None:
    works = [Work(name, 40, 5) for name in ("first", "second")]
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(appender(bench.location, w)) for w in works]
        await append_all(bench.log, Work("here", 40, 5))
        assert [await process.wait() for process in running] == [0, 0]
    every = list(range(200))
    assert await written_by(bench.log) == {"first": every, "second": every, "here": every}


@case(EngineBench)
async def batches_of_processes_overlap_nowhere(bench: EngineBench) -> None:
    """Whatever their lengths: each is where its appender was told, whole, and nothing else is."""
    works = [Work(f"{n} at a time", 60, n) for n in (1, 2, 3, 7)]
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(appender(bench.location, w)) for w in works]
        said = await asyncio.gather(*(process.communicate() for process in running))
    entries = await entries_from(bench.log, 1)
    assert len(entries) == sum(work.n_batches * work.n_entries for work in works)
    for work, (output, _) in zip(works, said, strict=True):
        lines = output.splitlines()
        assert len(lines) == work.n_batches
        for line in lines:
            number, index = map(int, line.split()[1:])
            batch = entries[index - 1 : index - 1 + work.n_entries]
            assert [entry.data for entry in batch] == work.batch(number)
    for index in range(1, 30):
        assert await entries_from(bench.log, index) == entries[index - 1 :]


async def stored(process: asyncio.subprocess.Process) -> int:
    """The first number of the next batch that `process` says it has stored."""
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), _PATIENCE_S)
    word, number, _ = line.split()
    assert word == b"stored"
    return int(number)


@case(EngineBench, n_bytes=[200, 500_000])
async def a_killed_appender_leaves_whole_batches(bench: EngineBench, n_bytes: int) -> None:
    """All that it was told is stored is; of the batch under way there is all or nothing."""
    async with appender(bench.location, Work("killed", 10_000, 7, n_bytes)) as process:
        for _ in range(3):
            last = await stored(process)
        process.kill()
    assert process.stdout is not None
    for line in (await process.stdout.read()).splitlines():
        last = int(line.split()[1])
    assert len((await written_by(bench.log))["killed"]) >= last + 7
    # The engine may still be at work on the batch under way; nothing more comes after this.
    await append_all(bench.log, Work("next", 2, 1, n_bytes))
    found = await written_by(bench.log)
    assert found.keys() == {"killed", "next"}
    assert found["killed"] == list(range(len(found["killed"])))
    assert len(found["killed"]) in (last + 7, last + 14)
    assert found["next"] == [0, 1]


@case(EngineBench)
async def a_batch_of_any_size_is_one_batch(bench: EngineBench) -> None:
    """And its bytes may be such that nothing makes them smaller."""
    large = [b'"%s"' % os.urandom(size).hex().encode() for size in (4_000_000, 10, 3_000_000)]
    await bench.log.append(1, [text(1)])
    append = asyncio.create_task(bench.log.append(2, large))
    other = await bench.open()
    seen: list[Entry] = []
    async for batch in other.follow(1):
        seen += batch
        if len(seen) > 1:
            break
    assert seen == [Entry(i, data) for i, data in enumerate([text(1), *large], 1)]
    await append


@case(EngineBench, after_s=[0.0, 0.01, 0.05, 0.2])
async def a_cancelled_append_of_any_size_happened_or_not(
    bench: EngineBench, after_s: float
) -> None:
    large = [b'"%s"' % os.urandom(1_500_000).hex().encode(), text(2)]
    append = asyncio.create_task(bench.log.append(1, large))
    await asyncio.sleep(after_s)
    append.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await append
    with contextlib.suppress(Conflict):
        await bench.log.append(1, large)
    assert [entry.data for entry in await entries_from(await bench.open(), 1)] == large


@case(EngineBench)
async def what_came_while_a_large_append_was_made_ready_stays(bench: EngineBench) -> None:
    """Also when this handle has heard of it meanwhile, as one that is followed does."""
    other = await bench.open()
    large = b'"%s"' % os.urandom(1_500_000).hex().encode()
    for index in itertools.count(1):
        append = asyncio.create_task(bench.log.append(index, [large]))
        await asyncio.sleep(0)
        try:
            await other.append(index, [text(index)])
        except Conflict:
            # The large one was faster.
            await append
        else:
            break
    assert await entries_from(bench.log, index) == expected(index, index)
    with raises(Conflict):
        await append
    assert await entries_from(other, index) == expected(index, index)


@case(EngineBench)
async def a_follower_sees_what_another_handle_appends(bench: EngineBench) -> None:
    other = await bench.open()
    await fill(bench.log, 1)
    follower = other.follow(1)
    for index in range(1, 20):
        assert await asyncio.wait_for(anext(follower), _PATIENCE_S) == expected(index, index)
        await fill(bench.log, 1)


@case(EngineBench)
async def a_snapshot_is_everybodys(bench: EngineBench) -> None:
    other = await bench.open()
    await fill(bench.log, 5)
    await other.save_snapshot(3, text(3), b"history")
    assert await bench.log.snapshot() in (
        Snapshot(3, SCHEMA, text(3), b"history"),
        Snapshot(3, SCHEMA, text(3)),
    )
    with raises(LogError):
        await bench.log.save_snapshot(2, text(2))
    await bench.log.compact(3)
    with raises(Compacted):
        await entries_from(other, 3)
    assert await entries_from(other, 4) == expected(4, 5)


@case(EngineBench)
async def snapshots_that_are_saved_at_once_leave_the_latest(bench: EngineBench) -> None:
    logs = [bench.log, await bench.open(), await bench.open()]
    await fill(bench.log, 3)

    async def save(log: Log, index: int) -> None:
        with contextlib.suppress(LogError):  # Out of range once a later one is there.
            await log.save_snapshot(index, text(index))

    await asyncio.gather(*(save(log, index) for index, log in enumerate(logs, 1)))
    for log in logs:
        assert await log.snapshot() == Snapshot(3, SCHEMA, text(3))


@case(EngineBench)
async def a_reader_meets_the_compaction_of_another_handle(bench: EngineBench) -> None:
    for n in range(1, 101):
        await bench.log.append(n, [b'{"n":%d,"x":"%s"}' % (n, b"x" * 50_000)])
    other = await bench.open()
    reader = bench.log.read(1)
    seen = [entry.index for entry in await anext(reader)]
    await other.save_snapshot(99, b"{}")
    await other.compact(99)
    with raises(Compacted):
        async for batch in reader:
            seen += [entry.index for entry in batch]
    assert seen == list(range(1, len(seen) + 1))
    assert [entry.index for entry in await entries_from(bench.log, 100)] == [100]


@case(EngineBench)
async def a_snapshot_that_is_replaced_while_it_is_read_is_whole(bench: EngineBench) -> None:
    other = await bench.open()
    await fill(bench.log, 2)
    texts = [b'"%s"' % (b"%x" % n * 8_000_000) for n in range(4)]

    async def replace() -> None:
        for data in texts:
            await bench.log.save_snapshot(2, data)

    replacing = asyncio.create_task(replace())
    while not replacing.done():
        assert (await other.snapshot()).data in [b"", *texts]
    await replacing
    assert (await other.snapshot()).data == texts[-1]


@case(EngineBench)
async def a_conversion_is_everybodys(bench: EngineBench) -> None:
    other = await bench.open()
    await fill(bench.log, 2)
    follower = other.follow(1)
    seen = await asyncio.wait_for(anext(follower), _PATIENCE_S)
    while seen[-1].index < 2:
        seen += await asyncio.wait_for(anext(follower), _PATIENCE_S)
    await bench.log.convert(3, b'{"name":"T2"}', b'{"new":1}')
    with raises(Conflict):
        await other.append(3, [text(3)])
    with raises(Conflict):
        await other.convert(3, b'{"name":"T3"}', b"")
    with raises(Compacted):
        await asyncio.wait_for(anext(follower), _PATIENCE_S)
    assert await other.snapshot() == Snapshot(3, b'{"name":"T2"}', b'{"new":1}')
    await other.append(4, [text(4)])
    assert await entries_from(bench.log, 4) == expected(4, 4)


# Lost answers.


async def until_stored(log: Log, index: int) -> None:
    """Return when entry `index` is there."""
    async with asyncio.timeout(_PATIENCE_S):
        async for _ in log.follow(index):
            return


async def lose_an_answer(bench: EngineBench) -> tuple[Log, Wire, asyncio.Task[None]]:
    """A handle whose third entry is stored, its cut wire, and the append, whose answer is lost."""
    log, wire = await bench.open_by_wire()
    await fill(log, 2)
    wire.mute()
    append = asyncio.create_task(log.append(3, [text(3)]))
    await until_stored(bench.log, 3)
    wire.cut()
    return log, wire, append


async def until_held(wire: Wire) -> None:
    """Return when a request has been kept back, whole."""
    async with asyncio.timeout(_PATIENCE_S):
        while not wire.n_held:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)


@case(EngineBench)
async def a_lost_answer_is_found_out_by_itself_or_by_reading(bench: EngineBench) -> None:
    log, wire, append = await lose_an_answer(bench)
    wire.mend()
    with contextlib.suppress(OutcomeUnknown):
        await append
    assert [entry.own for entry in await entries_from(log, 1)] == [True] * 3
    await log.append(4, [text(4)])
    assert await entries_from(bench.log, 1) == expected(1, 4)


@case(EngineBench)
async def a_lost_answer_is_unknown_while_nobody_can_be_asked(bench: EngineBench) -> None:
    log, wire, append = await lose_an_answer(bench)
    with raises(OutcomeUnknown):
        await append
    with raises(LogError):
        await entries_from(log, 3)
    await bench.log.append(4, [text(4)])
    wire.mend()
    assert [entry.own for entry in await entries_from(log, 1)] == [True] * 3 + [False]
    with raises(Conflict):
        await log.append(3, [text(3)])
    await log.append(5, [text(5)])
    assert await entries_from(bench.log, 1) == expected(1, 5)


@case(EngineBench)
async def a_request_that_arrives_late_does_nothing(bench: EngineBench) -> None:
    """The handle has asked again by then, and was answered."""
    log, wire = await bench.open_by_wire()
    await fill(log, 2)
    wire.hold()
    append = asyncio.create_task(log.append(3, [text(3)]))
    await until_held(wire)
    wire.cut()
    wire.mend()
    with contextlib.suppress(LogError):
        await append
    before = await entries_from(log, 1)
    assert before in (expected(1, 2), expected(1, 3))
    wire.release()
    await asyncio.sleep(0.3)
    assert await entries_from(bench.log, 1) == before
    await fill(log, 1)
    assert await entries_from(bench.log, 1) == expected(1, len(before) + 1)


@case(EngineBench, shape=["append", "conversion"])
async def what_reading_did_not_show_does_not_appear_later(bench: EngineBench, shape: str) -> None:
    log, wire = await bench.open_by_wire()
    await fill(log, 2)
    if shape == "append":
        await log.append(3, [text(3)])
        wire.hold()
        change = asyncio.create_task(log.append(4, [text(4)]))
    else:
        await log.convert(3, SCHEMA, b"")
        wire.hold()
        change = asyncio.create_task(log.convert(4, b'{"name":"T2"}', b""))
    await until_held(wire)
    wire.cut()
    with raises(LogError):
        await change
    wire.mend()
    assert await entries_from(log, 4) == []
    wire.release()
    await asyncio.sleep(0.3)
    assert await entries_from(bench.log, 4) == []
    await log.append(4, [text(44)])
    assert await entries_from(bench.log, 4) == [Entry(4, text(44))]


@case(EngineBench)
async def an_engine_out_of_reach_is_an_error_and_no_more(bench: EngineBench) -> None:
    """It goes on by itself once the engine is back."""
    log, wire = await bench.open_by_wire()
    await fill(log, 2)
    wire.cut()

    async def fails(deed: Awaitable[object]) -> None:
        with raises(LogError):
            await deed

    deeds = log.append(3, [text(9)]), entries_from(log, 1), log.snapshot()
    await asyncio.gather(*map(fails, deeds))
    assert await entries_from(bench.log, 1) == expected(1, 2)
    await bench.log.append(3, [text(3)])
    wire.mend()
    assert await entries_from(log, 1) == expected(1, 3)
    await log.append(4, [text(4)])
    assert await entries_from(bench.log, 1) == expected(1, 4)


@case(EngineBench)
async def a_follower_misses_nothing_by_an_interruption(bench: EngineBench) -> None:
    log, wire = await bench.open_by_wire()
    await fill(bench.log, 1)
    follower = log.follow(1)
    assert await asyncio.wait_for(anext(follower), _PATIENCE_S) == expected(1, 1)
    wire.cut()
    await bench.log.append(2, [text(2), text(3)])
    await asyncio.sleep(0.1)
    wire.mend()
    assert await asyncio.wait_for(anext(follower), _PATIENCE_S) == expected(2, 3)
    waiting = asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0.1)
    await bench.log.append(4, [text(4)])
    assert await asyncio.wait_for(waiting, _PATIENCE_S) == expected(4, 4)


@case(EngineBench)
async def a_follower_is_told_that_the_engine_is_out_of_reach(bench: EngineBench) -> None:
    log, wire = await bench.open_by_wire()
    waiting = asyncio.ensure_future(anext(log.follow(1)))
    await asyncio.sleep(0.1)
    wire.cut()
    with raises(LogError):
        await asyncio.wait_for(waiting, _PATIENCE_S)


# Leases.


@case(EngineBench)
async def a_lease_is_held_by_one_of_all_handles(bench: EngineBench) -> None:
    other = await bench.open()
    first = await bench.log.acquire("writer", 60_000)
    waiting = asyncio.create_task(other.acquire("writer", 60_000))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await first.release()
    second = await asyncio.wait_for(waiting, _PATIENCE_S)
    assert second.token > first.token
    third_waits = asyncio.create_task(bench.log.acquire("writer", 60_000))
    await asyncio.sleep(0.1)
    await other.close()
    third = await asyncio.wait_for(third_waits, _PATIENCE_S)
    assert third.token > second.token
    await third.renew()


@case(EngineBench)
async def handles_that_want_a_lease_get_it_in_turn(bench: EngineBench) -> None:
    logs = [bench.log, await bench.open(), await bench.open()]
    holders: list[int] = []
    tokens: list[int] = []

    async def take_turns(log: Log) -> None:
        for _ in range(4):
            lease = await log.acquire("writer", 60_000)
            holders.append(lease.token)
            assert len(holders) == 1
            tokens.append(lease.token)
            await asyncio.sleep(0.005)
            holders.remove(lease.token)
            await lease.release()

    await asyncio.wait_for(asyncio.gather(*map(take_turns, logs)), _PATIENCE_S)
    assert tokens == sorted(set(tokens))


@case(EngineBench)
async def the_lease_of_a_killed_process_goes_to_the_next(bench: EngineBench) -> None:
    async with appender(bench.location, Work("holder", 0, 0)) as process:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _PATIENCE_S)
        waiting = asyncio.create_task(bench.log.acquire("writer", 60_000))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        process.kill()
        lease = await asyncio.wait_for(waiting, _PATIENCE_S)
    assert line.startswith(b"holds ")
    assert lease.token > int(line.split()[1])


@case(EngineBench)
async def a_holder_that_is_cut_off_knows_before_the_next_one_holds(bench: EngineBench) -> None:
    log, wire = await bench.open_by_wire()
    lease = await log.acquire("writer", 1500)
    ends: list[Lease | str] = []

    async def note_the_end() -> None:
        await lease.lost()
        ends.append("lost")

    noting = asyncio.create_task(note_the_end())
    wire.cut()
    ends.append(successor := await asyncio.wait_for(bench.log.acquire("writer", 60_000), 60))
    assert ends == ["lost", successor]
    assert successor.token > lease.token
    with raises(LeaseLost):
        await lease.renew()
    await noting


@case(EngineBench)
async def a_log_may_begin_at_a_later_index(bench: EngineBench) -> None:
    location = Location.parse(bench.location)
    later = location.with_database(f"{location.database}_later").url()
    await engine(later).create(later, SCHEMA, b"{}", 1000)
    try:
        log = await open_log(later)
        try:
            assert await log.snapshot() == Snapshot(1000, SCHEMA, b"{}")
            with raises(Conflict):
                await log.append(1, [text(1)])
            await log.append(1001, [text(1001)])
            assert await entries_from(log, 1001) == expected(1001, 1001)
            with raises(Compacted):
                await entries_from(log, 1000)
        finally:
            await log.close()
    finally:
        await engine(later).drop(later)
