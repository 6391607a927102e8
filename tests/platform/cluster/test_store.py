"""Every store keeps every promise of `cluster.base`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time

import pytest

from ovncp.cluster.base import ZERO, Conflict, Fenced, Item, StreamId, Unavailable, following

LONG_S = 60.0
SHORT_S = 0.15
ODD = b"\x00\xff\r\n$5"


async def gone(call, absent=None):
    """Returns when `call` gives `absent`, which it is to do soon."""
    async with asyncio.timeout(60):
        while await call() != absent:
            await asyncio.sleep(0.01)


class TestValues:
    async def test_a_value_is_there_for_its_time(self, open_store):
        one, other = open_store(), open_store()
        assert await one.get("a") is None
        await one.put("a", ODD, LONG_S)
        await one.put("{b} c", b"", LONG_S)
        assert await other.get("a") == ODD
        assert await other.get("{b} c") == b""
        await one.put("{b} c", b"", SHORT_S)
        await gone(lambda: other.get("{b} c"))
        assert await other.get("a") == ODD

    async def test_a_value_is_replaced_if_it_is_the_expected_one(self, store):
        assert not await store.swap("a", b"x", b"y", LONG_S)
        assert await store.swap("a", None, b"", LONG_S)
        assert not await store.swap("a", None, b"y", LONG_S)
        assert not await store.swap("a", b"x", b"y", LONG_S)
        assert await store.swap("a", b"", ODD, LONG_S)
        assert await store.get("a") == ODD
        assert not await store.swap("a", b"", None, LONG_S)
        assert await store.swap("a", ODD, None, LONG_S)
        assert await store.get("a") is None
        assert await store.swap("a", None, None, LONG_S)

    async def test_a_value_whose_time_is_over_is_none(self, store):
        assert await store.swap("a", None, b"x", SHORT_S)
        await gone(lambda: store.get("a"))
        assert await store.swap("a", None, b"y", LONG_S)

    async def test_of_those_who_replace_at_once_one_does(self, open_store):
        stores = [open_store() for _ in range(5)]
        done = await asyncio.gather(
            *(s.swap("a", None, b"%d" % i, 60) for i, s in enumerate(stores))
        )
        assert sum(done) == 1
        assert await stores[0].get("a") == b"%d" % done.index(True)


class TestCounters:
    async def test_amounts_add_up_over_all_handles(self, open_store):
        stores = [open_store() for _ in range(3)]
        await asyncio.gather(
            *(s.count({"a": 2, "b": 1}, LONG_S) for s in stores for _ in range(10))
        )
        assert await stores[0].count({"a": 0, "c": 5, "b": 1}, LONG_S) == {"a": 60, "c": 5, "b": 31}
        assert await stores[0].count({}, LONG_S) == {}

    async def test_a_counter_begins_again_when_its_window_is_over(self, store):
        assert await store.count({"a": 3}, SHORT_S) == {"a": 3}
        start = time.monotonic()
        while (await store.count({"a": 1}, SHORT_S))["a"] != 1:
            assert time.monotonic() < start + 60, "amounts must not start the window anew"
            await asyncio.sleep(0.01)


class TestLeases:
    async def test_one_holder_at_a_time(self, open_store):
        one, other = open_store(), open_store()
        mine = await one.take("a", "me: 1", LONG_S)
        assert (mine.name, mine.holder) == ("a", "me: 1")
        assert 0 < mine.seconds_left <= LONG_S
        theirs = await other.take("a", "you", LONG_S)
        assert (theirs.holder, theirs.token) == ("me: 1", mine.token)
        assert not await other.release("a", mine.token - 1)
        assert not await other.prolong("a", mine.token - 1, LONG_S)
        assert await one.release("a", mine.token)
        assert not await one.release("a", mine.token)
        assert not await one.prolong("a", mine.token, LONG_S)
        theirs = await other.take("a", "you", LONG_S)
        assert theirs.holder == "you" and theirs.token > mine.token

    async def test_who_takes_it_again_has_the_same_lease_for_longer(self, store):
        first = await store.take("a", "me", LONG_S)
        again = await store.take("a", "me", 2 * LONG_S)
        assert again.token == first.token and again.seconds_left > LONG_S

    async def test_it_runs_out_unless_prolonged(self, store):
        first = await store.take("a", "me", LONG_S)
        assert await store.prolong("a", first.token, 2 * LONG_S)
        (held,) = await store.leases()
        assert held.token == first.token and held.seconds_left > LONG_S
        assert await store.prolong("a", first.token, SHORT_S)
        await gone(store.leases, [])
        assert not await store.prolong("a", first.token, LONG_S)
        assert not await store.release("a", first.token)
        assert (await store.take("a", "you", LONG_S)).token > first.token

    async def test_tokens_grow_even_at_once(self, store):
        tokens = []
        for i in range(50):
            grant = await store.take("a", f"{i}", LONG_S)
            tokens.append(grant.token)
            await store.release("a", grant.token)
        assert tokens == sorted(set(tokens))

    async def test_of_those_who_take_it_at_once_one_does(self, open_store):
        stores = [open_store() for _ in range(5)]
        grants = await asyncio.gather(*(s.take("a", f"{i}", 60) for i, s in enumerate(stores)))
        assert len({(grant.holder, grant.token) for grant in grants}) == 1

    async def test_leases_are_listed_and_can_be_revoked(self, store):
        b = await store.take("b", "me", LONG_S)
        a = await store.take("a", "you", LONG_S)
        await store.take("c", "me", SHORT_S)
        await gone(lambda: _names(store.leases), ["a", "b"])
        assert [(g.name, g.holder, g.token) for g in await store.leases()] == [
            ("a", "you", a.token),
            ("b", "me", b.token),
        ]
        assert await store.revoke("c") is None
        assert (await store.revoke("a")).token == a.token
        assert await store.revoke("a") is None
        assert not await store.prolong("a", a.token, LONG_S)
        assert await _names(store.leases) == ["b"]


async def _names(leases):
    return [grant.name for grant in await leases()]


class TestRegisters:
    async def test_entries_are_there_for_their_time(self, open_store):
        one, other = open_store(), open_store()
        await one.enter("nodes", {"a": ODD, "b c": b"2"}, LONG_S)
        await other.enter("nodes", {"d": b"3"}, SHORT_S)
        await other.enter("others", {"a": b"4"}, LONG_S)
        await gone(lambda: other.entries("nodes"), {"a": ODD, "b c": b"2"})
        assert await other.entries("others") == {"a": b"4"}
        assert await other.entries("none") == {}

    async def test_an_entry_made_again_stays(self, store):
        await store.enter("nodes", {"a": b"1"}, SHORT_S)
        await store.enter("nodes", {"a": b"2"}, LONG_S)
        await asyncio.sleep(2 * SHORT_S)
        assert await store.entries("nodes") == {"a": b"2"}
        await store.enter("nodes", {"a": b"3"}, SHORT_S)
        await gone(lambda: store.entries("nodes"), {})

    async def test_entries_are_struck(self, store):
        await store.enter("nodes", {"a": b"1", "b": b"2", "c": b"3"}, LONG_S)
        assert await store.strike("nodes", ["a", "c", "x"]) == 2
        assert await store.strike("nodes", ["a"]) == 0
        assert await store.entries("nodes") == {"b": b"2"}
        await store.strike("nodes", [])

    async def test_many_entries_at_once(self, store):
        many = {f"key {i}": b"%d" % i for i in range(20_000)}
        await store.enter("nodes", many, LONG_S)
        assert await store.entries("nodes") == many
        assert await store.strike("nodes", many) == len(many)


class TestStreams:
    async def test_what_is_appended_is_read_in_order(self, open_store):
        one, other = open_store(), open_store()
        assert await one.last("s") == ZERO
        assert await other.read("s", ZERO, 10, 0) == []
        assert await one.begin("s", 7) == ZERO
        last = await one.append("s", 7, ZERO, [b"1", ODD], 100)
        assert last == following(7, ZERO, 2) == StreamId(7, 2)
        last = await one.append("s", 7, last, [b"3"], 100)
        expected = [
            Item(StreamId(7, 1), ZERO, b"1"),
            Item(StreamId(7, 2), StreamId(7, 1), ODD),
            Item(StreamId(7, 3), StreamId(7, 2), b"3"),
        ]
        assert await other.read("s", ZERO, 10, 0) == expected
        assert await other.read("s", StreamId(7, 1), 10, 0) == expected[1:]
        assert await other.read("s", ZERO, 2, 0) == expected[:2]
        assert await other.read("s", last, 10, 0) == []
        assert await other.last("s") == last == StreamId(7, 3)
        assert await other.last("t") == ZERO

    async def test_a_newer_token_fences_off_the_older(self, open_store):
        one, other = open_store(), open_store()
        last = await one.append("s", 7, await one.begin("s", 7), [b"1"], 100)
        assert await other.begin("s", 9) == last
        for broken in (False, True):
            with pytest.raises(Fenced):
                await one.begin("s", 7, broken=broken)
        with pytest.raises(Fenced):
            await one.append("s", 7, last, [b"2"], 100)
        assert await other.begin("s", 9) == last
        assert await other.append("s", 9, last, [b"3"], 100) == StreamId(9, 1)
        assert [i.data for i in await one.read("s", ZERO, 10, 0)] == [b"1", b"3"]

    async def test_an_append_elsewhere_than_at_the_end_is_a_conflict(self, store):
        await store.begin("s", 7)
        for after in (StreamId(7, 1), StreamId(6, 1)):
            with pytest.raises(Conflict) as conflict:
                await store.append("s", 7, after, [b"x"], 100)
            assert conflict.value.last == ZERO
        last = await store.append("s", 7, ZERO, [b"1"], 100)
        with pytest.raises(Conflict) as conflict:
            await store.append("s", 7, ZERO, [b"1"], 100)
        assert conflict.value.last == last == following(7, ZERO, 1)

    async def test_a_broken_stream_goes_on_after_an_id_that_nobody_has(self, store):
        last = await store.append("s", 7, await store.begin("s", 7), [b"1"], 100)
        with pytest.raises(Fenced):
            await store.begin("s", 7, broken=True)
        anew = await store.begin("s", 9, broken=True)
        assert anew == await store.last("s") == StreamId(9, 0)
        with pytest.raises(Conflict):
            await store.append("s", 9, last, [b"2"], 100)
        await store.append("s", 9, anew, [b"2"], 100)
        (item,) = await store.read("s", last, 10, 0)
        assert item.previous == anew != last

    async def test_the_latest_items_are_kept(self, store):
        last = await store.begin("s", 7)
        for i in range(30):
            last = await store.append(
                "s", 7, last, [b"%d" % n for n in range(i * 50, i * 50 + 50)], 100
            )
        kept = await store.read("s", ZERO, 10_000, 0)
        assert 100 <= len(kept) <= 300
        assert [item.data for item in kept] == [b"%d" % n for n in range(1500)][-len(kept) :]
        assert kept[0].previous != ZERO
        for before, item in itertools.pairwise(kept):
            assert item.previous == before.id

    async def test_large_items_and_batches(self, store):
        items = [b"x" * 1_000_000, *(b"%d" % i for i in range(10_000))]
        last = await store.append("s", 1, ZERO, items, 20_000)
        read = await store.read("s", ZERO, 20_000, 0)
        assert [item.data for item in read] == items
        assert read[-1].id == last

    async def test_a_reader_waits_for_what_comes(self, open_store):
        one, other = open_store(), open_store()
        waiting = [asyncio.create_task(other.read(s, ZERO, 10, 30)) for s in ("s", "s", "t")]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        await one.append("s", 1, ZERO, [b"1"], 100)
        for task in waiting[:2]:
            (item,) = await asyncio.wait_for(task, 60)
            assert item.data == b"1"
        assert not waiting[2].done()
        waiting[2].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting[2]
        assert (await other.read("s", ZERO, 10, 30))[0].data == b"1"

    async def test_a_reader_waits_for_so_long_only(self, store):
        assert await store.read("s", ZERO, 10, SHORT_S) == []

    async def test_anybody_publishes(self, open_store):
        stores = [open_store() for _ in range(3)]
        await asyncio.gather(
            *(s.publish("s", [b"a", b"b"], 1000, LONG_S) for s in stores for _ in range(20))
        )
        items = await stores[0].read("s", ZERO, 1000, 0)
        assert [item.data for item in items] == [b"a", b"b"] * 60
        assert [item.previous for item in items] == [ZERO, *(item.id for item in items[:-1])]
        assert [item.id for item in items] == sorted({item.id for item in items})
        assert await stores[1].last("s") == items[-1].id

    async def test_a_stream_that_is_published_to_no_more_is_dropped(self, store):
        first = await store.publish("s", [b"1"], 100, SHORT_S)
        await gone(lambda: store.last("s"), ZERO)
        second = await store.publish("s", [b"2"], 100, LONG_S)
        assert second > first
        (item,) = await store.read("s", first, 10, 0)
        assert (item.previous, item.data) == (ZERO, b"2")


class TestTheWhole:
    async def test_a_handle_that_is_closed_is_unavailable(self, open_store):
        one, other = open_store(), open_store()
        await one.check()
        await one.put("a", b"1", LONG_S)
        await one.close()
        await one.close()
        for call in (
            one.check(),
            one.get("a"),
            one.put("a", b"2", 1),
            one.count({"a": 1}, 1),
            one.take("a", "me", 1),
            one.prolong("a", 1, 1),
            one.release("a", 1),
            one.revoke("a"),
            one.leases(),
            one.entries("a"),
            one.read("s", ZERO, 1, 1),
            one.publish("s", [b"1"], 1, 1),
        ):
            with pytest.raises(Unavailable):
                await call
        assert await other.get("a") == b"1"

    async def test_closing_ends_what_waits(self, store):
        waiting = asyncio.create_task(store.read("s", ZERO, 1, 30))
        await asyncio.sleep(0.1)
        await store.close()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, 20)

    async def test_a_cancelled_call_leaves_the_handle_usable(self, open_store):
        one, other = open_store(), open_store()
        for yields in range(6):
            task = asyncio.create_task(one.put("a", b"%d" % yields, LONG_S))
            for _ in range(yields):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await one.put("b", b"%d" % yields, LONG_S)
            assert await other.get("b") == await one.get("b") == b"%d" % yields

    async def test_many_at_once(self, store):
        async def use(i: int) -> None:
            await store.put(f"{i}", b"%d" % i, LONG_S)
            assert await store.get(f"{i}") == b"%d" % i

        await asyncio.gather(*map(use, range(300)))
