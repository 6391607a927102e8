"""Nodes together: who is there, whose sessions, messages, what is cached, and how often."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from eventually import until
from ovncp.cluster.base import StreamId, Unavailable
from ovncp.cluster.node import Node
from ovncp.cluster.rates import Limit, Rates
from ovncp.cluster.sessions import NoSuchNode, NoSuchSession, Session
from ovncp.cluster.settings import ClusterSettings

HEARTBEAT_S = 0.05
TIMEOUT_S = 0.4


@pytest.fixture(params=["memory", "redis"])
def kind(request):
    return request.param


@pytest.fixture
async def start(open_store):
    """Starts a node; `events` has what it was told of the others."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(id, **others):
            settings = ClusterSettings(
                id,
                hostname=f"host-{id}",
                heartbeat_s=HEARTBEAT_S,
                node_timeout_s=TIMEOUT_S,
                lease_s=0.3,
                session_cleanup_s=0.1,
                **others,
            )
            node = Node(settings, open_store(), "1.0")
            node.events = []
            for event in ("node_join", "node_leave", "node_update"):
                node.membership.on(
                    event, lambda record, event=event: node.events.append((event, record.id))
                )
            node.feed.catch_up["nb"] = has_offered_all
            node.coverage.begin("nb")
            await node.start()
            stack.push_async_callback(node.close)
            return node

        yield start


async def has_offered_all():
    """There is a database in which nothing ever happens."""
    return True


def die(node):
    """Ends a node without a word."""
    for task in node._tasks:
        task.cancel()


def status(node):
    seen = node.membership
    return {id: seen.status(one) for id, one in seen.nodes.items()}


class TestMembership:
    async def test_nodes_see_each_other_come_change_and_go(self, start):
        a, b = await start("a"), await start("b")
        await until(lambda: status(a) == status(b) == {"a": "active", "b": "active"})
        assert sorted(a.events) == [("node_join", "a"), ("node_join", "b")]
        b.membership.set_status("draining")
        await until(lambda: status(a)["b"] == "draining")
        assert a.events[-1] == ("node_update", "b")
        await b.close()
        await until(lambda: status(a) == {"a": "active"})
        assert a.events[-1] == ("node_leave", "b")
        assert len(a.events) == 4

    async def test_a_node_that_died_falls_silent_and_is_gone_after_its_time(self, start):
        a, b = await start("a"), await start("b")
        await until(lambda: "b" in status(a))
        die(b)
        await until(lambda: status(a)["b"] == "silent")
        await until(lambda: "b" not in status(a))
        assert a.membership.count() == {"active": 1, "draining": 0, "silent": 0}

    async def test_a_node_that_starts_again_has_left_and_joined(self, start):
        a, b = await start("a"), await start("b")
        await until(lambda: "b" in status(a))
        die(b)
        again = await start("b")
        await until(lambda: a.events[-2:] == [("node_leave", "b"), ("node_join", "b")])
        assert again.membership.nodes["b"].record.started > b.membership.me.started

    async def test_a_store_that_forgets_changes_nothing(self, start):
        a, b = await start("a"), await start("b")
        await until(lambda: "b" in status(a) and "a" in status(b))
        for node in (a, b):
            node.sessions.open(session(node.id, node.id), lambda to: None)
        await until_sessions(a, ["a", "b"])
        await a.store.strike("nodes", ["a", "b"])
        await a.store.strike("sessions", ["a", "b"])
        await until_sessions(a, ["a", "b"])
        await asyncio.sleep(3 * HEARTBEAT_S)
        assert status(a) == {"a": "active", "b": "active"}
        assert [e for e in a.events + b.events if e[0] == "node_leave"] == []

    async def test_a_handler_that_fails_is_no_matter(self, start):
        a = await start("a")
        a.membership.on("node_join", lambda record: 1 / 0)
        await start("b")
        await until(lambda: "b" in status(a))


def session(id, node, user="u"):
    return Session(id, node, user, None, "127.0.0.1", time.time())


def n_sessions(node, other):
    """How many another node has, as far as this one sees it at all."""
    seen = node.membership.nodes.get(other)
    return None if seen is None else seen.record.sessions


async def until_sessions(node, ids):
    async with asyncio.timeout(60):
        while sorted(await node.store.entries("sessions")) != ids:
            await asyncio.sleep(0.01)


