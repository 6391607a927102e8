"""Connections to PostgreSQL, version 15 and on; the one module with its driver, asyncpg.

A `Line` is one connection, opened when it is first needed and again after it was lost.  Of several
hosts the one is taken that accepts writes.

A statement that fails with `Refused` had no effect; with `Unanswered` it may have had, or have it
yet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import asyncpg

from ovncp.log.engine import EngineError, Unanswered, pause
from ovncp.log.location import COMMON, Location
from ovncp.log.postgres_schema import MIGRATIONS

T = TypeVar("T")

PARAMETERS = ("sslcert", "sslkey", "sslmode", "sslrootcert", "timeout_ms")
"""Parameters of a location beside the common ones: for TLS as libpq has them, and how long an
operation is tried."""

DEFAULT_TIMEOUT_MS = 8000

Connection: TypeAlias = Any  # As the driver comes without types.
Use = Callable[[Connection], Awaitable[T]]

_CHANNEL = "ovncp"
_FIRST_ATTEMPT_S = 1.0
_PING_S = 5.0
_MIGRATION_LOCK = 0x6F766E6370  # "ovncp"
_LATEST = max(MIGRATIONS)
# A statement whose client is gone must not hold its locks for long. All statements go by a key, in
# its order, which the planner would not always see in tables that it has no statistics of yet.
_SETTINGS = {
    "application_name": "ovncp",
    "default_transaction_isolation": "read committed",
    "enable_bitmapscan": "off",
    "enable_seqscan": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "idle_in_transaction_session_timeout": "15s",
    "lock_timeout": "5s",
    "statement_timeout": "60s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
# SQLSTATEs, or classes of them, of a server that is going, coming, standby or busy.
_TRANSIENT = ("08", "25006", "40", "53300", "55P03", "57")


class Refused(EngineError):
    """PostgreSQL answered that it will not do it."""


class Line:
    """One connection and its one user at a time; belongs to the running event loop."""

    def __init__(self, location: Location):
        """Connects when first asked.  Raises LogError if `location` makes no sense."""
        self._timeout_s = location.milliseconds("timeout_ms", DEFAULT_TIMEOUT_MS) / 1000
        parameters = {
            name: value
            for name, value in location.parameters.items()
            if name not in (*COMMON, "timeout_ms")
        }
        self._urls = [
            replace(location, hosts=(host,), parameters=parameters).url() for host in location.hosts
        ]
        self._hosts = location.hosts
        self._current = 0
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None

    @property
    def host(self) -> str:
        """Which of the hosts is asked."""
        return self._hosts[self._current]

    async def ask(self, use: Use[T]) -> T:
        """What `use` makes of the connection; tried until it is answered.

        So it may be done twice, unless its statements see to that.  Raises EngineError.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        attempt = 0
        while True:
            try:
                return await self.ask_once(use, attempt)
            except Unanswered:
                if not await pause(attempt, deadline):
                    raise
            attempt += 1

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """The rows that `statement` returns; as `ask`."""
        rows: list[Any] = await self.ask(lambda connection: connection.fetch(statement, *arguments))
        return rows

    async def ask_once(self, use: Use[T], attempt: int) -> T:
        """As `ask`, tried once; each further `attempt` from 0 on is given more time."""
        patience_s = min(_FIRST_ATTEMPT_S * 2**attempt, self._timeout_s)
        async with self._turn:
            with self._errors():
                async with asyncio.timeout(patience_s):
                    return await use(await self._connected())

    async def listen(self) -> AsyncGenerator[list[str], None]:
        """What `notify` is called with from now on, by anybody: nothing at first.

        The connection is used for nothing else.  Raises EngineError when it is lost.
        """
        heard: list[str] = []
        woken = asyncio.Event()

        def hear(_connection: Connection, _pid: int, _channel: str, payload: str) -> None:
            heard.append(payload)
            woken.set()

        with self._errors():
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connected()
                await connection.add_listener(_CHANNEL, hear)
            connection.add_termination_listener(lambda _: woken.set())
            while True:
                # Before it is given out, as more may come, or the connection may end, meanwhile.
                news = heard.copy()
                heard.clear()
                woken.clear()
                yield news
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PING_S):
                        await woken.wait()
                if not heard:
                    async with asyncio.timeout(self._timeout_s):
                        await connection.execute("SELECT 1")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            # Whatever state the connection is in, another one is in none.
            self.drop()
            if not isinstance(error, _DRIVER_ERRORS):
                raise
            translated = _translated(error, self._hosts[self._current])
            if isinstance(translated, Unanswered):
                self._current = (self._current + 1) % len(self._hosts)
            raise translated from error

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._urls[self._current],
                server_settings=_SETTINGS,
                target_session_attrs="read-write",
                timeout=self._timeout_s,
            )
            await _demand_durability(self._connection)
        return self._connection

    def drop(self) -> None:
        """Drop the connection, as it is."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


# An internal error is what asyncpg makes of a connection that ended at a bad moment.
_DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


def _translated(error: BaseException, host: str) -> EngineError:
    state = getattr(error, "sqlstate", None)
    words = f"{host}: {error or type(error).__name__}"
    if isinstance(error, asyncpg.PostgresError) and not str(state).startswith(_TRANSIENT):
        return Refused(words)
    if isinstance(error, TimeoutError):
        words = f"{host}: no answer in time"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        words = f"{host}: takes no writes, as a standby"
    return Unanswered(words)


async def _demand_durability(connection: Connection) -> None:
    """See to it that a commit is on the disk, and at the synchronous standbys, when it returns."""
    settings = await connection.fetchrow(
        "SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit"
    )
    if settings["fsync"] != "on":
        raise Refused("PostgreSQL runs with fsync=off, so that a crash would lose what it stored")
    if settings["commit"] in ("off", "local"):
        await connection.execute("SET synchronous_commit = on")


async def migrate(connection: Connection) -> None:
    """Make the tables what they are today.  Raises EngineError if they are not ours to change."""
    if await _version(connection) < _LATEST:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
            await connection.execute("CREATE SCHEMA IF NOT EXISTS ovncp")
            # Somebody else may have been faster.
            present = await _version(connection)
            for version, statements in MIGRATIONS.items():
                if version > present:
                    await connection.execute(statements)
                    await connection.execute(
                        "INSERT INTO ovncp.migration (version) VALUES ($1)", version
                    )


async def _version(connection: Connection) -> int:
    """The version of the tables, 0 if there are none.  Raises EngineError if it is not known."""
    if await connection.fetchval("SELECT to_regclass('ovncp.migration')") is None:
        return 0
    version = int(await connection.fetchval("SELECT max(version) FROM ovncp.migration"))
    if version > _LATEST:
        raise Refused(f"the tables are of version {version}, made by a later version of ovncp")
    if version < min(MIGRATIONS):
        raise Refused(
            f"the tables are of version {version}, made before the first release of ovncp: "
            "export their databases with the ovncp that made them, then DROP SCHEMA ovncp CASCADE"
        )
    return version
