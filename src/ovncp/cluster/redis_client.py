"""Connections to Redis 7 and on, single, Sentinel or Cluster; the one module with its driver.

A command that fails for want of Redis raises `Unavailable`, at once while the breaker is open.  The
driver retries nothing by itself: a connection that Redis has closed is replaced here, at once, and
a member of a cluster that is gone or moving is asked for again a moment later.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from redis.asyncio import (
    Connection,
    ConnectionPool,
    Redis,
    RedisCluster,
    Sentinel,
    SSLConnection,
)
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ovncp.cluster.base import Unavailable
from ovncp.cluster.breaker import Breaker, BreakerOpen
from ovncp.cluster.redis_scripts import Script
from ovncp.cluster.settings import RedisSettings

_logger = logging.getLogger("ovncp.cluster.redis")

Client: TypeAlias = Redis | RedisCluster
Argument: TypeAlias = str | bytes | int

_AGAIN_S = 0.05
# What passes by itself: the members of a cluster, or the sentinels, have not agreed yet.
_PASSING = (
    RedisConnectionError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
)
_FAILURES = (*_PASSING, RedisTimeoutError, TimeoutError, OutOfMemoryError, OSError)


def _options(settings: RedisSettings, read_timeout_s: float | None) -> dict[str, Any]:
    """What every kind of client is given."""
    options: dict[str, Any] = {
        "username": settings.username,
        "password": settings.password,
        "socket_connect_timeout": settings.dial_timeout_s,
        "socket_timeout": read_timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "client_name": "ovncp",
    }
    if settings.tls:
        files = {"ca_certs": settings.ca, "certfile": settings.cert, "keyfile": settings.key}
        options |= {f"ssl_{name}": file for name, file in files.items() if file}
    return options


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _cluster(settings: RedisSettings, options: dict[str, Any], n_connections: int) -> Client:
    nodes = [ClusterNode(*_host_port(address)) for address in settings.addresses]
    return RedisCluster(
        startup_nodes=nodes,
        # A slot that has moved is noted; to ask for all anew would break what is under way.
        reinitialize_steps=0,
        max_connections=n_connections,
        ssl=settings.tls,
        **options,
    )


def _by_sentinels(settings: RedisSettings, options: dict[str, Any], n_connections: int) -> Client:
    assert settings.sentinel_master is not None
    their_options = options | {"password": settings.sentinel_password, "username": None}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        list(map(_host_port, settings.addresses)),
        sentinel_kwargs=their_options | {"socket_timeout": settings.dial_timeout_s},
    )
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        settings.sentinel_master,
        sentinel,
        db=settings.database,
        max_connections=n_connections,
        ssl=settings.tls,
        **options,
    )
    return Redis.from_pool(pool)


def _single(settings: RedisSettings, options: dict[str, Any], n_connections: int) -> Client:
    host, port = _host_port(settings.addresses[0])
    pool = ConnectionPool(
        connection_class=SSLConnection if settings.tls else Connection,
        host=host,
        port=port,
        db=settings.database,
        max_connections=n_connections,
        **options,
    )
    return Redis.from_pool(pool)


def _client(settings: RedisSettings, read_timeout_s: float | None, n_connections: int) -> Client:
    options = _options(settings, read_timeout_s)
    if settings.cluster:
        return _cluster(settings, options, n_connections)
    if settings.sentinel_master:
        return _by_sentinels(settings, options, n_connections)
    return _single(settings, options, n_connections)


class RedisClient:
    """Commands to Redis; belongs to one event loop."""

    def __init__(self, settings: RedisSettings):
        self.breaker = Breaker("redis", _FAILURES, settings.breaker)
        self._settings = settings
        # As long as any of them may take: the driver has one time for writing and reading.
        self._patience_s = settings.write_timeout_s + settings.read_timeout_s
        self._commands = _client(settings, self._patience_s, settings.pool_size)
        self._turns = asyncio.Semaphore(settings.pool_size)
        self._limits: set[asyncio.Timeout] = set()
        # Those which wait for streams keep their connections all the time.
        self._waiting = _client(settings, None, 1000)

    @property
    def n_in_use(self) -> int:
        """How many connections commands use now, of those that they may."""
        return self._settings.pool_size - self._turns._value

    async def command(self, *arguments: Argument) -> Any:
        """The answer to a command.  Raises Unavailable."""
        async with self._turns:
            return await self._try(partial(self._ask, self._commands, self._patience_s, arguments))

    async def script(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()
    ) -> Any:
        """What a script returns.  Raises Unavailable."""
        given = len(keys), *keys, *arguments
        try:
            return await self.command("EVALSHA", script.sha, *given)
        except NoScriptError:
            return await self.command("EVAL", script.text, *given)

    async def wait(self, wait_s: float, *arguments: Argument) -> Any:
        """The answer to a command that Redis may take `wait_s` for.  Raises Unavailable."""
        if self.breaker.state != "closed":
            await self.command("PING")  # Nobody else is to wait for so long to be let in again.
        patience_s = wait_s + self._patience_s
        return await self._try(partial(self._ask, self._waiting, patience_s, arguments))

    async def close(self) -> None:
        """End all connections; what waits for an answer is Unavailable."""
        for limit in self._limits:
            limit.reschedule(asyncio.get_running_loop().time())
        await self._commands.aclose()
        await self._waiting.aclose()

    async def _ask(self, client: Client, patience_s: float, arguments: tuple[Argument, ...]) -> Any:
        async with asyncio.timeout(self._settings.dial_timeout_s + patience_s) as limit:
            self._limits.add(limit)
            try:
                # Or a cluster's client guesses where the first commands belong.
                await client.initialize()
                return await client.execute_command(*arguments)
            finally:
                self._limits.discard(limit)

    async def _try(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            with self.breaker.attempt():
                return await self._persist(ask)
        except BreakerOpen as error:
            raise Unavailable(str(error)) from error
        except _FAILURES as error:
            raise Unavailable(f"Redis: {error or type(error).__name__}") from error

    async def _persist(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        for left in range(self._settings.max_retries, -1, -1):
            try:
                return await ask()
            except _PASSING as error:
                if not left:
                    raise
                _logger.debug("asking Redis again: %s", error)
                await asyncio.sleep(_AGAIN_S * random.random())
        raise AssertionError("the last try returns or raises")
