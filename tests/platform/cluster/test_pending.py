"""No change is lost, doubled or out of order, whichever node appends, whatever each has seen."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from ovncp.cluster.pending import Change, Pending


def change(row, version):
    return Change(row, str(version), b"")


def offered(pending, *changes, now=0.0):
    for row, version in changes:
        pending.offer(change(row, version), now)


def unsent(pending):
    return [(c.row, c.version) for c in pending.unsent(100)]


def whole(change):
    return Change(change.row, change.version, b"whole")


@pytest.fixture
def pending():
    return Pending(1000, oldest_s=60.0)


def test_changes_wait_in_the_order_in_which_they_were_seen(pending):
    offered(pending, ("a", 1), ("b", 1), ("a", 2))
    assert unsent(pending) == [("a", "1"), ("b", "1"), ("a", "2")]
    assert [c.version for c in pending.unsent(1)] == ["1"]


def test_a_change_in_the_stream_settles_those_of_its_row_before_it(pending):
    offered(pending, ("a", 1), ("b", 1), ("a", 2), ("a", 3))
    pending.settle("a", "2")
    assert unsent(pending) == [("b", "1"), ("a", "3")]


def test_what_the_stream_has_first_is_not_pending(pending):
    pending.settle("a", "1")
    pending.settle("a", "2")
    offered(pending, ("a", 2), ("a", 3))
    assert unsent(pending) == [("a", "3")]
    offered(pending, ("a", 1))
    assert unsent(pending) == [("a", "3"), ("a", "1")]


def test_what_is_older_than_a_change_that_the_stream_has_is_settled(pending):
    offered(pending, ("a", 1))
    pending.settle("a", "2")
    offered(pending, ("a", 2), ("a", 3))
    assert unsent(pending) == [("a", "3")]


def test_of_a_row_with_a_change_that_was_seen_in_another_one_the_last_is_safe(pending):
    offered(pending, ("a", 1), ("b", 1))
    pending.settle("a", "2")
    offered(pending, ("a", 3))
    pending.take_over(whole)
    assert unsent(pending) == [("b", "1"), ("a", "3")]
    offered(pending, ("a", 4))
    pending.take_over(whole)
    assert unsent(pending) == [("b", "1"), ("a", "3"), ("a", "4")]


def test_what_is_against_a_state_that_was_not_told_is_told_as_the_whole_row(pending):
    offered(pending, ("a", 2), ("b", 1))
    pending.settle("a", "1")
    pending.take_over(whole)
    assert [(c.row, c.data) for c in pending.unsent(9)] == [("a", b"whole"), ("b", b"")]


def test_who_appends_is_behind_nothing(pending):
    """A row that is again what it once was has changed."""
    pending.settle("a", "1")
    pending.take_over(whole)
    pending.settle("a", "2")
    offered(pending, ("a", 1), ("a", 2))
    assert unsent(pending) == [("a", "1"), ("a", "2")]
    pending.stand_back()
    pending.settle("b", "1")
    offered(pending, ("b", 1))
    assert unsent(pending) == [("a", "1"), ("a", "2")]


def test_what_is_known_to_be_in_the_stream_is_forgotten(pending):
    offered(pending, ("a", 1), ("b", 1))
    n_seen = pending.n_seen
    offered(pending, ("a", 2))
    pending.forget(n_seen)
    assert unsent(pending) == [("a", "2")]


def test_what_was_sent_is_not_sent_again(pending):
    offered(pending, ("a", 1), ("b", 1))
    pending.mark_sent([change("a", 1)])
    assert unsent(pending) == [("b", "1")]
    pending.take_over(whole)
    assert unsent(pending) == [("a", "1"), ("b", "1")]


def test_what_the_stream_went_past_long_ago_is_given_up(pending):
    offered(pending, ("a", 1), ("a", "gone"), now=0.0)
    offered(pending, ("b", 1), now=59.0)
    offered(pending, ("c", 1), now=61.0)
    pending.settle("b", "1")
    assert len(pending) == 3
    pending.settle("c", "1")
    assert len(pending) == 0


def test_too_many_changes_are_told():
    pending = Pending(3)
    offered(pending, *(("a", i) for i in range(3)))
    assert not pending.has_lost
    offered(pending, ("b", 1))
    assert pending.has_lost
    assert unsent(pending) == [("a", "1"), ("a", "2"), ("b", "1")]
    pending.settle("a", "2")
    assert pending.has_lost
    pending.settle("b", "1")
    assert not pending.has_lost


def test_what_the_stream_has_first_is_bounded():
    pending = Pending(3)
    for i in range(10):
        pending.settle(f"row {i}", "1")
    offered(pending, ("row 9", 1), ("row 0", 1))
    assert unsent(pending) == [("row 0", "1")]


@dataclass
class World:
    """A database, a stream, and nodes that see parts of either at their own pace."""

    chance: random.Random
    database: list[tuple[str, str]] = field(default_factory=list)
    stream: list[tuple[str, str]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    def commit(self) -> None:
        row = self.chance.choice("abc")
        self.database.append((row, str(len(self.database))))

    def lead(self, node: Node) -> None:
        """Have a node take over from whoever led before."""
        for each in self.nodes:
            each.pending.stand_back()
        node.read(len(self.stream))
        node.see(len(self.database))
        node.pending.take_over(whole)


@dataclass
class Node:
    world: World
    pending: Pending = field(default_factory=lambda: Pending(10_000))
    n_seen: int = 0
    n_read: int = 0

    def see(self, n: int) -> None:
        """The next changes of the database, all of a row as its last, the rows in any order."""
        news = self.world.database[self.n_seen : self.n_seen + n]
        self.n_seen += len(news)
        merged = list(dict(news).items())
        self.world.chance.shuffle(merged)
        offered(self.pending, *merged)

    def read(self, n: int) -> None:
        for row, version in self.world.stream[self.n_read : self.n_read + n]:
            self.pending.settle(row, version)
            self.n_read += 1

    def append(self, n: int) -> None:
        changes = self.pending.unsent(n)
        self.world.stream += [(c.row, c.version) for c in changes]
        if self.world.chance.random() < 0.9:
            self.pending.mark_sent(changes)
        else:
            self.world.lead(self)  # As one who does not know, and asks the stream.


@examples(300)
@given(st.integers(0, 2**32), st.integers(10, 120))
def test_the_stream_has_every_row_in_order_and_to_the_end(seed, n_steps):
    world = World(random.Random(seed))
    world.nodes = [Node(world) for _ in range(3)]
    leader = world.nodes[0]
    for _ in range(n_steps):
        node = world.chance.choice(world.nodes)
        step = world.chance.randrange(10)
        if step < 4:
            world.commit()
        elif step < 6:
            node.see(world.chance.randint(1, 4))
        elif step < 7:
            node.read(world.chance.randint(1, 4))
        elif step < 9:
            leader.append(world.chance.randint(1, 4))
        else:
            world.lead(leader := node)
    world.lead(leader)
    while leader.pending.unsent(1):
        leader.append(10)
    for row in "abc":
        committed = [version for r, version in world.database if r == row]
        told = [version for r, version in world.stream if r == row]
        assert told == sorted(set(told), key=committed.index)
        assert told[-1:] == committed[-1:]
    for node in world.nodes:
        node.see(len(world.database))
        node.read(len(world.stream))
        assert not node.pending.unsent(1)
