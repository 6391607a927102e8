"""Leases in PostgreSQL, and the lines for them: rows whose time runs on the server's clock."""

from __future__ import annotations

import asyncio
import secrets

from ovncp.log.base import LeaseLost
from ovncp.log.engine import Holding
from ovncp.log.place import Place
from ovncp.log.postgres_client import Line
from ovncp.log.timed_lease import TimedLease

_SOON_S = 0.01
_LAST = (1 << 63) - 1

# Unless somebody is before the place that is said last.
_TAKE = """
    WITH taken AS (
        INSERT INTO ovncp.lease (database, name, holder, token, expires)
        SELECT $1, $2, $3, 1, clock_timestamp() + make_interval(secs => $4)
        WHERE $5 OR NOT EXISTS (
            SELECT FROM ovncp.place
            WHERE database = $1 AND name = $2 AND holder <> $3 AND expires > clock_timestamp()
                AND (NOT in_front, number) < (NOT $6::boolean, $7::bigint)
        )
        ON CONFLICT (database, name) DO UPDATE
        SET holder = excluded.holder, token = lease.token + 1, expires = excluded.expires
        WHERE lease.expires <= clock_timestamp() OR lease.holder = $3 OR $5
        RETURNING token
    ), left_line AS (
        DELETE FROM ovncp.place
        WHERE database = $1 AND name = $2 AND holder = $3 AND EXISTS (SELECT FROM taken)
    )
    SELECT token FROM taken
"""
_LEFT = """
    SELECT extract(epoch FROM expires - clock_timestamp()) FROM ovncp.lease
    WHERE database = $1 AND name = $2
"""
_ENTER = """
    WITH dead AS (
        DELETE FROM ovncp.place
        WHERE database = $1 AND name = $2 AND holder <> $3 AND expires <= clock_timestamp()
    )
    INSERT INTO ovncp.place (database, name, holder, in_front, expires)
    VALUES ($1, $2, $3, $5, clock_timestamp() + make_interval(secs => $4))
    ON CONFLICT (database, name, holder) DO UPDATE SET expires = excluded.expires
"""
_STAY = """
    UPDATE ovncp.place SET expires = clock_timestamp() + make_interval(secs => $4)
    WHERE database = $1 AND name = $2 AND holder = $3 AND expires > clock_timestamp()
    RETURNING in_front, number
"""
_LEAVE = "DELETE FROM ovncp.place WHERE database = $1 AND name = $2 AND holder = $3"
_HELD = """
    SELECT name, token, holder FROM ovncp.lease
    WHERE database = $1 AND expires > clock_timestamp() ORDER BY name
"""
_RENEW = """
    UPDATE ovncp.lease SET expires = clock_timestamp() + make_interval(secs => $4)
    WHERE database = $1 AND name = $2 AND holder = $3 AND expires > clock_timestamp()
    RETURNING token
"""
_RELEASE = """
    UPDATE ovncp.lease SET expires = 'epoch'
    WHERE database = $1 AND name = $2 AND holder = $3
    RETURNING pg_notify('ovncp', json_build_array('leases', $1)::text)
"""
_TELL = "SELECT pg_notify('ovncp', json_build_array('leases', $1::text)::text)"


class PostgresLease(TimedLease):
    """A lease held as a row."""

    def __init__(
        self,
        line: Line,
        key: tuple[str, str],
        holder: str,
        token: int,
        ttl_ms: int,
        asked_at: float,
    ):
        """See `TimedLease`; `key` is the database and the name, `holder` this holder's mark."""
        super().__init__(key[1], token, ttl_ms, asked_at)
        self._line = line
        self._key = key
        self._holder = holder
        self._ttl_ms = ttl_ms

    async def _prolong(self) -> bool:
        arguments = (*self._key, self._holder, self._ttl_ms / 1000)
        return bool(await self._line.fetch(_RENEW, *arguments))

    async def _give_back(self) -> None:
        await self._line.fetch(_RELEASE, *self._key, self._holder)


class PostgresPlace(Place):
    """A place, and the way to a lease without one."""

    def __init__(self, line: Line, key: tuple[str, str], ttl_ms: int):
        """`key` is the database and the name."""
        super().__init__(key[1], ttl_ms)
        self._line = line
        self._key = key
        # Asked again after a lost answer, it finds that it holds the lease already.
        self._holder = secrets.token_hex(16)

    async def enter(self, in_front: bool) -> None:
        await self._take(False, in_front, _LAST)
        if self.lease is None:
            await self._line.fetch(_ENTER, *self._row, self._ttl_s, in_front)

    async def advance(self) -> float:
        asked_at = asyncio.get_running_loop().time()
        stays = await self._line.fetch(_STAY, *self._row, self._ttl_s)
        if stays:
            await self._take(False, stays[0]["in_front"], stays[0]["number"])
        # The answer that it has the lease may have been lost.
        elif renewed := await self._line.fetch(_RENEW, *self._row, self._ttl_s):
            self._keep(renewed[0]["token"], asked_at)
        else:
            raise LeaseLost(f"the place in the line for {self.name} is lost")
        if self.lease is not None:
            return 0.0
        # Nobody tells when a lease is over by itself.
        left = await self._line.fetch(_LEFT, *self._key)
        return min(self.renewal_s, max(float(left[0][0]), _SOON_S)) if left else _SOON_S

    async def leave(self) -> None:
        await self._line.fetch(_LEAVE, *self._row)
        await self._line.fetch(_RELEASE, *self._row)
        await self._line.fetch(_TELL, self._key[0])

    async def take(self, is_theft: bool) -> TimedLease | None:
        """The lease, if it is free and nobody waits for it; for a thief it is.  Raises LogError."""
        taken = await self._take(is_theft, False, _LAST)
        if is_theft:
            await self._line.fetch(_TELL, self._key[0])
        return taken

    @property
    def _row(self) -> tuple[str, str, str]:
        return *self._key, self._holder

    @property
    def _ttl_s(self) -> float:
        return self.ttl_ms / 1000

    async def _take(self, is_theft: bool, in_front: bool, number: int) -> TimedLease | None:
        """The lease, unless somebody holds it or is before this place."""
        asked_at = asyncio.get_running_loop().time()
        arguments = (*self._row, self._ttl_s, is_theft, in_front, number)
        taken = await self._line.fetch(_TAKE, *arguments)
        if taken:
            self._keep(taken[0]["token"], asked_at)
        return self.lease

    def _keep(self, token: int, asked_at: float) -> None:
        arguments = (self._line, self._key, self._holder, token, self.ttl_ms, asked_at)
        self.lease = PostgresLease(*arguments)


async def held(line: Line, database: str) -> list[Holding]:
    """The leases of `database` that are held.  Raises LogError."""
    rows = await line.fetch(_HELD, database)
    return [Holding(row["name"], row["token"], row["holder"]) for row in rows]
