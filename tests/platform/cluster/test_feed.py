"""Events: one order for all nodes, none lost or doubled when the leader changes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from eventually import until
from ovncp.cluster.background import end
from ovncp.cluster.base import ZERO, Gap, Item, StreamId
from ovncp.cluster.feed import Feed, Listener
from ovncp.cluster.leadership import Leadership
from ovncp.cluster.metrics import Counts
from ovncp.cluster.pending import Change
from ovncp.cluster.stream import following_on

TTL_S = 30.0
SHORT_TTL_S = 0.3
"""For leaders that others are to take over from."""


@pytest.fixture(params=["memory", "redis"])
def kind(request):
    return request.param


class Client(Listener):
    """Hears a node's events, and sees to it that none is missing."""

    def __init__(self):
        self.events = []
        self.misses = []

    def hear(self, events):
        for before, event in itertools.pairwise([*self.events[-1:], *events]):
            assert event.previous == before.id or before.id < self.misses[-1]
        self.events += events

    def miss(self, position):
        self.misses.append(position)

    @property
    def versions(self):
        return [int(event.change.version) for event in self.events]


class OneNode:
    """A feed and its leadership, as one node has them."""

    def __init__(self, name, store, n_kept, ttl_s):
        self.store = store
        self.counts = Counts()
        self.feed = Feed(store, "t", n_kept, self.counts)
        self.leadership = Leadership(store, name, ttl_s, self.counts)
        self.leadership.add("events", self.feed.lead)
        self.client = Client()
        self.feed.listeners.append(self.client)
        self.tasks = [
            asyncio.create_task(self.feed.run()),
            asyncio.create_task(self.leadership.run()),
        ]

    async def die(self):
        await end(self.tasks)


