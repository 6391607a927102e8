"""What nodes do while Redis is stopped, restarted, gone, or out of reach of one of them.

All times are a tenth of what they are in use, and Redis is away for long enough that all leases run
out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time

import pytest

from eventually import until
from ovncp.cluster.background import end
from ovncp.cluster.base import LeaseLost, Unavailable
from ovncp.cluster.breaker import BreakerSettings
from ovncp.cluster.feed import MARK, Listener
from ovncp.cluster.node import Node
from ovncp.cluster.pending import Change
from ovncp.cluster.redis import RedisStore
from ovncp.cluster.sessions import Session
from ovncp.cluster.settings import ClusterSettings
from ovncp.log.contract.wire import Wire
from redis_servers import RedisServer, SentinelRedis

TENTH = {
    "dial_timeout_s": 0.2,
    "read_timeout_s": 0.2,
    "write_timeout_s": 0.2,
    "breaker": BreakerSettings(3, 0.05, 0.2),
}
AWAY_S = 1.2


@pytest.fixture(autouse=True)
def tenth(monkeypatch):
    """What is no setting."""
    for name, seconds in (("cache._WAIT_S", 0.2), ("cache._STALE_AFTER_S", 0.4)):
        monkeypatch.setattr(f"ovncp.cluster.{name}", seconds)


class Client(Listener):
    """Hears a node's events, and notes what it heard since it last had to load anew."""

    def __init__(self):
        self.events = []
        self.n_misses = 0
        self._last = []

    def hear(self, events):
        for before, event in itertools.pairwise([*self._last, *events]):
            assert event.previous == before.id
        self._last = events[-1:]
        self.events += [event for event in events if event.change.row != MARK]

    def miss(self, position):
        self._last = []
        self.events.clear()
        self.n_misses += 1


class World:
    """Three nodes that follow one database, of which every commit is offered by each."""

    def __init__(self):
        self.nodes = []
        self.n_commits = 0
        self.leading = set()
        self.terms = []
        self.overlaps = []
        self.forgets = False
        """Whether Redis may forget who leads: then the one who did is fenced off first."""

    def add(self, node):
        node.client = Client()
        node.feed.listeners.append(node.client)
        node.leadership.add("be watched", lambda lease: self._lead(node, lease))
        self.nodes.append(node)

    async def _lead(self, node, lease):
        if self.leading:
            self.overlaps.append((self.leading.copy(), node.id))
        self.leading.add(node.id)
        self.terms.append(lease.token)
        try:
            await asyncio.sleep(600)
        finally:
            self.leading.discard(node.id)

    async def commit_for_ever(self):
        while True:
            self.commit()
            await asyncio.sleep(0.01)

    def commit(self):
        self.n_commits += 1
        change = Change(f"row {self.n_commits % 5}", f"{self.n_commits}", b"")
        for node in self.nodes:
            node.feed.offer([change])

    async def settle(self):
        """Returns when all have heard all commits, each once and in order."""
        await until(lambda: not any(node.feed.n_pending for node in self.nodes))
        self.commit()
        for node in self.nodes:
            await until(lambda node=node: self._has_heard_the_last(node))
            heard = [int(event.change.version) for event in node.client.events]
            assert heard == list(range(self.n_commits - len(heard) + 1, self.n_commits + 1))
            if not node.client.n_misses:
                assert len(heard) == self.n_commits
            assert node.feed.n_pending == 0
        assert self.terms == sorted(set(self.terms))
        assert self.forgets or self.overlaps == []

    def _has_heard_the_last(self, node):
        events = node.client.events
        return events and events[-1].change.version == f"{self.n_commits}"


def node_of(id, redis_settings):
    settings = ClusterSettings(
        id, heartbeat_s=0.3, node_timeout_s=2.0, lease_s=0.6, session_cleanup_s=0.5
    )
    store = RedisStore(redis_settings)
    node = Node(settings, store, "1.0")
    node.breakers.append(store.breaker)
    node.feed.catch_up["nb"] = has_offered_all
    return node


async def has_offered_all():
    """A commit is offered by all nodes at once."""
    return True


@pytest.fixture
async def world():
    """Has nodes, once they were added and it was started; commits go on all the time."""
    world = World()
    async with contextlib.AsyncExitStack() as stack:

        async def start():
            for node in world.nodes:
                await node.start()
                stack.push_async_callback(node.close)
            for node in world.nodes:
                await until(lambda node=node: node.feed._reader)
                await until(lambda node=node: len(node.membership.nodes) == len(world.nodes))
                await until(lambda node=node: node.cache.is_usable)
                node.coverage.begin("nb")
                node.sessions.open(
                    Session(f"of {node.id}", node.id, "u", None, "::1", time.time()),
                    lambda to: None,
                )
            committing = asyncio.create_task(world.commit_for_ever())
            stack.push_async_callback(end, [committing])
            world.committing = committing
            await until(lambda: world.leading)
            await until(lambda: all(node.client.events for node in world.nodes))
            await until(lambda: all(node.feed.has_seen_all for node in world.nodes))

        world.start = start
        yield world


@pytest.fixture(params=["keeps all", "forgets all"])
def server(request):
    """A server to harm; it either keeps what it has over a restart, or nothing."""
    with RedisServer(keeps=request.param == "keeps all") as server:
        server.keeps = request.param == "keeps all"
        yield server


@pytest.fixture
async def three(world, server):
    """Three nodes over it."""
    for id in "abc":
        world.add(node_of(id, server.settings(**TENTH)))
    world.forgets = not server.keeps
    await world.start()
    return world


