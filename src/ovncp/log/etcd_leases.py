"""Leases in etcd: a key that is bound to an etcd lease; the revision of its change is the token.

etcd counts in whole seconds, and gives no lease less than one and a half times its election
time-out.  So a holder that dies is followed two seconds later at the earliest, at etcd's defaults.
"""

from __future__ import annotations

import asyncio

from ovncp.log.engine import Holding
from ovncp.log.etcd_client import EtcdClient, get, get_range, prefix_end, put, unchanged
from ovncp.log.timed_lease import TimedLease

_AT_THE_LATEST_S = 5.0


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


async def take(
    client: EtcdClient, key: bytes, holder: str, name: str, ttl_ms: int, is_theft: bool
) -> EtcdLease | float:
    """The lease at `key`, or in how many seconds to ask again if the key does not go before.

    A thief puts its own key in the place of another's.  Raises LogError.
    """
    [held] = (await client.txn(then=[get(key)])).found
    if held and not is_theft:
        return _AT_THE_LATEST_S
    asked_at = asyncio.get_running_loop().time()
    lease = await client.grant(ttl_ms)
    # Asked again after a lost answer, it finds its own key, which names the etcd lease.
    mark = f"{holder} {lease}".encode()
    as_seen = unchanged(key, held[0].changed if held else 0)
    taken = await client.txn([as_seen], [put(key, mark, lease), get(key)], [get(key)])
    [found] = taken.found
    if found and found[0].data == mark:
        if held:
            await client.revoke(int(held[0].data.split()[1]))
        return EtcdLease(client, lease, key, name, found[0].changed, ttl_ms, asked_at)
    await client.revoke(lease)
    return _AT_THE_LATEST_S


async def held(client: EtcdClient, prefix: bytes) -> list[Holding]:
    """The leases whose keys begin with `prefix`.  Raises LogError."""
    [values] = (await client.txn(then=[get_range(prefix, prefix_end(prefix))])).found
    return [
        Holding(value.key[len(prefix) :].decode(), value.changed, value.data.split()[0].decode())
        for value in values
    ]
