"""The locks of a server's clients (RFC 7047 sections 4.1.8 to 4.1.10), here and at the sources.

A server that shares no database with others decides by itself who holds a lock. One that relays
some, or is part of clusters, holds it at each of their sources on behalf of the client that is
first in its own queue: it asks one source after the other, in an order that is the same at every
server, so that no two wait for each other. When that client unlocks, the sources are told so even
if others wait here, so that the clients of other servers get their turn. In a cluster those who
wait here have places of their own in the line of all servers, at the first source. A source that is
lost, or that gives the lock to somebody else, takes it from the client, who is told; it is asked
for again as soon as that can be.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from enum import Enum
from functools import partial
from time import perf_counter_ns
from typing import Any

from ovncp.follow.link import ignore
from ovncp.ovsdb.lock import Locks
from ovncp.server.lease_locks import LeaseLocks
from ovncp.server.lock_source import LockSource

_LOG = logging.getLogger("ovncp.relay")

_PATIENCE_SECONDS = 1.0
"""How long a client waits at most for the sources' word before it is told that it has to wait."""

Reply = Callable[[bool], None]
Notify = Callable[[Hashable, str, str], None]


class _State(Enum):
    """What a source has said of a lock that it was asked for."""

    ASKED = "asked"
    WAITING = "waiting"
    HELD = "held"


class _Place:
    """A lock at one source. What a source says before it has answered concerns an earlier one."""

    __slots__ = ("is_theft", "state")

    def __init__(self, is_theft: bool) -> None:
        self.is_theft = is_theft
        self.state = _State.ASKED


class _Claim:
    """A lock that clients want.

    `is_owned` is whether the first of them has been given it, at `given_ns` (`perf_counter_ns`).
    `places` is by source. `reply` answers the first client's request, as long as it has no answer;
    `is_theft` is whether that client steals. `victim` is the one whose places a thief here has, and
    which gets them back.
    """

    __slots__ = ("given_ns", "is_owned", "is_theft", "places", "reply", "victim")

    def __init__(self) -> None:
        self.is_owned = False
        self.given_ns = 0
        self.is_theft = False
        self.reply: Reply | None = None
        self.victim: Hashable | None = None
        self.places: dict[LockSource, _Place] = {}

    def answer(self, is_owned: bool) -> bool:
        """Answer the first client's request, if it waits for that; whether it did."""
        reply, self.reply = self.reply, None
        if reply is not None:
            reply(is_owned)
        return reply is not None


