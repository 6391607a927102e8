"""What PostgreSQL says of itself: the primary, and the standbys that are fed from it."""

from __future__ import annotations

from ovncp.log.engine_status import EngineMember, EngineStatus
from ovncp.log.postgres_client import Line

# The first eight digits of the name of a file of the write-ahead log are the timeline, which is a
# new one after each promotion.
_PRIMARY = """
    SELECT current_setting('server_version') AS version,
        pg_database_size(current_database()) AS size,
        left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline
"""
_STANDBYS = """
    SELECT application_name AS name, coalesce(host(client_addr), 'local') AS address,
        coalesce(sync_state, 'hidden') AS sync, coalesce(state, 'hidden') AS state
    FROM pg_stat_replication ORDER BY application_name
"""
_STREAMING = ("streaming", "hidden")


async def read_status(line: Line) -> EngineStatus:
    """See `EngineLog.status`."""
    [primary] = await line.fetch(_PRIMARY)
    size, version = primary["size"], primary["version"].split()[0]
    members = [EngineMember("primary", line.host, "leader", version, size, size)]
    for standby in await line.fetch(_STANDBYS):
        state, role = standby["state"], f"standby ({standby['sync']})"
        problem = "" if state in _STREAMING else state
        members.append(EngineMember(standby["name"], standby["address"], role, problem=problem))
    return EngineStatus("PostgreSQL", version, int(primary["timeline"], 16), tuple(members))
