"""Leases in etcd: a key that is bound to an etcd lease; the revision of its change is the token.

A place in the line for one is a key of its own, bound to the etcd lease that the holder's key is to
be bound to; their creation is their order.  As nobody who comes later gets in between, but in
front, it is enough to have seen once that nobody is before.

etcd 3.4 ends no lease while its leader's clock, which may be set back, is before the time that was
foreseen. It does know how much time is left; so whoever waits ends the lease of who is before.

etcd counts in whole seconds, and gives no lease less than one and a half times its election
time-out.  So a holder that dies is followed two seconds later at the earliest, at etcd's defaults.
"""

from __future__ import annotations

import asyncio

from ovncp.log.base import LeaseLost
from ovncp.log.engine import Holding
from ovncp.log.etcd_client import (
    Condition,
    EtcdClient,
    Operation,
    Value,
    delete_range,
    get,
    get_range,
    prefix_end,
    put,
    unchanged,
)
from ovncp.log.etcd_keys import Keys
from ovncp.log.place import Place
from ovncp.log.timed_lease import TimedLease


class EtcdLease(TimedLease):
    """A lease held through an etcd lease of its own."""

    def __init__(
        self,
        client: EtcdClient,
        lease: int,
        key: bytes,
        name: str,
        token: int,
        ttl_ms: int,
        asked_at: float,
    ):
        """See `TimedLease`; `lease` is etcd's id for it, `key` the key that is bound to it."""
        super().__init__(name, token, ttl_ms, asked_at)
        self._client = client
        self._lease = lease
        self._key = key

    async def _prolong(self) -> bool:
        if not await self._client.keep_alive(self._lease):
            return False
        # A thief's key is bound to another one.
        [found] = (await self._client.txn(then=[get(self._key)])).found
        return bool(found) and found[0].changed == self.token

    async def _give_back(self) -> None:
        await self._client.revoke(self._lease)


class EtcdPlace(Place):
    """A place, and the way to a lease without one."""

    def __init__(self, client: EtcdClient, keys: Keys, holder: str, name: str, ttl_ms: int):
        """`holder` is the name of the handle."""
        super().__init__(name, ttl_ms)
        self._client = client
        self._keys = keys
        self._key = keys.lease(name)
        self._holder = holder
        self._place: bytes | None = None
        # etcd's lease, and when it was last asked for or renewed.
        self._lease: int | None = None
        self._asked_at = 0.0

    async def enter(self, in_front: bool) -> None:
        lease = await self._granted()
        held, line = await self._look()
        before = [place for place in line if not in_front or self._is_in_front(place)]
        if not held and not before:
            await self._put_if([unchanged(self._key, 0)], [])
        if self.lease is None:
            self._place = self._keys.place(self.name, in_front, b"%x" % lease)
            await self._client.txn(then=[put(self._place, self._mark, lease)])

    async def advance(self) -> float:
        assert self._lease is not None and self._place is not None
        asked_at = asyncio.get_running_loop().time()
        if not await self._client.keep_alive(self._lease):
            raise LeaseLost(f"the place in the line for {self.name} is lost")
        self._asked_at = asked_at
        held, line = await self._look()
        mine = next((place for place in line if place.key == self._place), None)
        is_first = mine is not None and mine == min(line, key=self._order)
        # The answer that this place has the lease may have been lost.
        if (not held and is_first) or (held and held.data == self._mark):
            conditions = [unchanged(self._key, held.changed if held else 0)]
            await self._put_if(conditions, [delete_range(self._place, self._place + b"\0")])
        elif before := held or min(line, key=self._order, default=None):
            await self._end_if_over(_lease_of(before))
        return self.renewal_s

    async def _end_if_over(self, lease: int) -> None:
        if await self._client.time_left_s(lease) < 0:
            await self._client.revoke(lease)

    async def leave(self) -> None:
        if self._lease is not None:
            await self._client.revoke(self._lease)

    # Without a place in the line.

    async def take(self) -> TimedLease | None:
        """The lease, if it is free and nobody waits for it.  Raises LogError."""
        held, line = await self._look()
        if not held and not line:
            await self._granted()
            if await self._put_if([unchanged(self._key, 0)], []) is None:
                await self.leave()
        return self.lease

    async def steal(self) -> TimedLease | None:
        """The lease, from whoever holds it; None if that is another by then.  Raises LogError."""
        held, _ = await self._look()
        await self._granted()
        if await self._put_if([unchanged(self._key, held.changed if held else 0)], []) is None:
            await self.leave()
        elif held:
            await self._client.revoke(_lease_of(held))
        return self.lease

    @property
    def _mark(self) -> bytes:
        """What is put at the keys: unlike anybody else's."""
        return f"{self._holder} {self._lease}".encode()

    async def _granted(self) -> int:
        """etcd's lease."""
        self._asked_at = asyncio.get_running_loop().time()
        self._lease = await self._client.grant(self.ttl_ms)
        return self._lease

    async def _look(self) -> tuple[Value | None, list[Value]]:
        """Who holds the lease, and who waits."""
        prefix = self._keys.line(self.name)
        reads = [get(self._key), get_range(prefix, prefix_end(prefix))]
        held, line = (await self._client.txn(then=reads)).found
        return (held[0] if held else None), line

    def _is_in_front(self, place: Value) -> bool:
        return place.key.startswith(self._keys.place(self.name, True))

    def _order(self, place: Value) -> tuple[bool, int]:
        return not self._is_in_front(place), place.created

    async def _put_if(
        self, conditions: list[Condition], besides: list[Operation]
    ) -> TimedLease | None:
        """The lease, if these hold when it is taken."""
        assert self._lease is not None
        put_and_get = [put(self._key, self._mark, self._lease), get(self._key)]
        answer = await self._client.txn(conditions, [*besides, *put_and_get], [get(self._key)])
        [found] = answer.found
        # Asked again after a lost answer, it finds its own mark.
        if found and found[0].data == self._mark:
            self.lease = EtcdLease(
                self._client, self._lease, self._key, self.name, found[0].changed,
                self.ttl_ms, self._asked_at,
            )  # fmt: skip
        return self.lease


def _lease_of(marked: Value) -> int:
    """etcd's lease of who put its mark there."""
    return int(marked.data.split()[1])


async def held(client: EtcdClient, prefix: bytes) -> list[Holding]:
    """The leases whose keys begin with `prefix`.  Raises LogError."""
    [values] = (await client.txn(then=[get_range(prefix, prefix_end(prefix))])).found
    return [
        Holding(value.key[len(prefix) :].decode(), value.changed, value.data.split()[0].decode())
        for value in values
    ]
