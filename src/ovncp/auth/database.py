"""The database that has users, tenants, keys and the audit trail: PostgreSQL, or a SQLite file.

`read` and `write` run a function in a transaction: again, for a few seconds, when the server goes
away or another one takes over meanwhile; never again once a commit's outcome is not known.  Reading
goes to the replicas in turn, and to the primary while none of them answers.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, TypeVar

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ovncp.auth.errors import BadData, Conflict, DatabaseUnavailable, OutcomeUnknown
from ovncp.auth.settings import DatabaseSettings
from ovncp.cluster.breaker import Breaker, BreakerOpen

_logger = logging.getLogger("ovncp.auth.database")

T = TypeVar("T")
Use = Callable[[AsyncConnection], Awaitable[T]]

_AGAIN_S = 0.1
_PATIENCE_S = 3.0
# SQLSTATEs, or classes of them, of a server that is going, coming, standby or busy, or does not let
# us in, as while its password is changed.
_PASSING = ("08", "25006", "28", "3D000", "53300", "55P03", "57")
_ENTANGLED = "40"
_BAD_DATA = "22"


class _Again(Exception):
    """Nothing was done, and it is worth another try."""


class _Away(_Again):
    """The server cannot be used now."""


def is_away(error: BaseException) -> bool:
    """Whether the server is what cannot be used, rather than the statement."""
    if isinstance(error, DBAPIError):
        busy = "database is locked" in str(error.orig)
        return error.connection_invalidated or busy or _state(error).startswith(_PASSING)
    return isinstance(error, OSError | TimeoutError | PoolTimeoutError)


def _state(error: DBAPIError) -> str:
    """The SQLSTATE, "" if it has none."""
    return getattr(error.orig, "sqlstate", None) or ""


def _meaning(error: DBAPIError) -> Exception:
    """What it means that a server has answered so."""
    if _state(error).startswith(_ENTANGLED):
        return _Again(in_short(error))
    if isinstance(error, IntegrityError):
        return Conflict(in_short(error))
    return BadData(in_short(error)) if _state(error).startswith(_BAD_DATA) else error


class _Server:
    """One server, or the file: connections to it, and whether it is asked at all."""

    def __init__(self, name: str, url: str, settings: DatabaseSettings, *, writes: bool):
        self.breaker = Breaker(name, (_Away,))
        self.writes = writes
        if settings.sqlite_file is not None:
            self.engine = _sqlite(settings)
            # A file has one writer at a time, for whom the others here wait better than it would.
            self._turns = asyncio.Semaphore(1)
        else:
            self.engine = _postgres(url, settings, writes=writes)
            self._turns = asyncio.Semaphore(settings.max_open)

    async def run(self, use: Use[T], *, commits: bool) -> T:
        """Run `use` in a transaction.

        Raises what `use` raises, _Again, BreakerOpen, OutcomeUnknown, Conflict, BadData.
        """
        with self.breaker.attempt():
            is_committing = False
            try:
                async with self._transaction(commits=commits) as connection:
                    result = await use(connection)
                    is_committing = commits
                return result
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                if is_away(error):
                    if is_committing:
                        text = f"{self.breaker.name} went away at a commit"
                        raise OutcomeUnknown(text) from error
                    raise _Away(in_short(error)) from error
                if isinstance(error, DBAPIError):
                    raise _meaning(error) from error
                raise

    @asynccontextmanager
    async def _transaction(self, *, commits: bool) -> AsyncIterator[AsyncConnection]:
        async with (
            self._turns if commits else nullcontext(),
            self.engine.connect() as connection,
        ):
            await connection.execution_options(ovncp_commits=commits)
            async with connection.begin():
                yield connection


def in_short(error: Exception) -> str:
    """What the driver said, in a line."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return (str(cause) or type(cause).__name__).splitlines()[0]


def _postgres(url: str, settings: DatabaseSettings, *, writes: bool) -> AsyncEngine:
    return create_async_engine(
        "postgresql+asyncpg://",
        pool_size=settings.max_idle,
        max_overflow=settings.max_open - settings.max_idle,
        pool_recycle=settings.lifetime_s,
        pool_timeout=settings.timeout_s,
        pool_pre_ping=True,
        hide_parameters=True,
        # The driver reads all of the URL, lists of hosts and TLS too.
        connect_args={
            "dsn": url,
            "timeout": settings.timeout_s,
            "command_timeout": settings.timeout_s,
            "target_session_attrs": "read-write" if writes else "any",
            "server_settings": {
                "application_name": "ovncp",
                "idle_in_transaction_session_timeout": "15s",
                "lock_timeout": "5s",
            },
        },
    )


