"""Locks and leadership: one at a time, told on loss, over every kind of store."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from eventually import until
from ovncp.cluster.background import end
from ovncp.cluster.base import Conflict, LeaseLost, NotAcquired, Unavailable
from ovncp.cluster.leadership import Leadership
from ovncp.cluster.lease import Lease
from ovncp.cluster.locks import Locks
from ovncp.cluster.metrics import Counts

TTL_S = 0.3


@pytest.fixture(params=["memory", "redis"])
def kind(request):
    return request.param


@pytest.fixture
def counts():
    return Counts()


@pytest.fixture
def locks(store, counts):
    return Locks(store, "one", counts)


async def test_one_holder_at_a_time(open_store, locks, counts):
    others = Locks(open_store(), "other", Counts())
    inside, most = 0, 0

    async def use(locks):
        nonlocal inside, most
        for _ in range(4):
            async with locks.hold("a", ttl_s=5, retries=1000):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1

    await asyncio.gather(use(locks), use(others), use(locks))
    assert most == 1
    assert (counts.locks_acquired, counts.locks_held, counts.locks_lost) == (8, 0, 0)
    assert sum(counts.lock_wait_s.counts) == 8


async def test_retries_are_bounded(open_store, locks):
    async with locks.hold("a"):
        with pytest.raises(NotAcquired, match="locked by one"):
            await Locks(open_store(), "other", Counts()).acquire("a", retries=2)
        await Locks(open_store(), "other", Counts()).acquire("b", retries=0)


async def test_it_is_renewed_for_as_long_as_it_is_held(open_store, locks):
    other = Locks(open_store(), "other", Counts())

    async def hold(ttl_s):
        """Returns whether it was held all the time, which takes as many renewals in time."""
        with contextlib.suppress(LeaseLost):
            async with locks.hold("a", ttl_s=ttl_s):
                await asyncio.sleep(2 * ttl_s)
                with pytest.raises(NotAcquired):
                    await other.acquire("a", retries=0)
                return True

    # On a machine with much else to do the first may come late.
    assert await hold(TTL_S) or await hold(5 * TTL_S) or await hold(25 * TTL_S)


async def test_it_is_not_held_for_longer_than_allowed(open_store, locks, counts):
    with pytest.raises(LeaseLost, match="longest time"):
        async with locks.hold("a", ttl_s=60, max_hold_s=TTL_S):
            await asyncio.sleep(60)
    await Locks(open_store(), "other", Counts()).acquire("a", retries=1000)
    assert counts.locks_lost == 1


async def test_the_holder_of_a_removed_lock_is_told(open_store, locks):
    other = Locks(open_store(), "other", Counts())
    with pytest.raises(LeaseLost, match="taken away"):
        async with locks.hold("a", ttl_s=TTL_S) as mine:
            (listed,) = await other.all()
            assert (listed.name, listed.token) == ("a", mine.token)
            assert listed.holder.startswith("one/")
            assert (await other.remove("a")).token == mine.token
            async with other.hold("a", retries=0) as theirs:
                assert theirs.token > mine.token
                await asyncio.sleep(60)
    assert await other.remove("b") is None


async def test_releasing_does_not_end_the_next_ones_lock(open_store, locks):
    other = Locks(open_store(), "other", Counts())
    mine = await locks.acquire("a")
    await other.remove("a")
    theirs = await other.acquire("a")
    await mine.release()
    assert [grant.token for grant in await other.all()] == [theirs.token]


async def test_errors_of_the_block_are_its_own(locks):
    for error in (ValueError, TimeoutError, asyncio.CancelledError):
        with pytest.raises(error):
            async with locks.hold("a"):
                raise error
    assert await locks.all() == []


async def test_it_is_lost_by_the_holders_clock_when_the_store_is_away(store, locks, counts):
    with pytest.raises(LeaseLost, match="renewed in time"):
        async with locks.hold("a", ttl_s=TTL_S) as lease:
            await store.close()
            await asyncio.sleep(60)
    assert not lease.is_held
    assert counts.locks_lost == 1
    with pytest.raises(Unavailable):
        await locks.acquire("a")


async def test_a_process_that_stood_still_knows_before_it_is_told(store):
    loop = asyncio.get_running_loop()
    grant = await store.take("a", "me", TTL_S)
    lease = Lease(store, grant, TTL_S, loop.time() - TTL_S)
    assert not lease.is_held
    with pytest.raises(LeaseLost):
        lease.check()
    await lease.release()


class Led:
    """Work which notes who does it."""

    def __init__(self):
        self.now = []
        self.tokens = []

    def by(self, name):
        async def work(lease):
            self.now.append(name)
            self.tokens.append(lease.token)
            try:
                await asyncio.sleep(60)
            finally:
                self.now.remove(name)

        return work


@pytest.fixture
async def nodes(open_store):
    """Starts a node that stands for leader with some work."""
    tasks = []

    def start(name, work):
        node = Leadership(open_store(), name, TTL_S, Counts())
        node.store = node._store
        node.add("work", work)
        tasks.append(asyncio.create_task(node.run()))
        return node

    yield start
    await end(tasks)


async def test_the_leader_alone_does_the_work(nodes):
    led = Led()
    standing = [nodes(name, led.by(name)) for name in "abc"]
    await until(lambda: led.now and all(node.leader for node in standing))
    for _ in range(20):
        assert len(led.now) == 1
        assert sum(node.is_leader for node in standing) == 1
        assert {node.leader.holder.partition("/")[0] for node in standing} == set(led.now)
        await asyncio.sleep(TTL_S / 10)


async def test_another_one_leads_when_it_withdraws_or_dies(nodes):
    led = Led()
    standing = {name: nodes(name, led.by(name)) for name in "abc"}
    await until(lambda: led.now)
    first = led.now[0]
    await standing[first].withdraw()
    await until(lambda: led.now and led.now[0] != first)
    second = led.now[0]
    await standing[second].store.close()  # It cannot even give the lease back.
    await until(lambda: led.now and led.now[0] not in (first, second))
    assert led.tokens == sorted(set(led.tokens)) and len(led.tokens) == 3
    assert standing[second].leader is None


async def test_work_that_fails_starts_again_and_work_that_ends_is_done(nodes, monkeypatch):
    monkeypatch.setattr("ovncp.cluster.leadership._FAILED_PAUSE_S", 0.01)
    tries = []

    async def work(lease):
        tries.append(lease.token)
        if len(tries) < 3:
            raise (ValueError, Unavailable)[len(tries) - 1]

    node = nodes("a", work)
    await until(lambda: len(tries) == 3)
    assert len(set(tries)) == 1
    await asyncio.sleep(0.05)
    assert len(tries) == 3 and node.is_leader


async def test_work_that_takes_another_lease_gives_this_one_up(nodes, monkeypatch):
    monkeypatch.setattr("ovncp.cluster.leadership._FAILED_PAUSE_S", 0.01)
    tokens = []

    async def work(lease):
        tokens.append(lease.token)
        if len(tokens) == 1:
            raise Conflict((0, 0))
        await asyncio.sleep(60)

    nodes("a", work)
    await until(lambda: len(tokens) == 2)
    assert tokens[1] > tokens[0]


async def test_who_is_not_ready_leads_if_nobody_else_does(nodes):
    led = Led()
    hesitating = nodes("a", led.by("a"))
    hesitating.is_ready = lambda: False
    ready = nodes("b", led.by("b"))
    await until(lambda: led.now == ["b"] and hesitating.leader)
    assert hesitating.leader.holder.startswith("b/")
    await ready.withdraw()
    await until(lambda: led.now == ["a"])
    assert hesitating.is_leader
