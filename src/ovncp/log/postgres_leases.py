"""Leases in PostgreSQL: rows whose time runs on the server's clock."""

from __future__ import annotations

import asyncio
import secrets

from ovncp.log.engine import Holding
from ovncp.log.postgres_client import Line
from ovncp.log.timed_lease import TimedLease

_SOON_S = 0.01

_TAKE = """
    INSERT INTO ovncp.lease (database, name, holder, token, expires)
    VALUES ($1, $2, $3, 1, clock_timestamp() + make_interval(secs => $4))
    ON CONFLICT (database, name) DO UPDATE
    SET holder = excluded.holder, token = lease.token + 1, expires = excluded.expires
    WHERE lease.expires <= clock_timestamp() OR lease.holder = $3 OR $5
    RETURNING token
"""
_LEFT = """
    SELECT extract(epoch FROM expires - clock_timestamp()) FROM ovncp.lease
    WHERE database = $1 AND name = $2
"""
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


async def take(
    line: Line, key: tuple[str, str], ttl_ms: int, is_theft: bool
) -> PostgresLease | float:
    """The lease `key`, a database and a name, or in how many seconds to ask again.

    A thief has it in any case.  Raises LogError.
    """
    # Asked again after a lost answer, it finds that it holds the lease already.
    holder = secrets.token_hex(16)
    asked_at = asyncio.get_running_loop().time()
    taken = await line.fetch(_TAKE, *key, holder, ttl_ms / 1000, is_theft)
    if taken:
        if is_theft:
            await line.fetch(_TELL, key[0])
        return PostgresLease(line, key, holder, taken[0]["token"], ttl_ms, asked_at)
    [left] = await line.fetch(_LEFT, *key)
    return max(float(left[0]), _SOON_S)


async def held(line: Line, database: str) -> list[Holding]:
    """The leases of `database` that are held.  Raises LogError."""
    rows = await line.fetch(_HELD, database)
    return [Holding(row["name"], row["token"], row["holder"]) for row in rows]
