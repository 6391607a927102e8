"""Nodes that have just come: they lead without events that are lost, or told twice."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from eventually import until
from ovncp.cluster.feed import MARK, Listener
from ovncp.cluster.node import Node
from ovncp.cluster.pending import Change
from ovncp.cluster.settings import ClusterSettings

LEASE_S = 0.6
DATABASE = "nb"


@pytest.fixture(params=["memory", "redis"])
def kind(request):
    return request.param


class Client(Listener):
    """Notes what a node's clients are told, and whether they were told to load anew."""

    def __init__(self):
        self.told = []
        self.n_misses = 0

    def hear(self, events):
        changes = [event.change for event in events if event.change.row != MARK]
        self.told += [(change.row, change.version) for change in changes]

    def miss(self, position):
        self.n_misses += 1


class Database:
    """What all nodes follow; a node sees what is new when it looks."""

    def __init__(self):
        self.commits = []

    def commit(self, *changes):
        self.commits += [Change(row, version, b"") for row, version in changes]


class Follower:
    """A node which follows the database from its start on, and was not told of what was before."""

    def __init__(self, name, store, database):
        settings = ClusterSettings(name, heartbeat_s=0.2, node_timeout_s=30.0, lease_s=LEASE_S)
        self.node = Node(settings, store, "1.0")
        self.client = Client()
        self.node.feed.listeners.append(self.client)
        self.node.feed.catch_up[DATABASE] = self.catch_up
        self.knows = True
        """Whether it can be sure that it has seen all."""
        self._database = database
        self._n_seen = len(database.commits)
        self.node.coverage.begin(DATABASE)

    async def look(self):
        """Sees all that was committed."""
        news = self._database.commits[self._n_seen :]
        self._n_seen += len(news)
        self.node.feed.offer(news)
        return True

    async def catch_up(self):
        return self.knows and await self.look()

    @property
    def leads(self):
        return self.node.leadership.is_leader

    async def die(self):
        for task in self.node._tasks:
            task.cancel()
        await asyncio.gather(*self.node._tasks, return_exceptions=True)

    async def covered(self):
        await until(lambda: self.node.feed.has_seen_all)


@pytest.fixture
async def follow(open_store):
    """Makes a node that follows a database; it takes part once its `node` is started."""
    async with contextlib.AsyncExitStack() as stack:

        def follow(name, database):
            follower = Follower(name, open_store(), database)
            stack.push_async_callback(follower.node.close)
            return follower

        yield follow


async def test_what_was_appended_before_a_node_read_the_stream_is_not_told_again(follow):
    """The node had seen it at the database by then."""
    database = Database()
    a = follow("a", database)
    await a.node.start()
    await until(lambda: a.leads and a.node.feed.position > (0, 0))
    b = follow("b", database)
    database.commit(("nb/1", "made"), ("nb/2", "made"), ("nb/1", "changed"))
    for each in (a, b):
        await each.look()
    await until(lambda: len(a.client.told) == 3)
    await b.node.start()
    await b.covered()
    await a.die()
    await until(lambda: b.leads)
    database.commit(("nb/1", "changed again"))
    await b.look()
    c = follow("c", database)
    await c.node.start()
    await c.covered()  # So all that b had to append is in the stream.
    await until(lambda: b.client.told)
    assert b.client.told == [("nb/1", "changed again")]
    assert b.client.n_misses == 0


async def two(follow, database):
    """The leader, and another node that has seen all."""
    a = follow("a", database)
    await a.node.start()
    await until(lambda: a.leads)
    b = follow("b", database)
    await b.node.start()
    await b.covered()
    return a, b


async def test_who_drains_leads_until_another_node_has_seen_all(follow):
    """As in a restart of all nodes, one after the other."""
    database = Database()
    a = follow("a", database)
    await a.node.start()
    await until(lambda: a.leads)
    a.knows = False  # So it gives no mark.
    b = follow("b", database)
    await b.node.start()
    await until(lambda: len(a.node.membership.nodes) == len(b.node.membership.nodes) == 2)
    draining = asyncio.create_task(a.node.drain())
    database.commit(("nb/1", "made"))
    await a.look()
    await until(lambda: b.client.told == [("nb/1", "made")])
    assert a.leads and not draining.done()
    a.knows = True
    await draining
    await until(lambda: b.leads)
    database.commit(("nb/1", "changed"))
    await b.look()
    await until(lambda: b.client.told == [("nb/1", "made"), ("nb/1", "changed")])
    assert a.client.n_misses == b.client.n_misses == 0


@pytest.mark.parametrize("is_ahead", [False, True])
async def test_who_cannot_know_whether_it_has_seen_all_has_all_load_anew(follow, is_ahead):
    """Unless it has seen all that the stream tells."""
    database = Database()
    a, b = await two(follow, database)
    database.commit(("nb/1", "made"))
    if not is_ahead:
        await b.look()
    await a.look()
    await until(lambda: b.client.told)
    b.knows = False
    await a.die()
    await until(lambda: b.node.leadership.lease and (b.client.n_misses or not is_ahead))
    await b.look()
    database.commit(("nb/1", "changed"))
    await b.look()
    await until(lambda: b.client.told[-1] == ("nb/1", "changed"))
    assert b.client.n_misses == int(is_ahead)