class TestSessions:
    async def test_sessions_are_seen_by_all_and_counted(self, start):
        a, b = await start("a"), await start("b")
        for i in range(300):
            a.sessions.open(session(f"{i:03}", "a"), lambda to: None)
        x = session("x", "b", "v")
        b.sessions.open(x, lambda to: None)
        await until_sessions(b, [*(f"{i:03}" for i in range(300)), "x"])
        found = await b.sessions.all()
        assert len(found) == 301
        assert found[-1] == x
        await until(lambda: a.sessions.n_all == b.sessions.n_all == 301)
        assert b.membership.nodes["a"].record.sessions == 300
        for i in range(299):
            a.sessions.close(f"{i:03}")
        await until_sessions(b, ["299", "x"])
        assert len(a.sessions.own) == len(b.sessions.own) == 1

    async def test_a_session_that_is_not_renewed_runs_out(self, start):
        a = await start("a", session_ttl_s=0.3)
        a.sessions.open(session("s", "a"), lambda to: None)
        await asyncio.sleep(0.6)
        await until_sessions(a, ["s"])  # Renewed, however late.
        die(a)
        async with asyncio.timeout(60):
            while await a.store.entries("sessions"):
                await asyncio.sleep(0.01)

    async def test_those_of_a_node_that_died_are_struck_by_the_leader(self, start):
        a, b = await start("a"), await start("b")
        for node in (a, b):
            node.sessions.open(session(f"of {node.id}", node.id), lambda to: None)
        await until_sessions(a, ["of a", "of b"])
        die(b)
        await until_sessions(a, ["of a"])

    async def test_those_of_a_node_before_it_started_again_are_struck(self, start):
        a, b = await start("a"), await start("b")
        b.sessions.open(session("old", "b"), lambda to: None)
        await until_sessions(a, ["old"])
        die(b)
        again = await start("b")
        again.sessions.open(session("new", "b"), lambda to: None)
        await until_sessions(a, ["new"])

    async def test_a_session_is_asked_to_move_by_way_of_its_node(self, start):
        a, b, c = [await start(id) for id in "abc"]
        moves = []
        a.sessions.open(session("s", "a"), lambda to: moves.append(("s", to)))
        b.sessions.open(session("t", "b"), lambda to: moves.append(("t", to)))
        await until_sessions(c, ["s", "t"])
        await until(lambda: all(len(n.membership.nodes) == 3 for n in (a, b, c)))
        await until(lambda: n_sessions(c, "b") == 1)
        assert await c.sessions.migrate("s", "b") == "b"
        await until(lambda: moves == [("s", "b")])
        assert await c.sessions.migrate("s") == "c"  # It has the fewest.
        await until(lambda: moves == [("s", "b"), ("s", "c")])
        for to in ("a", "d"):
            with pytest.raises(NoSuchNode):
                await c.sessions.migrate("s", to)
        with pytest.raises(NoSuchSession):
            await c.sessions.migrate("u")
        (family,) = [f for f in a.families() if f.name == "ovncp_session_migrations_total"]
        assert dict(family.samples) == {
            (("from", "a"), ("to", "b")): 1,
            (("from", "a"), ("to", "c")): 1,
        }

    async def test_a_node_that_drains_moves_all_to_the_others(self, start):
        a, b, c = [await start(id) for id in "abc"]
        moves = []
        for i in range(4):
            a.sessions.open(session(f"{i}", "a"), moves.append)
        await until(lambda: all(len(n.membership.nodes) == 3 for n in (a, b, c)))
        await b.ask_to_drain("a")
        await until(lambda: sorted(moves) == ["b", "b", "c", "c"])
        await until(lambda: status(b)["a"] == status(c)["a"] == "draining")
        assert a.is_draining
        await until(lambda: not a.leadership.is_leader)
        assert b.sessions._fellows("b") == ["c"]
        with pytest.raises(NoSuchNode):
            await b.ask_to_drain("x")

    async def test_with_no_other_node_clients_stay(self, start):
        a = await start("a")
        moves = []
        a.sessions.open(session("s", "a"), moves.append)
        await a.drain()
        assert moves == []
        await until_sessions(a, ["s"])
        with pytest.raises(NoSuchNode):
            await a.sessions.migrate("s")