def _sqlite(settings: DatabaseSettings) -> AsyncEngine:
    file = settings.sqlite_file
    assert file is not None
    file.parent.mkdir(parents=True, exist_ok=True)
    # It has hashes of passwords: nobody else's to read.
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{file}",
        pool_size=settings.max_idle,
        max_overflow=settings.max_open - settings.max_idle,
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # The driver's own idea of transactions would begin them too late.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # One that begins with reading and then writes would fail if somebody else wrote in between.
    commits = connection.get_execution_options().get("ovncp_commits")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if commits else "BEGIN")


class Database:
    """The primary and its replicas; belongs to one event loop."""

    def __init__(self, settings: DatabaseSettings):
        self.settings = settings
        self._primary = _Server("database", settings.primary, settings, writes=True)
        self._replicas = [
            _Server(f"database replica {number}", url, settings, writes=False)
            for number, url in enumerate(settings.replicas, 1)
        ]
        self._turns = itertools.count()

    @property
    def breakers(self) -> list[Breaker]:
        """Those of each server."""
        return [server.breaker for server in (self._primary, *self._replicas)]

    @property
    def is_away(self) -> bool:
        """Whether the primary could not be reached lately."""
        return self._primary.breaker.state != "closed"

    def in_use(self) -> dict[str, int]:
        """How many connections of each server's are in use."""
        return {
            server.breaker.name: server.engine.pool.checkedout()  # type: ignore[attr-defined]
            for server in (self._primary, *self._replicas)
        }

    async def write(self, use: Use[T]) -> T:
        """Run `use` in a transaction, which is committed on return.

        Raises what `use` raises, DatabaseUnavailable, OutcomeUnknown, Conflict, BadData.
        """
        return await self._persist([self._primary], use, commits=True)

    async def read(self, use: Use[T]) -> T:
        """Run `use`, which only reads, where it sees all that was committed before.

        Raises what `use` raises, DatabaseUnavailable, BadData.
        """
        return await self._persist([self._primary], use, commits=False)

    async def read_late(self, use: Use[T]) -> T:
        """As `read`, where what it sees may be a little old."""
        n = len(self._replicas)
        start = next(self._turns)
        replicas = [self._replicas[(start + i) % n] for i in range(n)]
        return await self._persist([*replicas, self._primary], use, commits=False)

    async def ask_replicas(self, use: Use[T], patience_s: float) -> dict[str, T]:
        """What `use`, which only reads, finds at each replica that answers soon enough."""

        async def ask(replica: _Server) -> dict[str, T]:
            try:
                async with asyncio.timeout(patience_s):
                    return {replica.breaker.name: await replica.run(use, commits=False)}
            except (_Away, BreakerOpen, TimeoutError) as error:
                _logger.debug("%s does not answer: %s", replica.breaker.name, error)
                return {}

        found: dict[str, T] = {}
        for each in await asyncio.gather(*map(ask, self._replicas)):
            found |= each
        return found

    async def _persist(self, servers: list[_Server], use: Use[T], *, commits: bool) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_S
        failure: Exception | None = None
        while True:
            was_known = failure is None
            for server in servers:
                try:
                    return await server.run(use, commits=commits)
                except BreakerOpen as error:
                    failure = failure or error
                except _Again as error:
                    failure, was_known = error, False
            # Who comes while it is known to be away is told at once.
            if was_known or loop.time() > deadline:
                raise DatabaseUnavailable(f"the database is out of reach: {failure}") from failure
            _logger.info("asking the database again: %s", failure)
            await asyncio.sleep(_AGAIN_S)

    async def check(self) -> None:
        """Return if the primary answers.  Raises DatabaseUnavailable."""
        await self.read(lambda connection: connection.execute(text("SELECT 1")))

    async def close(self) -> None:
        """End all connections."""
        for server in (self._primary, *self._replicas):
            await server.engine.dispose()
