"""Events from the feed to the clients of this node: encoded once, whoever they are for.

Clients that want the same have a channel in common. It keeps the latest events that they are told
of, and each of them has a place in it; so those who keep up are told the same text, and a client
that does not costs no more than its place. What no channel has any more is among the recent events
of the node, or in the stream that all nodes read.
"""

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from ovncp.api import changes
from ovncp.api.subscription import Filter, Key, keys_of
from ovncp.cluster.base import ZERO, StreamId
from ovncp.cluster.feed import Event, Feed, Listener
from ovncp.cluster.metrics import Histogram
from ovncp.ovn.change_events import Head

MOST_PER_MESSAGE = 200
_MOST_IN_CHANNEL = 1_000
_MOST_RECENT = 10_000
_MOST_RECENT_CHARS = 32 << 20


class Told(NamedTuple):
    """An event as clients get it, `text` being a JSON object; "" if it is not for them."""

    id: StreamId
    previous: StreamId
    head: Head
    text: str


class Message(NamedTuple):
    """What a client is sent; all up to `id` has been told with it, if that is known."""

    kind: str
    id: StreamId | None
    text: str


def message_of(id: StreamId, texts: Iterable[str]) -> Message:
    """The message with these events."""
    text = f'{{"type":"events","id":"{id}","events":[{",".join(texts)}]}}'
    return Message("events", id, text)


def told(event: Event) -> Told:
    """The event as clients get it."""
    head, body = changes.read(event)
    text = f'{{"id":"{event.id}",{body[1:].decode()}' if body else ""
    return Told(event.id, event.previous, head, text)


class Channel:
    """The events for those who want `filter`; `readers` are woken when one comes."""

    def __init__(self, filter: Filter) -> None:
        self.filter = filter
        self.readers: set[asyncio.Event] = set()
        self.end = 0
        self._events: deque[Told] = deque(maxlen=_MOST_IN_CHANNEL)
        self._made: tuple[int, int, Message] | None = None

    def add(self, event: Told) -> None:
        """The next event."""
        self._events.append(event)
        self.end += 1

    @property
    def first(self) -> int:
        """The place of the first event that is here."""
        return self.end - len(self._events)

    def message(self, place: int) -> tuple[int, Message]:
        """The next events from a place on, of which there are some, and the place after them."""
        stop = min(self.end, place + MOST_PER_MESSAGE)
        if self._made is None or self._made[:2] != (place, stop):
            skipped = place - self.first
            events = list(islice(self._events, skipped, skipped + stop - place))
            self._made = place, stop, message_of(events[-1].id, (each.text for each in events))
        return stop, self._made[2]

    def forget(self) -> None:
        """Have no events: more are gone than what a reader has not taken yet."""
        self._events.clear()

    def wake(self) -> None:
        """Tell the readers."""
        for reader in self.readers:
            reader.set()


class Hub(Listener):
    """All channels of a node, which listens to `feed`."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.lost = (0, ZERO)
        """How many times events were lost for everybody, and where it went on then."""
        self.delay_s = Histogram()
        """From when a change was seen to when this node heard of it, by the nodes' clocks."""
        self._channels: dict[Filter, Channel] = {}
        self._by_key: dict[Key, set[Channel]] = {}
        self._recent: deque[Told] = deque()
        self._n_recent_chars = 0
        self._is_empty = False
        feed.listeners.append(self)

    @property
    def position(self) -> StreamId | None:
        """The id of the last event; None while there is none, or the store was never reached."""
        return None if self.feed.position == ZERO else self.feed.position

    # Channels

    def join(self, filter: Filter, reader: asyncio.Event) -> Channel:
        """Have `reader` woken when there is something that `filter` admits."""
        channel = self._channels.get(filter)
        if channel is None:
            channel = self._channels[filter] = Channel(filter)
            for key in filter.kept_by():
                self._by_key.setdefault(key, set()).add(channel)
        channel.readers.add(reader)
        return channel

    def leave(self, channel: Channel, reader: asyncio.Event) -> None:
        """Wake `reader` no more."""
        channel.readers.discard(reader)
        if channel.readers:
            return
        del self._channels[channel.filter]
        for key in channel.filter.kept_by():
            self._by_key[key].discard(channel)
            if not self._by_key[key]:
                del self._by_key[key]

    # Recent events

    def recent(self, after: StreamId) -> Sequence[Told] | None:
        """Some of the events that came after one, none if none came; None if they are not here."""
        if after == self.feed.position:
            return []
        start = bisect_right(self._recent, after, key=lambda known: known.id)
        found = list(islice(self._recent, start, start + MOST_PER_MESSAGE))
        return found if found and found[0].previous == after else None

    # Listening

    def hear(self, events: Sequence[Event]) -> None:
        """See `Listener.hear`."""
        if self._is_empty:
            self._is_empty = False
            self._lose(events[0].id)
        reached: set[Channel] = set()
        now = time.time()
        for known in map(told, events):
            self._remember(known)
            if known.text:
                self.delay_s.observe(max(0.0, now - known.head.at))
            for channel in self._candidates(known.head):
                if channel.filter.admits(known.head):
                    channel.add(known)
                    reached.add(channel)
        for channel in reached:
            channel.wake()

    def _candidates(self, head: Head) -> Iterable[Channel]:
        if not head.table:
            return list(self._channels.values()) if head.database else ()
        found = (self._by_key.get(key) for key in keys_of(head))
        return set().union(*(channels for channels in found if channels))

    def _remember(self, known: Told) -> None:
        self._recent.append(known)
        self._n_recent_chars += len(known.text)
        while len(self._recent) > _MOST_RECENT or self._n_recent_chars > _MOST_RECENT_CHARS:
            self._n_recent_chars -= len(self._recent.popleft().text)

    def miss(self, position: StreamId) -> None:
        """See `Listener.miss`."""
        self._recent.clear()
        self._n_recent_chars = 0
        if position == ZERO:
            # The stream is gone. Whoever leads begins another one, by a mark, which has an id.
            self._is_empty = True
        else:
            self._lose(position)

    def _lose(self, position: StreamId) -> None:
        self.lost = self.lost[0] + 1, position
        for channel in self._channels.values():
            channel.forget()
            channel.wake()