@pytest.fixture
async def start(open_store):
    """Starts a node which reads from now on."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(name, n_kept=10_000, ttl_s=TTL_S):
            node = OneNode(name, open_store(), n_kept, ttl_s)
            stack.push_async_callback(node.die)
            await until(lambda: node.feed._reader)
            return node

        yield start


def changes(*versions):
    return [Change(f"row {v % 7}", str(v), b'{"v":%d}' % v) for v in versions]


async def test_all_nodes_hear_what_any_leader_appends(start):
    nodes = [await start(name) for name in "abc"]
    for version in range(1000):
        for node in nodes:
            node.feed.offer(changes(version))
        if version % 10 == 0:
            await asyncio.sleep(0)
    for node in nodes:
        await until(lambda node=node: len(node.client.events) == 1000)
        assert node.client.versions == list(range(1000))
        assert node.client.events[7].change == changes(7)[0]
        assert node.feed.n_pending == 0
        assert node.counts.events_read == 1000
    await until(lambda: sum(node.counts.events_appended for node in nodes) == 1000)
    assert len({tuple(event.id for event in node.client.events) for node in nodes}) == 1


async def test_leaders_that_die_and_lag_lose_nothing(start):
    nodes = [await start(name, ttl_s=SHORT_TTL_S) for name in "abcd"]
    database = []
    seen = {id(node): 0 for node in nodes}

    def see_all(node):
        async def see():
            node.feed.offer(changes(*database[seen[id(node)] :]))
            seen[id(node)] = len(database)
            return True

        node.feed.catch_up["nb"] = see
        return see

    see = {id(node): see_all(node) for node in nodes}
    for version in range(400):
        database.append(version)
        if version % 3 == 0:
            await asyncio.sleep(0.001)
        for lag, node in enumerate(nodes):
            if version % (2 * lag + 1) == 0:
                await see[id(node)]()
        if version in (100, 200):
            leader = next((node for node in nodes if node.leadership.is_leader), nodes[0])
            await leader.die()
            nodes.remove(leader)
    for node in nodes:
        await see[id(node)]()
    for node in nodes:
        await until(lambda node=node: len(node.client.events) >= 400)
        assert sorted(node.client.versions) == list(range(400))
        for row in range(7):
            assert [v for v in node.client.versions if v % 7 == row] == list(range(row, 400, 7))


async def test_a_client_resumes_at_another_node(start):
    a, b = await start("a"), await start("b", n_kept=10_000)
    for node in (a, b):
        node.feed.offer(changes(*range(1200)))
    await until(lambda: len(a.client.events) == len(b.client.events) == 1200)
    after = a.client.events[99].id
    resumed = []
    while events := await b.feed.since(after):
        resumed += events
        after = events[-1].id
    assert [int(event.change.version) for event in resumed] == list(range(100, 1200))
    assert await b.feed.since(b.feed.position) == []
    assert (await b.feed.since(ZERO))[0].change.version == "0"
    with pytest.raises(Gap):
        await b.feed.since(StreamId(1, 1))


async def test_a_client_that_was_ahead_of_this_node_waits_for_it(start):
    a, b = await start("a"), await start("b")
    b.tasks[0].cancel()
    a.feed.offer(changes(1))
    await until(lambda: a.client.events)
    resuming = asyncio.create_task(b.feed.since(a.client.events[0].id))
    await asyncio.sleep(0.1)
    assert not resuming.done()
    b.tasks[0] = asyncio.create_task(b.feed.run())
    assert await resuming == []


async def test_events_that_are_gone_are_told(start, monkeypatch):
    monkeypatch.setattr("ovncp.cluster.feed._WAIT_S", 0.1)
    a, b = await start("a", 100), await start("b", 100)
    await until(lambda: a.leadership.is_leader or b.leadership.is_leader)
    leader, other = (a, b) if a.leadership.is_leader else (b, a)
    old = await first_event(leader)
    other.tasks[0].cancel()
    for version in range(0, 1000, 50):
        leader.feed.offer(changes(*range(version, version + 50)))
        await until(lambda: leader.feed.n_pending == 0)
    with pytest.raises(Gap):
        await leader.feed.since(old.id)
    other.tasks[0] = asyncio.create_task(other.feed.run())
    await until(lambda: other.client.misses)
    assert other.client.misses == [leader.feed.position]
    assert other.counts.event_gaps == 1
    leader.feed.offer(changes(1000))
    await until(lambda: other.client.versions[-1:] == [1000])


def test_what_was_read_is_taken_up_to_where_items_are_missing():
    ids = [StreamId(1, 1), StreamId(1, 2), StreamId(5, 1), StreamId(5, 2)]
    before = [StreamId(1, 0), ids[0], StreamId(5, 0), ids[2]]
    items = [Item(id, previous, b"") for id, previous in zip(ids, before, strict=True)]
    assert following_on(items, StreamId(1, 0), "s") == items[:2]
    assert following_on(items[2:], StreamId(5, 0), "s") == items[2:]
    assert following_on([], ids[1], "s") == []
    with pytest.raises(Gap):
        following_on(items[2:], ids[1], "s")


async def first_event(node):
    node.feed.offer([Change("first", "-1", b"")])
    await until(lambda: node.client.events)
    return node.client.events[0]


async def test_a_stream_that_lost_its_end_is_told_to_all(start, monkeypatch):
    """The store forgets the last events, which some have read; all are to load anew."""
    monkeypatch.setattr("ovncp.cluster.feed._WAIT_S", 0.1)
    monkeypatch.setattr("ovncp.cluster.leadership._FAILED_PAUSE_S", 0.01)
    a, b = await start("a"), await start("b")
    for node in (a, b):
        node.feed.offer(changes(*range(10)))
    await until(lambda: len(a.client.events) == len(b.client.events) == 10)
    await forget(a.store)
    for node in (a, b):
        node.feed.offer(changes(10))
    await until(lambda: a.client.misses and b.client.misses)
    for node in (a, b):
        node.feed.offer(changes(11))
        await until(lambda node=node: node.client.versions[-1:] == [11])
        assert node.feed.n_pending == 0


async def forget(store):
    """Has the store lose its streams."""
    if hasattr(store, "_memory"):
        store._memory._streams.clear()
    else:
        for key in store._stream("events:t"):
            await store._redis.command("DEL", key)


async def test_too_many_changes_without_a_leader_are_told_as_lost(start, monkeypatch):
    monkeypatch.setattr("ovncp.cluster.feed._WAIT_S", 0.1)
    node = await start("a", n_kept=50)
    await node.leadership.withdraw()
    node.feed.offer(changes(*range(60)))
    assert node.feed.n_pending == 50
    node.leadership._stands.set()
    await until(lambda: node.feed.n_pending == 0)
    assert node.client.misses
    node.feed.offer(changes(60))
    await until(lambda: node.client.versions[-1:] == [60])
