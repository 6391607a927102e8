"""By how much replicas of PostgreSQL are behind their primary, asked of themselves."""

from __future__ import annotations

from typing import cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ovncp.auth.database import Database

_PATIENCE_S = 0.5

# The age of what was replayed last, unless that is all there is: an idle primary sends nothing.
_LAG = text("""
    SELECT CASE
        WHEN NOT pg_is_in_recovery() THEN 0.0::float
        WHEN EXISTS (SELECT FROM pg_stat_wal_receiver)
            AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0.0::float
        ELSE coalesce(
            extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float, 0.0
        )
    END
""")


async def lags_s(database: Database) -> dict[str, float]:
    """The lag of each replica that answers, by its name, in seconds."""
    return await database.ask_replicas(_lag_s, _PATIENCE_S)


async def _lag_s(connection: AsyncConnection) -> float:
    return cast(float, await connection.scalar(_LAG))