class Value:
    """A value that is computed, and how often it was."""

    def __init__(self, value=b"1"):
        self.value = value
        self.n_computed = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self):
        self.n_computed += 1
        value = self.value
        await self.gate.wait()
        return value


class TestCache:
    @pytest.fixture
    async def nodes(self, start, monkeypatch):
        monkeypatch.setattr("ovncp.cluster.cache._WAIT_S", 0.2)
        nodes = [await start(id) for id in "ab"]
        await until(lambda: all(node.cache.is_usable for node in nodes))
        return [node.cache for node in nodes]

    async def test_what_one_has_found_out_the_others_have(self, nodes):
        a, b = nodes
        value = Value()
        assert await a.get("t", "switch:1") is None
        assert await a.fetch("t", "switch:1", 60, value) == b"1"
        assert await a.get("t", "switch:1") == await b.get("t", "switch:1") == b"1"
        assert await b.fetch("t", "switch:1", 60, value) == b"1"
        assert await b.get("u", "switch:1") is None
        assert await b.get(None, "switch:1") is None
        assert value.n_computed == 1

    async def test_it_is_found_out_once_for_all_who_ask_meanwhile(self, nodes):
        value = Value()
        value.gate.clear()
        asked = [asyncio.create_task(nodes[0].fetch("t", "k:1", 60, value)) for _ in range(5)]
        await until(lambda: value.n_computed)
        asked[0].cancel()
        value.gate.set()
        assert await asyncio.gather(*asked[1:]) == [b"1"] * 4
        assert value.n_computed == 1

    async def test_it_is_kept_for_its_time(self, nodes):
        for node in nodes:
            assert await node.fetch("t", "k:1", 0.2, Value()) == b"1"
        await asyncio.sleep(0.25)
        for node in nodes:
            assert await node.get("t", "k:1") is None

    async def test_a_pattern_forgets_what_it_matches_at_all_nodes(self, nodes):
        a, b = nodes
        names = [("t", "switch:1"), ("t", "switch:2"), ("u", "switch:1"), ("t", "topology:1")]

        async def fill():
            for name in names:
                for node in (a, b):
                    await node.fetch(*name, 60, Value())

        async def left(node):
            return [name for name in names if await node.get(*name)]

        for patterns, tenant, expected in (
            (["switch:*"], None, names[3:]),
            (["switch:*"], "t", names[2:]),
            (["switch:1"], None, [names[1], names[3]]),
            (["switch:1", "topology:*"], "t", names[1:3]),
            (["nothing:*"], None, names),
            (["*"], None, []),
        ):
            await fill()
            await a.invalidate(*patterns, tenant=tenant)
            assert await left(a) == expected
            async with asyncio.timeout(60):
                while await left(b) != expected:
                    await asyncio.sleep(0.005)

    async def test_what_was_found_out_before_an_invalidation_is_not_kept(self, nodes):
        a, b = nodes
        value = Value(b"old")
        value.gate.clear()
        slow = asyncio.create_task(a.fetch("t", "switch:1", 60, value))
        await until(lambda: value.n_computed)
        await b.invalidate("switch:*")
        await until(lambda: a._counts.invalidations)
        assert await a.fetch("t", "switch:1", 60, Value(b"new")) == b"new"
        value.gate.set()
        assert await slow == b"old"
        for node in (a, b):
            assert await node.fetch("t", "switch:1", 60, Value(b"new")) == b"new"

    async def test_a_new_node_heeds_what_was_invalidated_before(self, start, nodes):
        a, _ = nodes
        await a.fetch("t", "switch:1", 60, Value())
        await a.fetch("t", "switch:2", 60, Value())
        await a.invalidate("switch:1")
        # As if the removal of a value had been late, or lost.
        await a._store.put("cache:t:switch:1", b"0-0 9999999999\nold", 60)
        c = (await start("c")).cache
        await until(lambda: c.is_usable)
        assert await c.get("t", "switch:1") is None
        assert await c.get("t", "switch:2") == b"1"

    async def test_who_was_away_for_too_long_forgets_all(self, nodes):
        a, b = nodes
        await b.fetch("t", "switch:1", 60, Value())
        assert await a.get("t", "switch:1") == b"1"
        a._reader.position = StreamId(1, 1)  # As if those after it were there no more.
        await b.invalidate("other:1")
        await until(lambda: a.n_at_hand == b.n_at_hand == 0)
        assert await a.get("t", "switch:1") is await b.get("t", "switch:1") is None

    async def test_nothing_is_answered_while_the_store_is_away(self, nodes, monkeypatch):
        monkeypatch.setattr("ovncp.cluster.cache._STALE_AFTER_S", 0.2)
        a, b = nodes
        await a.fetch("t", "switch:1", 60, Value())

        async def away(*_):
            raise Unavailable("away")

        real = b._store.publish
        b._store.publish = a._store.read = away
        await until(lambda: not a.is_usable)
        assert await a.get("t", "switch:1") is None
        assert await a.fetch("t", "switch:1", 60, Value(b"2")) == b"2"
        await b.invalidate("switch:1")  # No error: the others are told later.
        assert not b.is_usable
        b._store.publish = real
        del a._store.read
        await until(lambda: a.is_usable and b.is_usable)
        async with asyncio.timeout(60):
            for cache in nodes:
                while await cache.get("t", "switch:1") is not None:
                    await asyncio.sleep(0.005)

    async def test_values_at_hand_are_bounded_and_can_be_warmed(self, start):
        node = (await start("c", cache_entries=3)).cache
        await until(lambda: node.is_usable)
        await node.warm((None, f"k:{i}", 60.0, Value(b"%d" % i)) for i in range(5))
        assert node.n_at_hand == 3
        assert await node.get(None, "k:0") == b"0"  # From the store.


