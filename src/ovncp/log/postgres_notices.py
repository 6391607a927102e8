"""Notices in PostgreSQL: rows that count until their time, on the server's clock, is over."""

from __future__ import annotations

from ovncp.log.postgres_client import Line

_POST = """
    INSERT INTO ovncp.notice (database, name, text, expires)
    VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
    ON CONFLICT (database, name) DO UPDATE SET text = excluded.text, expires = excluded.expires
"""
_WITHDRAW = "DELETE FROM ovncp.notice WHERE database = $1 AND name = $2"
_READ = """
    SELECT name, text FROM ovncp.notice
    WHERE database = $1 AND expires > clock_timestamp() ORDER BY name
"""
_SWEEP = "DELETE FROM ovncp.notice WHERE database = $1 AND expires <= clock_timestamp()"


class PostgresNotices:
    """The notices of one database."""

    def __init__(self, line: Line, database: str):
        self._line = line
        self._database = database

    async def post(self, name: str, text: bytes, ttl_ms: int) -> None:
        """See `EngineLog.post`."""
        await self._line.fetch(_POST, self._database, name, text, ttl_ms / 1000)

    async def withdraw(self, name: str) -> None:
        """See `EngineLog.withdraw`."""
        await self._line.fetch(_WITHDRAW, self._database, name)

    async def read(self) -> dict[str, bytes]:
        """See `EngineLog.notices`."""
        rows = await self._line.fetch(_READ, self._database)
        return {row["name"]: row["text"] for row in rows}

    async def sweep(self) -> None:
        """Delete those whose time is over.  Raises LogError."""
        await self._line.fetch(_SWEEP, self._database)