class SharedLocks:
    """Who holds and who waits for each lock. `notify` tells a client "locked" or "stolen"."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._queues = Locks()
        self._claims: dict[str, _Claim] = {}
        self._sources: list[LockSource] = []
        self._telling: set[asyncio.Task[None]] = set()

    def owns(self, session: Hashable, name: str, since_ns: int | None = None) -> bool:
        """Whether `session` holds the lock `name`, and has since then (`perf_counter_ns`)."""
        claim = self._claims.get(name)
        if claim is None or not claim.is_owned or self._queues.owner(name) is not session:
            return False
        return since_ns is None or claim.given_ns <= since_ns

    # What clients ask for

    def lock(self, session: Hashable, name: str, reply: Reply) -> None:
        """Queue `session` for the lock; `reply` is told whether it has it at once."""
        if not self._queues.lock(session, name):
            self._line_up(name, reply)
            return
        claim = self._claims[name] = _Claim()
        claim.reply = reply
        self._advance(name)
        self._limit_wait(name)

    def steal(self, session: Hashable, name: str, reply: Reply) -> None:
        """Give `session` the lock, whoever holds it."""
        victim = self._queues.steal(session, name)
        claim = self._claims.setdefault(name, _Claim())
        claim.answer(False)
        if victim is not None and claim.is_owned:
            self._notify(victim, "stolen", name)
            if self._queues.position(victim, name) is not None:
                claim.victim = victim
        claim.is_owned, claim.is_theft, claim.reply = False, True, reply
        for source in [s for s, place in claim.places.items() if place.state is not _State.HELD]:
            if source in self._lines:
                del claim.places[source]  # Who waited there waits on.
            else:
                self._release(name, source)
        self._advance(name)
        self._limit_wait(name)

    def _line_up(self, name: str, reply: Reply) -> None:
        """Tell a client to wait that is not the first here, when it has its places in the lines."""
        places = [source.queue(name) for source in self._lines]
        if not places:
            reply(False)
            return

        async def tell() -> None:
            await asyncio.wait(places, timeout=_PATIENCE_SECONDS)
            reply(False)

        telling = asyncio.get_running_loop().create_task(tell())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    @property
    def _lines(self) -> list[LeaseLocks]:
        """The sources at which each client has a place: none but the first one that is asked.

        At a later one it could come before those who have the lock at that first one already.
        """
        return [source for source in self._sources[:1] if isinstance(source, LeaseLocks)]

    def _limit_wait(self, name: str) -> None:
        """See to it that a source which is slow to answer does not keep a client waiting."""
        claim = self._claims[name]
        reply = claim.reply

        def enough() -> None:
            if claim.reply is reply:
                claim.answer(False)

        if reply is not None:
            asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, enough)

    def unlock(self, session: Hashable, name: str) -> None:
        """Take the lock, or the wait for it, from `session`."""
        position = self._queues.position(session, name)
        heir = self._queues.unlock(session, name)
        claim = self._claims.get(name)
        if claim is None or position is None:
            return
        if position == 0:
            self._pass_on(name, claim, heir)
            return
        self._leave_lines(name, claim, session, position)
        if heir is not None and claim.is_owned:
            self._notify(heir, "locked", name)  # as the C server does

    def _leave_lines(self, name: str, claim: _Claim, session: Hashable, position: int) -> None:
        """Give up the places of `session`, which is not the first here."""
        if session is claim.victim:
            claim.victim = None
            return
        n_before = position - (1 if claim.victim is None else 2)
        for source in self._lines:
            source.dequeue(name, n_before)

    def _pass_on(self, name: str, claim: _Claim, heir: Hashable | None) -> None:
        """Let the clients of others have their turn, and then the next one here."""
        claim.reply = None
        gets_it_back = heir is not None and heir is claim.victim
        # With lines, the heir's place is another one, and nothing is held before that is held.
        is_over = not gets_it_back if self._lines else claim.is_owned or heir is None
        for source in reversed(self._sources):
            if is_over:
                self._release(name, source)
        claim.is_owned = claim.is_theft = False
        if gets_it_back:
            claim.victim = None
        if heir is None:
            self._forget(name)
        else:
            self._advance(name)

    def _forget(self, name: str) -> None:
        """Note that nobody here wants the lock any more."""
        del self._claims[name]
        for source in self._lines:
            source.forget(name)

    # What sources are asked for

    def _advance(self, name: str) -> None:
        """Ask for the lock where it is not held yet; once it is held everywhere it is given."""
        claim = self._claims[name]
        for source in self._sources:
            place = claim.places.get(source)
            if place is None and source.is_connected:
                self._ask(name, claim, source)
            elif place is None or place.state is _State.WAITING:
                claim.answer(False)
            elif place.state is _State.HELD:
                continue
            return
        self._give(name, claim)

    def _ask(self, name: str, claim: _Claim, source: LockSource) -> None:
        place = claim.places[source] = _Place(claim.is_theft)
        method = "steal" if claim.is_theft else "lock"
        source.request(method, [name], partial(self._answered, name, source, place))

    def _answered(
        self, name: str, source: LockSource, place: _Place, result: Any, error: Any
    ) -> None:
        claim = self._claims.get(name)
        if claim is None or claim.places.get(source) is not place:
            return  # given up meanwhile
        is_held = error is None and result.get("locked") is True
        if error is not None:
            _LOG.warning("%s: the lock %s is refused (%s)", source.name, name, error)
        place.state = _State.HELD if is_held else _State.WAITING
        self._advance(name)

    def _give(self, name: str, claim: _Claim) -> None:
        if claim.is_owned:
            return
        claim.is_owned, claim.is_theft, claim.given_ns = True, False, perf_counter_ns()
        owner = self._queues.owner(name)
        if not claim.answer(True) and owner is not None:
            self._notify(owner, "locked", name)

    def _release(self, name: str, source: LockSource) -> None:
        if self._claims[name].places.pop(source, None) is not None and source.is_connected:
            source.request("unlock", [name], ignore)

    # What sources say

    def add_source(self, source: LockSource) -> None:
        """Hold all locks at `source` too."""
        if source not in self._sources:
            source.lock_holder = self
            self._sources.append(source)
            self._sources.sort(key=lambda source: source.order)
            for name in list(self._claims):
                self._lose(name, source)
                self._advance(name)

    def remove_source(self, source: LockSource) -> None:
        """Forget `source`, which closes."""
        self._sources.remove(source)
        for name, claim in list(self._claims.items()):
            claim.places.pop(source, None)
            self._advance(name)

    def source_found(self, source: LockSource) -> None:
        """See `LockHolder.source_found`."""
        for name in list(self._claims):
            self._advance(name)

    def source_says(self, source: LockSource, method: str, name: str) -> None:
        """See `LockHolder.source_says`."""
        claim = self._claims.get(name)
        place = None if claim is None else claim.places.get(source)
        if place is None or place.state is _State.ASKED:
            return
        if method == "locked":
            place.state = _State.HELD
            self._advance(name)
        elif place.state is _State.HELD:
            self._robbed(name, source, place)

    def _robbed(self, name: str, source: LockSource, place: _Place) -> None:
        """Somebody else's client has stolen the lock; a thief does not wait for it to come back."""
        place.state = _State.WAITING
        self._lose(name, source)
        if place.is_theft:
            self._release(name, source)
        claim, robbed = self._claims[name], self._queues.owner(name)
        self._queues.rob(name)
        if self._queues.owner(name) is not robbed:  # whoever is first now has stolen nothing
            claim.answer(False)
            claim.is_theft = False
            claim.victim = None  # who has its places back, if it is first again
        if self._queues.owner(name) is None:
            for later in reversed(self._sources):
                self._release(name, later)
            self._forget(name)
        else:
            self._advance(name)

    def source_lost(self, source: LockSource) -> None:
        """See `LockHolder.source_lost`."""
        for name, claim in self._claims.items():
            if claim.places.pop(source, None) is not None:
                self._lose(name, source)
            claim.answer(False)

    def _lose(self, name: str, source: LockSource) -> None:
        """Take the lock from its owner, since `source` does not grant it (any more).

        It is given back where it comes later in the order, so that it can be asked for again.
        """
        claim = self._claims[name]
        if claim.is_owned:
            claim.is_owned = False
            owner = self._queues.owner(name)
            if owner is not None:
                self._notify(owner, "stolen", name)
        for later in reversed(self._sources[self._sources.index(source) + 1 :]):
            self._release(name, later)
