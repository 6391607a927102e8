"""What one client is told: all that it asked for, in order, from where it was; or what is gone."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from ovncp.api import hub as hub_module
from ovncp.api.event_session import EventSession
from ovncp.api.hub import Hub
from ovncp.api.subscription import Filter
from ovncp.cluster.base import StreamId
from ovncp.cluster.coverage import Coverage
from ovncp.cluster.feed import Feed
from ovncp.cluster.leadership import Leadership
from ovncp.cluster.mail import Mail
from ovncp.cluster.memory import Memory, MemoryStore
from ovncp.cluster.metrics import Counts
from ovncp.cluster.pending import Change

EVERYTHING = Filter()
LEASE_S = 3.0  # long enough not to be lost on a machine with much else to do
SWITCHES = Filter(tables=frozenset([("nb", "Logical_Switch")]))


class Node:
    """A node's feed and hub, over a memory that it may share."""

    def __init__(self, memory: Memory, name: str, n_kept: int) -> None:
        self.store = MemoryStore(memory)
        self.feed = Feed(self.store, "t", n_kept, Counts())
        self.leadership = Leadership(self.store, name, LEASE_S, Counts())
        mail = Mail(self.store, name)
        coverage = Coverage(self.feed, self.leadership, mail, name)
        self.leadership.add("events", coverage.lead)
        self.hub = Hub(self.feed)
        runs = (self.feed.run, self.leadership.run, mail.run, coverage.run)
        self.tasks = [asyncio.create_task(run()) for run in runs]
        self.feed.catch_up["nb"] = self._see_all
        coverage.begin("nb")
        self.n_made = 0

    async def _see_all(self) -> bool:
        return True  # what is made is seen

    def make(self, n_events: int, table: str = "Logical_Switch") -> None:
        """So many changes are seen at the database."""
        for _ in range(n_events):
            self.n_made += 1
            head = ["nb", table, None, f"u{self.n_made}", f"n{self.n_made}", [], 0.0]
            body = b'{"n":%d}' % self.n_made
            data = orjson.dumps(head) + b"\n" + body
            self.feed.offer([Change(f"row {self.n_made}", "v", data)])

    async def told(self) -> None:
        """Returns when all that was made has been heard."""
        async with asyncio.timeout(60):
            while self.feed.n_pending or self.hub.position is None:
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def nodes() -> AsyncIterator[Any]:
    """Starts nodes that share a memory."""
    memory = Memory()
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str = "a", n_kept: int = 10_000) -> Node:
            node = Node(memory, name, n_kept)
            stack.push_async_callback(node.close)
            await node.told()
            return node

        yield start


class Client:
    """Takes messages when it is asked to."""

    def __init__(self, node: Node, filter: Filter = EVERYTHING, after: str | None = None) -> None:
        self.session = EventSession(node.hub)
        self.session.subscribe(filter, None if after is None else StreamId.parse(after))
        self._messages = self.session.messages()

    async def take(self) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(60):
            return json.loads((await anext(self._messages)).text)

    async def take_events(self, n_events: int) -> list[int]:
        """The next events, and no other messages; by their numbers."""
        numbers: list[int] = []
        while len(numbers) < n_events:
            message = await self.take()
            assert message["type"] == "events", message
            # What is told up to may be behind what is not for this client.
            assert StreamId.parse(message["id"]) >= StreamId.parse(message["events"][-1]["id"])
            numbers += [event["n"] for event in message["events"]]
        return numbers

    async def is_quiet(self) -> bool:
        """Whether there is nothing to take."""
        taking = asyncio.ensure_future(anext(self._messages))
        await asyncio.sleep(0.05)
        quiet = not taking.done()
        taking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await taking
        return quiet


async def test_what_comes_is_told_in_order(nodes: Any) -> None:
    node = await nodes()
    client = Client(node)
    subscribed = await client.take()
    assert subscribed == {"type": "subscribed", "id": str(node.feed.position)}
    node.make(1)
    assert await client.take_events(1) == [1]
    node.make(700)
    assert await client.take_events(700) == list(range(2, 702))
    assert str(client.session.position) == str(node.feed.position)


async def test_only_what_is_wanted_is_told(nodes: Any) -> None:
    node = await nodes()
    client = Client(node, SWITCHES)
    await client.take()
    node.make(1, "Meter")
    node.make(1)
    node.make(1, "Meter")
    assert await client.take_events(1) == [2]
    assert await client.is_quiet()


async def test_those_who_keep_up_are_told_the_very_same_text(nodes: Any) -> None:
    node = await nodes()
    sessions = [EventSession(node.hub) for _ in range(3)]
    readers = [session.messages() for session in sessions]
    for session, reader in zip(sessions, readers, strict=True):
        session.subscribe(Filter(), None)
        await anext(reader)
    taking = [asyncio.ensure_future(anext(reader)) for reader in readers]
    await asyncio.sleep(0)
    node.make(3)
    texts = [(await message).text for message in taking]
    assert texts[0] is texts[1] is texts[2]


@pytest.mark.parametrize("from_stream", [False, True])
async def test_a_client_resumes_where_it_was(nodes: Any, from_stream: bool) -> None:
    node = await nodes()
    first = Client(node, SWITCHES)
    await first.take()
    node.make(600)
    n_told = (await first.take_events(250))[-1]
    after = str(first.session.position)
    await node.told()
    other = node
    if from_stream:
        other = await nodes("b")  # which has not heard what is in the stream already
    second = Client(other, SWITCHES, after)
    assert await second.take() == {"type": "subscribed", "id": after}
    assert await second.take_events(600 - n_told) == list(range(n_told + 1, 601))
    node.make(5)
    assert await second.take_events(5) == list(range(601, 606))


