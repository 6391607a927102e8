"""The store in Redis: which key holds what, and which script changes it.

Keys whose change is one script have a hash tag (the part in braces) in common, so that a cluster
has them on one member.  What a value is made of, `redis_scripts` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ovncp.cluster import redis_scripts as scripts
from ovncp.cluster.base import Conflict, Fenced, Grant, Item, Store, StreamId, Unavailable
from ovncp.cluster.breaker import Breaker
from ovncp.cluster.metrics import Family, family
from ovncp.cluster.redis_client import Argument, RedisClient
from ovncp.cluster.settings import RedisSettings


class RedisStore(Store):
    """One node's handle to what is in Redis."""

    def __init__(self, settings: RedisSettings):
        self._prefix = settings.prefix
        self._redis = RedisClient(settings)
        self._n_connections = settings.pool_size
        self._closed = False
        self._leases = [self._key("{lease}:held"), self._key("{lease}:until")]
        self._last_token = self._key("{lease}:token")

    @property
    def breaker(self) -> Breaker:
        """Whether Redis is asked at all."""
        return self._redis.breaker

    def families(self) -> Iterable[Family]:
        """Figures about the connections."""
        yield family(
            "ovncp_redis_connections_in_use",
            "gauge",
            "Connections to Redis that commands use now.",
            self._redis.n_in_use,
        )
        yield family(
            "ovncp_redis_connections_max",
            "gauge",
            "Connections to Redis that commands may use.",
            self._n_connections,
        )

    def _key(self, name: str) -> str:
        if self._closed:
            raise Unavailable("the store is closed")
        return self._prefix + name

    def _register(self, name: str) -> list[str]:
        return [self._key(f"{{register:{name}}}:{part}") for part in ("entries", "until")]

    def _stream(self, name: str) -> list[str]:
        return [self._key(f"{{stream:{name}}}:{part}") for part in ("items", "head")]

    async def check(self) -> None:
        self._key("")
        await self._redis.command("PING")

    async def get(self, key: str) -> bytes | None:
        value: bytes | None = await self._redis.command("GET", self._key(f"value:{key}"))
        return value

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        await self._redis.command("SET", self._key(f"value:{key}"), value, "PX", _ms(ttl_s))

    async def swap(
        self, key: str, expected: bytes | None, value: bytes | None, ttl_s: float
    ) -> bool:
        given = [part for part in (expected, value) if part is not None]
        flags = int(expected is not None), int(value is not None)
        keys = [self._key(f"value:{key}")]
        return bool(await self._redis.script(scripts.SWAP, keys, (_ms(ttl_s), *flags, *given)))

    async def count(self, amounts: Mapping[str, int], window_s: float) -> dict[str, int]:
        keys = [self._key(f"{{count}}:{key}") for key in amounts]
        if not keys:
            return {}
        sums = await self._redis.script(scripts.COUNT, keys, (_ms(window_s), *amounts.values()))
        return dict(zip(amounts, sums, strict=True))

    async def take(self, name: str, holder: str, ttl_s: float) -> Grant:
        self._key(name)
        keys = [*self._leases, self._last_token]
        return _grant(await self._redis.script(scripts.TAKE, keys, [name, holder, _ms(ttl_s)]))

    async def prolong(self, name: str, token: int, ttl_s: float) -> bool:
        self._key(name)
        arguments = name, token, _ms(ttl_s)
        return bool(await self._redis.script(scripts.PROLONG, self._leases, arguments))

    async def release(self, name: str, token: int) -> bool:
        self._key(name)
        return bool(await self._redis.script(scripts.RELEASE, self._leases, [name, token]))

    async def revoke(self, name: str) -> Grant | None:
        self._key(name)
        ended = await self._redis.script(scripts.REVOKE, self._leases, [name])
        return _grant(ended) if ended else None

    async def leases(self) -> list[Grant]:
        self._key("")
        held = await self._redis.script(scripts.LEASES, self._leases)
        return sorted(map(_grant, held), key=lambda grant: grant.name)

    async def enter(self, register: str, entries: Mapping[str, bytes], ttl_s: float) -> None:
        pairs = [part for entry in entries.items() for part in entry]
        await self._redis.script(scripts.ENTER, self._register(register), (_ms(ttl_s), *pairs))

    async def strike(self, register: str, keys: Iterable[str]) -> int:
        struck: int = await self._redis.script(scripts.STRIKE, self._register(register), list(keys))
        return struck

    async def entries(self, register: str) -> dict[str, bytes]:
        flat = await self._redis.script(scripts.ENTRIES, self._register(register))
        return {key.decode(): value for key, value in zip(flat[::2], flat[1::2], strict=True)}

    async def begin(self, stream: str, token: int, *, broken: bool = False) -> StreamId:
        arguments = [token, int(broken)]
        return self._done(
            stream, await self._redis.script(scripts.BEGIN, self._stream(stream), arguments)
        )

    async def append(
        self, stream: str, token: int, after: StreamId, items: Sequence[bytes], keep: int
    ) -> StreamId:
        arguments: Sequence[Argument] = (token, str(after), keep, *items)
        return self._done(
            stream, await self._redis.script(scripts.APPEND, self._stream(stream), arguments)
        )

    async def publish(
        self, stream: str, items: Sequence[bytes], keep: int, ttl_s: float
    ) -> StreamId:
        arguments: Sequence[Argument] = (_ms(ttl_s), keep, *items)
        return self._done(
            stream, await self._redis.script(scripts.PUBLISH, self._stream(stream), arguments)
        )

    def _done(self, stream: str, answer: list[bytes]) -> StreamId:
        outcome, last = answer
        if outcome == b"fenced":
            raise Fenced(f"the token of stream {stream} is out of date")
        if outcome == b"conflict":
            raise Conflict(_id(last))
        return _id(last)

    async def read(self, stream: str, after: StreamId, limit: int, wait_s: float) -> list[Item]:
        key = self._stream(stream)[0]
        rest = "STREAMS", key, str(after)
        if wait_s:
            asked = "XREAD", "COUNT", limit, "BLOCK", _ms(wait_s), *rest
            answer = await self._redis.wait(wait_s, *asked)
        else:
            answer = await self._redis.command("XREAD", "COUNT", limit, *rest)
        return [_item(*item) for item in answer[0][1]] if answer else []

    async def last(self, stream: str) -> StreamId:
        last = await self._redis.command("HGET", self._stream(stream)[1], "last")
        return _id(last or b"0-0")

    async def close(self) -> None:
        self._closed = True
        await self._redis.close()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _grant(answer: list[bytes]) -> Grant:
    name, holder, token, left_ms = answer
    return Grant(name.decode(), holder.decode(), int(token), int(left_ms) / 1000)


def _id(text: bytes) -> StreamId:
    return StreamId.parse(text.decode())


def _item(id: bytes, fields: Any) -> Item:
    previous, data = fields[b"p"], fields[b"d"]
    return Item(_id(id), _id(previous), data)
