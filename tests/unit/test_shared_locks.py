"""Locks of many relays at several sources: never two owners, and in the end always one.

The relays' side is the real one; a source is the real queue of locks behind messages that take any
time to arrive, in order.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from ovncp.ovsdb.lock import Locks
from ovncp.server.shared_locks import SharedLocks

NAME = "l"


class Source:
    """One source, whom its sessions' messages reach."""

    def __init__(self) -> None:
        self.locks = Locks()

    def handle(self, session: Link, method: str) -> Any:
        """What a server does for a "lock", "steal" or "unlock"."""
        if method == "unlock":
            assert session.asked, "unlock without lock"
            session.asked = False
            self.forget(session)
            return {}
        assert not session.asked, "lock without unlock"
        session.asked = True
        if method == "lock":
            return {"locked": self.locks.lock(session, NAME)}
        victim = self.locks.steal(session, NAME)
        if victim is not None:
            victim.tell("stolen")
        return {"locked": True}

    def forget(self, session: Link) -> None:
        heir = self.locks.unlock(session, NAME)
        if heir is not None:
            heir.tell("locked")


class Link:
    """A relay's connection to a source, as the relay sees it and as the source does."""

    def __init__(self, database: str, source: Source, relay: Relay) -> None:
        self.name = database
        self.order = database
        self.source, self.relay = source, relay
        self.lock_holder: SharedLocks
        self.is_connected = True
        self.asked = False
        self.outbound: deque[tuple[str, Callable[[Any, Any], None]]] = deque()
        self.inbound: deque[Callable[[], None]] = deque()

    def request(self, method: str, params: list[Any], answered: Callable[[Any, Any], None]) -> int:
        assert self.is_connected and params == [NAME]
        self.outbound.append((method, answered))
        return 0

    def tell(self, method: str) -> None:
        self.inbound.append(lambda: self.lock_holder.source_says(self, method, NAME))

    def deliver(self, chance: random.Random) -> None:
        """One message, in either direction."""
        if self.outbound and (not self.inbound or chance.random() < 0.5):
            method, answered = self.outbound.popleft()
            result = self.source.handle(self, method)
            self.inbound.append(lambda: answered(result, None))
        else:
            self.inbound.popleft()()

    @property
    def is_quiet(self) -> bool:
        return not self.outbound and not self.inbound

    def toggle(self) -> None:
        if self.is_connected:
            self.is_connected = self.asked = False
            self.outbound.clear()
            self.inbound.clear()
            self.source.forget(self)
            self.lock_holder.source_lost(self)
        else:
            self.is_connected = True
            self.lock_holder.source_found(self)


class Client:
    """A client of a relay; `has` is what it was told, None if it does not ask.

    `without_ns` is when it last knew that it did not have the lock, `since_ns` when it was told.
    """

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.has = None
        self.is_answered = True

    @property
    def has(self) -> bool | None:
        return self._has

    @has.setter
    def has(self, has: bool | None) -> None:
        self._has = has
        if has:
            self.since_ns = time.perf_counter_ns()
        else:
            self.without_ns = time.perf_counter_ns()

    def check(self) -> None:
        """What it asks for now it asks as the owner, what it asked for before it was it did not."""
        if self.has and self.owns:
            assert self.relay.locks.owns(self, NAME, self.since_ns)
            assert not self.relay.locks.owns(self, NAME, self.without_ns)

    def ask(self, method: str) -> None:
        self.has, self.is_answered = False, False
        getattr(self.relay.locks, method)(self, NAME, self.answered)

    def answered(self, has: bool) -> None:
        assert not self.is_answered
        self.has, self.is_answered = has, True

    def unlock(self) -> None:
        self.has = None
        self.relay.locks.unlock(self, NAME)

    @property
    def owns(self) -> bool:
        return self.relay.locks.owns(self, NAME)


class Relay:
    def __init__(self, sources: list[Source], n_clients: int) -> None:
        self.locks = SharedLocks(self.notify)
        self.links = [Link(f"db{number}", source, self) for number, source in enumerate(sources)]
        for link in self.links:
            self.locks.add_source(link)  # type: ignore[arg-type]
        self.clients = [Client(self) for _ in range(n_clients)]

    @staticmethod
    def notify(client: Any, method: str, name: str) -> None:
        assert client.is_answered or method == "locked"
        client.has = method == "locked"


