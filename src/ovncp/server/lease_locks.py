"""The locks of a cluster's clients, as leases of its log (RFC 7047 section 4.1.8).

To a server's `SharedLocks` this is one more source that grants locks, beside those of relayed
databases: a lock is held on behalf of a client here by holding the lease of its name, which is
renewed for as long as the client wants the lock. Each client that wants it has a place of its own
in the line for the lease, so that those of all servers get it in the order in which they came. A
server that dies, or is cut off, loses its leases and places when their time is over. What asserts a
lock is appended only if the log itself finds that the lease is still held, so that a server which
was asleep cannot do harm.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Any, Final

from ovncp.follow.link import Answered
from ovncp.log.base import Lease, LeaseLost, LogError
from ovncp.log.engine import SharedLog
from ovncp.log.place import RENEWALS_PER_TTL, Place
from ovncp.log.timed_lease import TimedLease
from ovncp.server.lock_source import LockHolder

_LOG = logging.getLogger("ovncp.clustered")

TTL_MSEC: Final = 3000
"""How long a lock outlives the server that held it, at the most; etcd knows whole seconds alone."""

_PAUSE_SECONDS: Final = 0.5


class _Seat:
    """A client's place in the line for a lock, and the lease that has come of it.

    `lined_up` is done once the place is there, or cannot be had for the moment.
    """

    def __init__(self, *, is_theft: bool) -> None:
        self.is_theft = is_theft
        self.in_front = False
        self.place: Place | None = None
        self.lease: TimedLease | None = None
        self.lined_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None]

    def note_lined_up(self) -> None:
        """Have `lined_up` be done."""
        if not self.lined_up.done():
            self.lined_up.set_result(None)


class LeaseLocks:
    """The locks that are leases of `log`, under the database's `name`."""

    def __init__(self, name: str, log: SharedLog) -> None:
        self.name = name
        self.lock_holder: LockHolder
        self._log = log
        # Of those who want a lock, in the order of their coming.
        self._seats: dict[str, list[_Seat]] = {}

    @property
    def order(self) -> str:
        """See `LockSource.order`."""
        return self.name

    @property
    def is_connected(self) -> bool:
        """Whether requests can be made: always, as they are repeated until they succeed."""
        return True

    def request(self, method: str, params: list[Any], answered: Answered) -> None:
        """ "lock", "steal" and "unlock" for the first of the clients, as a server answers them."""
        (name,) = params
        seats = self._seats.setdefault(name, [])
        if method == "unlock":
            if seats:
                self._leave(name, self._first(name))
            answered({}, None)
            return
        if method == "steal" or not seats:
            self._sit_down(name, 0, _Seat(is_theft=method == "steal"))
        # The lease that another seat here has is as good: who sits where is nobody's concern.
        self._first(name).lined_up.add_done_callback(
            lambda _: answered({"locked": self._is_held(name)}, None)
        )

    def _is_held(self, name: str) -> bool:
        return any(seat.lease is not None for seat in self._seats.get(name, ()))

    def _first(self, name: str) -> _Seat:
        """The seat of the first of the clients here."""
        seats = self._seats[name]
        return next((seat for seat in seats if seat.lease is not None), seats[0])

    def _sit_down(self, name: str, number: int, seat: _Seat) -> None:
        self._seats.setdefault(name, []).insert(number, seat)
        seat.task = asyncio.get_running_loop().create_task(self._occupy(name, seat))

    def _leave(self, name: str, seat: _Seat) -> None:
        self._seats[name].remove(seat)
        # The task gives back what it holds.
        seat.lease = None
        seat.lined_up.cancel()
        seat.task.cancel()

    def queue(self, name: str) -> asyncio.Future[None]:
        """Keep a place for a client behind all others here; done once it is there."""
        seat = _Seat(is_theft=False)
        self._sit_down(name, len(self._seats.get(name, [])), seat)
        return seat.lined_up

    def dequeue(self, name: str, number: int) -> None:
        """Give up the place of the client `number`, from 0 on, of those behind the first."""
        first = self._first(name)
        others = [seat for seat in self._seats[name] if seat is not first]
        # One that came before the cluster did has none.
        for seat in others[number : number + 1]:
            self._leave(name, seat)

    def forget(self, name: str) -> None:
        """Give up all places, as nobody wants the lock any more."""
        for seat in self._seats.get(name, [])[:]:
            self._leave(name, seat)
        self._seats.pop(name, None)

    # What a seat comes to

    async def _occupy(self, name: str, seat: _Seat) -> None:
        """Stand in the line, hold the lease, and again when it is lost, until cancelled."""
        while True:
            seat.lease = lease = await self._obtain(name, seat)
            seat.note_lined_up()
            self.lock_holder.source_says(self, "locked", name)
            try:
                await _keep(lease)
            except asyncio.CancelledError:
                await lease.release()
                raise
            if lease.was_stolen and not seat.is_theft:
                await self._line_up_in_front(name, seat)
            seat.is_theft = False
            self._tell_lost(name, seat)

    async def _line_up_in_front(self, name: str, seat: _Seat) -> None:
        """Have a client that was robbed be the next, before anybody is told of it.

        If that takes longer than a lock may outlive its server, others may come before it.
        """
        seat.in_front = True
        with contextlib.suppress(LogError, TimeoutError):
            async with asyncio.timeout(TTL_MSEC / 1000):
                seat.place = await self._log.line_up(name, TTL_MSEC, in_front=True)

    async def _obtain(self, name: str, seat: _Seat) -> TimedLease:
        while True:
            try:
                if seat.is_theft:
                    return await self._log.seize(name, TTL_MSEC)
                place, seat.place = seat.place, None
                if place is None:
                    place = await self._log.line_up(name, TTL_MSEC, in_front=seat.in_front)
                return await self._come_first(place, seat)
            except LogError as error:
                # The server itself says that the engine is away.
                _LOG.debug("%s: the lock %s: %s", self.name, name, error)
            seat.note_lined_up()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _come_first(self, place: Place, seat: _Seat) -> TimedLease:
        """The lease of `place`. Raises LeaseLost if the place is lost."""
        try:
            while place.lease is None:
                seat.note_lined_up()
                try:
                    await self._log.come_first(place)
                except LeaseLost:
                    raise
                except LogError:
                    await asyncio.sleep(_PAUSE_SECONDS)
        except asyncio.CancelledError:
            with contextlib.suppress(LogError):  # it goes when its time is over
                await place.leave()
            raise
        return place.lease

    def _tell_lost(self, name: str, seat: _Seat) -> None:
        if seat.lease is not None:
            seat.lease = None
            self.lock_holder.source_says(self, "stolen", name)
            # Another seat here may have got the lease since, and was told that it is held already.
            if self._is_held(name):
                self.lock_holder.source_says(self, "locked", name)

    # For transactions that assert locks

    def guards(self, names: Iterable[str]) -> list[Lease]:
        """The leases of the locks `names`. Raises LeaseLost if one is not held."""
        leases: list[Lease] = []
        for name in names:
            lease = self._first(name).lease if self._seats.get(name) else None
            if lease is None or not lease.is_held:
                raise LeaseLost(f"the lock {name} is lost")
            leases.append(lease)
        return leases

    async def check(self, names: Iterable[str]) -> None:
        """Tell of those of the locks `names` that are lost."""
        for name in names:
            seat = self._first(name) if self._seats.get(name) else None
            if seat is None or seat.lease is None:
                continue
            lease = seat.lease
            try:
                await lease.renew()
            except LogError:
                # Not to be acted upon, even if it is only that nobody can tell.
                self._tell_lost(name, seat)
                await lease.release()

    async def close(self) -> None:
        """Give all locks back."""
        tasks = [seat.task for seats in self._seats.values() for seat in seats]
        for name in list(self._seats):
            self.forget(name)
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep(lease: Lease) -> None:
    """Renew `lease` until it is lost."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TTL_MSEC / 1000 / RENEWALS_PER_TTL):
                await lease.lost()
                return
        with contextlib.suppress(LogError):  # it is lost when its time is over, if not before
            await lease.renew()