async def test_a_client_that_comes_from_a_node_which_was_ahead(nodes: Any) -> None:
    ahead, behind = await nodes("a"), await nodes("b")
    behind.tasks[0].cancel()
    client = Client(ahead)
    await client.take()
    ahead.make(3)
    await client.take_events(3)
    again = Client(behind, after=str(client.session.position))
    await again.take()
    taking = asyncio.ensure_future(again.take())
    await asyncio.sleep(0.05)
    behind.tasks[0] = asyncio.create_task(behind.feed.run())
    ahead.make(1)
    assert (await taking)["events"][0]["n"] == 4


async def test_a_client_of_long_ago_is_told_that_it_missed_events(nodes: Any) -> None:
    node = await nodes(n_kept=100)
    client = Client(node)
    await client.take()
    node.make(1)
    await client.take_events(1)
    after = str(client.session.position)
    for _ in range(20):
        node.make(50)
        await node.told()
    node.hub._recent.clear()  # as of a node that was started since
    again = Client(node, after=after)
    await again.take()
    position = str(node.feed.position)
    assert await again.take() == {"type": "missed", "after": after, "id": position}
    assert again.session.n_missed == 1
    node.make(1)
    assert await again.take_events(1) == [1002]


@pytest.mark.parametrize("after", ["1-1", "9999999999999-1"])
async def test_an_id_of_another_stream(nodes: Any, after: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("ovncp.cluster.feed._WAIT_S", 0.05)
    node = await nodes()
    node.make(3)
    await node.told()
    client = Client(node, after=after)
    await client.take()
    assert (await client.take())["type"] == "missed"
    node.make(1)
    assert await client.take_events(1) == [4]


async def test_a_slow_client_catches_up_from_what_the_node_has(
    nodes: Any, monkeypatch: Any
) -> None:
    node = await nodes()
    client = Client(node)
    await client.take()
    node.make(hub_module._MOST_IN_CHANNEL + 500)
    await node.told()
    n_made = node.n_made
    assert await client.take_events(n_made) == list(range(1, n_made + 1))
    node.make(1)
    assert await client.take_events(1) == [n_made + 1]


async def test_a_client_that_is_too_slow_is_told_so(nodes: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(hub_module, "_MOST_RECENT", 100)
    node = await nodes()
    client = Client(node)
    await client.take()
    node.make(1)
    await client.take_events(1)
    before = str(client.session.position)
    node.make(hub_module._MOST_IN_CHANNEL + 500)
    await node.told()
    position = str(node.feed.position)
    assert await client.take() == {"type": "missed", "after": before, "id": position}
    node.make(1)
    assert await client.take_events(1) == [node.n_made]


async def test_when_the_stream_is_lost_all_are_told(nodes: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("ovncp.cluster.feed._WAIT_S", 0.05)
    node = await nodes()
    clients = [Client(node), Client(node, SWITCHES)]
    for client in clients:
        await client.take()
    node.make(5)
    assert await clients[0].take_events(5) == [1, 2, 3, 4, 5]
    node.store._memory._streams.clear()
    for client in clients:
        message = await client.take()
        assert message["type"] == "missed"
        assert StreamId.parse(message["id"]) > StreamId.parse(message["after"])
    node.make(1)
    for client in clients:
        assert await client.take_events(1) == [6]
        assert client.session.n_missed == 1


async def test_a_subscription_is_changed(nodes: Any) -> None:
    node = await nodes()
    client = Client(node, SWITCHES)
    start = (await client.take())["id"]
    node.make(2, "Meter")
    node.make(1)
    assert await client.take_events(1) == [3]
    client.session.subscribe(EVERYTHING, StreamId.parse(start))
    assert (await client.take())["type"] == "subscribed"
    assert await client.take_events(3) == [1, 2, 3]
    client.session.subscribe(SWITCHES, None)
    assert (await client.take())["id"] == str(node.feed.position)
    node.make(1, "Meter")
    node.make(1)
    assert await client.take_events(1) == [5]
    assert len(node.hub._channels) == 1


async def test_messages_of_the_node_have_the_place_of_the_client(nodes: Any) -> None:
    node = await nodes()
    client = Client(node, SWITCHES)
    await client.take()
    node.make(1, "Meter")
    await node.told()
    client.session.tell_position()
    position = {"type": "position", "id": str(node.feed.position)}
    assert await client.take() == position
    node.make(1)
    await node.told()
    client.session.say("move", node="b")
    moving = await client.take()
    assert moving == {"type": "move", "node": "b", "id": position["id"]}
    assert await client.take_events(1) == [2]
    client.session.end()
    with pytest.raises(StopAsyncIteration):
        await client.take()
    assert not node.hub._channels
    assert not node.hub._by_key


@pytest.fixture
async def lost() -> AsyncIterator[Node]:
    """A node that has not found the stream."""
    node = Node(Memory(), "a", 100)
    running, *_ = node.tasks
    running.cancel()
    yield node
    await node.close()


async def test_a_client_may_come_before_the_store_can_be_reached(lost: Node) -> None:
    client = Client(lost)
    taking = asyncio.ensure_future(client.take())
    await asyncio.sleep(0.1)
    assert not taking.done()
    client.session.say("move", node="b")
    assert await taking == {"type": "move", "node": "b"}
    taking = asyncio.ensure_future(client.take())
    lost.tasks[0] = asyncio.create_task(lost.feed.run())
    assert (await taking)["type"] == "subscribed"
    assert not lost.feed.watching


async def test_a_client_may_go_before_the_store_can_be_reached(lost: Node) -> None:
    client = Client(lost)
    taking = asyncio.ensure_future(client.take())
    await asyncio.sleep(0)
    client.session.end()
    with pytest.raises(StopAsyncIteration):
        await taking
    assert not lost.feed.watching
