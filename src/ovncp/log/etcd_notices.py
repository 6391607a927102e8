"""Notices in etcd: keys that are bound to an etcd lease each, and go when it is not renewed."""

from __future__ import annotations

import asyncio

from ovncp.log.etcd_client import EtcdClient, get_range, prefix_end, put
from ovncp.log.etcd_keys import Keys


class EtcdNotices:
    """The notices of one handle, which it renews, and those of all others, which it reads."""

    def __init__(self, client: EtcdClient, keys: Keys):
        self._client = client
        self._keys = keys
        self._leases: dict[str, int] = {}
        # One after another, lest a notice be bound to another lease than is noted here.
        self._turn = asyncio.Lock()

    async def post(self, name: str, text: bytes, ttl_ms: int) -> None:
        """See `EngineLog.post`."""
        async with self._turn:
            lease = self._leases.get(name)
            # An old lease is renewed even when etcd has no room for anything new.
            if lease is None or not await self._client.keep_alive(lease):
                lease = self._leases[name] = await self._client.grant(ttl_ms)
            await self._client.txn(then=[put(self._keys.notice(name), text, lease)])

    async def withdraw(self, name: str) -> None:
        """See `EngineLog.withdraw`."""
        async with self._turn:
            lease = self._leases.pop(name, None)
            if lease is not None:
                await self._client.revoke(lease)

    async def read(self) -> dict[str, bytes]:
        """See `EngineLog.notices`."""
        prefix = self._keys.notices
        reads = [get_range(prefix, prefix_end(prefix))]
        [found] = (await self._client.txn(then=reads)).found
        return {value.key[len(prefix) :].decode(): value.data for value in found}