class TestRates:
    @pytest.fixture
    def clock(self):
        class Clock:
            now = 1000.0

            def __call__(self):
                return self.now

        return Clock()

    async def test_the_limit_holds_over_all_nodes(self, open_store, clock):
        nodes = [Rates(open_store(), clock) for _ in range(3)]
        limit = Limit(30, 10.0)
        for _ in range(8):
            for node in nodes:
                assert node.admit("u", limit) == 0
        for _ in range(2):
            for node in nodes:
                await node.sync()
        admitted = [node.admit("u", limit) == 0 for _ in range(6) for node in nodes]
        assert 6 <= sum(admitted) <= 6 * 3
        for _ in range(2):
            for node in nodes:
                await node.sync()
        assert all(node.admit("u", limit) > 0 for node in nodes)
        assert nodes[0].admit("v", limit) == 0
        assert nodes[0].admit("u", Limit(60, 10.0)) == 0

    async def test_the_window_slides(self, store, clock):
        rates, limit = Rates(store, clock), Limit(10, 10.0)
        assert [rates.admit("u", limit) == 0 for _ in range(11)] == [True] * 10 + [False]
        clock.now += 10.0
        assert rates.admit("u", limit) > 0
        clock.now += 5.0
        assert [rates.admit("u", limit) == 0 for _ in range(6)] == [True] * 5 + [False]
        clock.now += 20.0
        await rates.sync()
        assert rates._counts == {}
        assert [rates.admit("u", limit) == 0 for _ in range(10)] == [True] * 10

    async def test_nodes_count_alone_while_the_store_is_away(self, open_store, store, clock):
        rates, limit = Rates(store, clock), Limit(3, 10.0)
        await store.close()
        for _ in range(3):
            assert rates.admit("u", limit) == 0
        with pytest.raises(Unavailable):
            await rates.sync()
        assert rates.admit("u", limit) > 0
        rates._store = open_store()
        await rates.sync()
        assert rates.admit("u", limit) > 0


async def test_a_node_shows_its_figures(start):
    a, b = await start("a"), await start("b")
    await until(lambda: len(a.membership.nodes) == 2 and a.leadership.leader)
    families = {family.name: family for family in a.families()}
    assert dict(families["ovncp_cluster_nodes_total"].samples) == {
        (("status", "active"),): 2,
        (("status", "draining"),): 0,
        (("status", "silent"),): 0,
    }
    info = [dict(labels) for labels, _ in families["ovncp_cluster_node_info"].samples]
    assert {"node_id": "b", "hostname": "host-b", "ip": "127.0.0.1"} in info
    (leader,) = families["ovncp_cluster_leader"].samples
    assert dict(leader[0])["node_id"] in ("a", "b") and leader[1] == 1
    assert sum(n.leadership.is_leader for n in (a, b)) == 1
