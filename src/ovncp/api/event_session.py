"""One client that is told events, however it is connected: where it is, and what it is told next.

A client comes with the id of the last event that it knows, or with none. It is told what came after
that from the recent events of this node, or from the stream; then it follows a channel. One that
falls behind its channel does the same again. When what it lacks is gone, it is told so.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import orjson

from ovncp.api.hub import Channel, Hub, Message, Told, message_of, told
from ovncp.api.subscription import Filter
from ovncp.cluster.base import Gap, StreamId, Unavailable

_FAILED_PAUSE_S = 0.5


class EventSession:
    """What one client is told, of what `hub` hears."""

    def __init__(self, hub: Hub) -> None:
        self.position: StreamId | None = None
        """The id up to which the client has been told; None before it subscribes."""
        self.is_over = False
        self.n_missed = 0
        self._hub = hub
        self._wake = asyncio.Event()
        self._outbox: deque[Callable[[], Message]] = deque()
        self._filter: Filter | None = None
        self._begins = False
        self._is_subscribed = False
        self._lags = False
        self._tells_position = False
        self._channel: Channel | None = None
        self._place = 0
        self._n_lost = 0

    # What others want of it

    def subscribe(self, filter: Filter, after: StreamId | None) -> None:
        """Tell the client of these events, from the one after `after` on, or from now on."""
        self._filter = filter
        self.position = after
        self._is_subscribed = False
        self._begins = self._lags = True
        self._wake.set()

    def say(self, kind: str, **members: object) -> None:
        """Send the client a message, which has the id up to which it has been told then."""

        def message() -> Message:
            id = self.position
            told_id = {} if id is None else {"id": str(id)}
            text = orjson.dumps({"type": kind, **members, **told_id}).decode()
            return Message(kind, id, text)

        self._outbox.append(message)
        self._wake.set()

    def tell_position(self) -> None:
        """Have the client know how far events have come, if it is told of none."""
        self._tells_position = True
        self._wake.set()

    def end(self) -> None:
        """Tell nothing more."""
        self.is_over = True
        self._wake.set()

    # What it says

    async def messages(self) -> AsyncIterator[Message]:
        """What the client is to be told, until the session is over."""
        try:
            while not self.is_over:
                self._wake.clear()
                if self._outbox:
                    yield self._outbox.popleft()()
                elif self._lags and self._hub.position is None:
                    await self._woken_or_placed()
                elif self._lags:
                    async for message in self._catch_up():
                        yield message
                elif (following := self._next()) is not None:
                    yield following
                elif not self._lags:
                    await self._wake.wait()
        finally:
            self._leave()

    async def _woken_or_placed(self) -> None:
        """Return when there may be a place in the stream to begin at, or something else to do."""
        watching = self._hub.feed.watching
        watching.add(self._wake)
        try:
            await self._wake.wait()
        finally:
            watching.discard(self._wake)

    def _next(self) -> Message | None:
        """What the channel has, if anything."""
        channel = self._channel
        if channel is None:
            return None
        if self._n_lost != self._hub.lost[0]:
            self._n_lost, position = self._hub.lost
            self._place = channel.first
            return self._missed(position)
        if self._place < channel.first:
            self._lags = True
            return None
        if self._place < channel.end:
            self._place, message = channel.message(self._place)
            self.position = message.id
            return message
        if self._tells_position:
            self._tells_position = False
            self.position = self._hub.feed.position
            return self._about("position")
        return None

    async def _catch_up(self) -> AsyncIterator[Message]:
        """What the client lacks; it follows a channel then."""
        self._leave()
        self._lags = False
        filter, begins, self._begins = self._filter, self._begins, False
        assert filter is not None
        while not (self._lags or self.is_over):
            if (position := self._hub.position) is None:
                self._lags, self._begins = True, begins
                return
            if self.position is None:
                self.position = position
            if not self._is_subscribed:
                self._is_subscribed = True
                yield self._about("subscribed")
                continue
            try:
                events = await self._following(from_stream=begins)
            except Unavailable:
                await asyncio.sleep(_FAILED_PAUSE_S)
                continue
            except Gap:
                yield self._missed(self._hub.position or position)
                continue
            if not events:
                self._follow(filter)
                return
            self.position = events[-1].id
            texts = [known.text for known in events if filter.admits(known.head)]
            if texts:
                yield message_of(self.position, texts)

    async def _following(self, *, from_stream: bool) -> Sequence[Told]:
        """Some of the events that the client lacks, none if it lacks none.

        Raises Gap if they are gone, Unavailable.
        """
        assert self.position is not None
        recent = self._hub.recent(self.position)
        if recent is not None:
            return recent
        if not from_stream:
            raise Gap("the client is too slow")
        return [told(event) for event in await self._hub.feed.since(self.position)]

    def _follow(self, filter: Filter) -> None:
        self._channel = self._hub.join(filter, self._wake)
        self._place = self._channel.end
        self._n_lost = self._hub.lost[0]

    def _leave(self) -> None:
        if self._channel is not None:
            self._hub.leave(self._channel, self._wake)
            self._channel = None

    def _missed(self, position: StreamId) -> Message:
        self.n_missed += 1
        before, self.position = self.position, position
        return self._about("missed", after=str(before))

    def _about(self, kind: str, **members: str) -> Message:
        assert self.position is not None
        text = orjson.dumps({"type": kind, **members, "id": str(self.position)}).decode()
        return Message(kind, self.position, text)