async def all_sessions(node):
    return [session.id for session in await node.sessions.all()]


async def check_well(world):
    """All is as it was: one leader, the sessions, locks, and what is cached."""
    await until(lambda: len(world.leading) == 1)
    await end([world.committing])
    await world.settle()
    a, b, *_ = world.nodes
    for node in world.nodes:
        await until(lambda node=node: [b.state for b in node.breakers] == ["closed"])
        await until(lambda node=node: node.cache.is_usable)
        await until(lambda node=node: sorted(node.membership.nodes) == ["a", "b", "c"])
    async with asyncio.timeout(60):
        while sorted(await a.store.entries("sessions")) != ["of a", "of b", "of c"]:
            await asyncio.sleep(0.02)
    async with a.locks.hold("again", retries=50):
        assert "again" in [grant.name for grant in await b.locks.all()]

    async def value():
        return b"1"

    assert await a.cache.fetch("t", "k:new", 60, value) == b"1"
    assert await b.cache.get("t", "k:new") == b"1"
    await b.cache.invalidate("k:*")
    async with asyncio.timeout(60):
        while await a.cache.get("t", "k:new") is not None:
            await asyncio.sleep(0.01)


async def check_away(world, lease):
    """Redis is away: what each node does meanwhile."""
    await until(lambda: not lease.is_held and lease.why_over)
    await until(lambda: world.leading == set())
    for node in world.nodes:
        await until(lambda node=node: node.leadership.leader is None)
        assert not node.leadership.is_leader
        await until(lambda node=node: not node.cache.is_usable)
        assert await node.cache.get("t", "k:1") is None
        assert list(node.sessions.own) == [f"of {node.id}"]
        assert sorted(node.membership.nodes) == ["a", "b", "c"]
        await until(lambda node=node: node.feed.n_pending)
        with pytest.raises(Unavailable):
            await node.locks.acquire("b")
        await until(lambda node=node: node.breakers[0].state != "closed")


async def hold(node, keep):
    """Holds a lock until it is lost; notes the lease."""
    with contextlib.suppress(LeaseLost):
        async with node.locks.hold("a", ttl_s=0.6) as lease:
            keep.append(lease)
            await asyncio.sleep(600)


@pytest.fixture
async def holder(three):
    """The lease of a lock that a node holds from now on."""
    leases = []
    task = asyncio.create_task(hold(three.nodes[0], leases))
    await until(lambda: leases)
    yield leases[0]
    await end([task])


async def test_redis_stands_still(world):
    with RedisServer() as server:
        for id in "abc":
            world.add(node_of(id, server.settings(**TENTH)))
        await world.start()
        leases = []
        holding = asyncio.create_task(hold(world.nodes[0], leases))
        await until(lambda: leases)
        with server.paused():
            await asyncio.sleep(AWAY_S)
            await check_away(world, leases[0])
        await check_well(world)
        assert sum(node.client.n_misses for node in world.nodes) == 0
        await end([holding])
        await asyncio.gather(*(node.close() for node in world.nodes))


async def test_redis_is_killed_and_starts_again(server, three, holder):
    server.kill()
    await asyncio.sleep(AWAY_S)
    await check_away(three, holder)
    await asyncio.to_thread(server.start)
    await check_well(three)
    if server.keeps:
        assert sum(node.client.n_misses for node in three.nodes) == 0


async def test_redis_restarts_at_once(server, three):
    server.kill()
    await asyncio.to_thread(server.start)
    await check_well(three)


async def test_redis_is_told_to_stop(server, three):
    server.signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    server.kill()
    await asyncio.to_thread(server.start)
    await check_well(three)


async def test_a_node_is_cut_off_from_redis(world):
    with RedisServer() as server:
        wire = Wire([server.address])
        (address,) = await wire.start()
        settings = server.settings(**TENTH)
        world.add(node_of("a", settings.with_url(f"redis://{address}")))
        for id in "bc":
            world.add(node_of(id, settings))
        await world.start()
        a, b, c = world.nodes
        for node in (b, c):  # So that it is the leader who is cut off.
            await node.leadership.withdraw()
        await until(lambda: world.leading == {"a"})
        for node in (b, c):
            node.leadership._stands.set()
        wire.cut()
        await until(lambda: world.leading and world.leading != {"a"})
        await until(lambda: not a.leadership.is_leader and "a" not in world.leading)
        n_before = len(b.client.events)
        await until(lambda: len(b.client.events) > n_before + 20)
        await until(lambda: b.membership.status(b.membership.nodes["a"]) == "silent")
        await until(lambda: "a" not in b.membership.nodes)
        wire.mend()
        await until(lambda: "a" in b.membership.nodes)
        await check_well(world)
        assert sum(node.client.n_misses for node in world.nodes) == 0
        await asyncio.gather(*(node.close() for node in world.nodes))
        await wire.close()


async def test_the_sentinels_choose_another_server(world):
    """What the old one had and the new one has not is told as a gap; all else goes on."""
    world.forgets = True
    with SentinelRedis() as redis:
        for id in "abc":
            world.add(node_of(id, redis.settings(**TENTH)))
        await world.start()
        redis.servers[0].kill()
        n_before = [len(node.client.events) for node in world.nodes]
        for node, n in zip(world.nodes, n_before, strict=True):
            await until(lambda node=node, n=n: len(node.client.events) > n + 20)
        await check_well(world)
        await asyncio.gather(*(node.close() for node in world.nodes))