class World:
    def __init__(self, seed: int, n_sources: int) -> None:
        self.chance = random.Random(seed)
        sources = [Source() for _ in range(n_sources)]
        self.relays = [Relay(sources, 2) for _ in range(3)]
        self.clients = [client for relay in self.relays for client in relay.clients]
        self.links = [link for relay in self.relays for link in relay.links]

    def act(self, methods: tuple[str, ...]) -> None:
        client = self.chance.choice(self.clients)
        if client.has is None:
            client.ask(self.chance.choice(methods))
        elif client.is_answered:
            client.unlock()

    def deliver(self) -> None:
        busy = [link for link in self.links if not link.is_quiet]
        if busy:
            self.chance.choice(busy).deliver(self.chance)

    def settle(self) -> None:
        for link in self.links:
            if not link.is_connected:
                link.toggle()
        while not all(link.is_quiet for link in self.links):
            self.deliver()

    def check_end(self) -> None:
        """All know who has the lock, and somebody has it if anybody waits for it."""
        assert [client.has is True for client in self.clients] == [c.owns for c in self.clients]
        owners = [client for client in self.clients if client.owns]
        assert len(owners) <= 1


@pytest.mark.parametrize("n_sources", [1, 2, 3])
@pytest.mark.parametrize("seed", range(40))
async def test_no_two_clients_own_a_lock(seed: int, n_sources: int) -> None:
    world = World(seed, n_sources)
    for _ in range(300):
        if world.chance.random() < 0.2:
            world.act(("lock",))
        else:
            world.deliver()
        assert sum(client.owns for client in world.clients) <= 1
        assert all(client.owns for client in world.clients if client.has)
        for client in world.clients:
            client.check()
    world.settle()
    world.check_end()
    is_wanted = any(client.has is not None for client in world.clients)
    assert any(client.owns for client in world.clients) == is_wanted


@pytest.mark.parametrize("n_sources", [1, 2, 3])
@pytest.mark.parametrize("seed", range(40))
async def test_with_thieves_and_lost_sources_there_is_one_owner_in_the_end(
    seed: int, n_sources: int
) -> None:
    world = World(seed, n_sources)
    for _ in range(300):
        what = world.chance.random()
        if what < 0.1:
            world.act(("lock", "lock", "steal"))
        elif what < 0.2 and world.links:
            world.chance.choice(world.links).toggle()
        else:
            world.deliver()
        for client in world.clients:
            client.check()
    world.settle()
    world.check_end()
    # A thief that was robbed does not wait, so that the last to ask is one that waits for sure.
    last = Client(world.relays[0])
    world.clients.append(last)
    last.ask("lock")
    world.settle()
    assert any(client.owns for client in world.clients)


async def test_a_client_that_asks_for_a_free_lock_has_it_at_once() -> None:
    world = World(0, 2)
    client = world.clients[0]
    client.ask("lock")
    assert not client.is_answered
    world.settle()
    assert client.has is True


async def test_a_thief_that_is_robbed_does_not_wait_for_the_lock() -> None:
    world = World(0, 1)
    one, _, other = world.clients[:3]
    for thief in (one, other):
        thief.ask("steal")
        world.settle()
    assert (one.has, other.has) == (False, True)
    other.unlock()
    world.settle()
    assert one.has is False and not one.owns


async def test_a_thief_that_is_robbed_on_its_way_leaves_no_theft_to_who_waits() -> None:
    world = World(0, 2)
    thief, waiting, rival = world.clients[:3]

    def deliver_at_the_first_source(relay: Relay) -> None:
        while not relay.links[0].is_quiet:
            relay.links[0].deliver(world.chance)

    rival.ask("lock")
    world.settle()
    waiting.ask("lock")
    world.settle()
    thief.ask("steal")
    deliver_at_the_first_source(thief.relay)
    rival.unlock()
    rival.ask("steal")
    deliver_at_the_first_source(rival.relay)
    deliver_at_the_first_source(thief.relay)
    world.settle()
    assert (thief.has, waiting.has, rival.has) == (False, False, True)
    world.check_end()


async def test_an_owner_that_is_robbed_waits_for_the_lock() -> None:
    world = World(0, 2)
    one, _, other = world.clients[:3]
    for client, method in ((one, "lock"), (other, "steal")):
        client.ask(method)
        world.settle()
    assert (one.has, other.has) == (False, True)
    other.unlock()
    world.settle()
    assert one.has is True and one.owns


async def test_clients_of_other_relays_get_their_turn_before_those_here() -> None:
    world = World(0, 2)
    here, next_here, elsewhere = world.clients[:3]
    for client in (here, elsewhere, next_here):
        client.ask("lock")
        world.settle()
    for leaving, following in ((here, elsewhere), (elsewhere, next_here)):
        leaving.unlock()
        world.settle()
        assert following.has is True


async def test_a_source_that_is_away_makes_clients_wait() -> None:
    world = World(0, 2)
    client = world.clients[0]
    client.relay.links[1].toggle()
    client.ask("lock")
    while not all(link.is_quiet for link in world.links):
        world.deliver()
    assert client.is_answered and client.has is False
    world.settle()
    assert client.has is True
    client.relay.links[0].toggle()
    assert client.has is False and not client.owns
