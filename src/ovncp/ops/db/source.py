"""The newest state of a database, wherever it is."""

from ovncp.ops.db import server_dump
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.state import State, newest
from ovncp.ops.db.stored import ClusterFile, open_to_read


async def read(
    place: Place, caller: Caller, history_bytes: int = 0, last: int | None = None
) -> State:
    """The newest state at `place`. Raises Refusal, LogError, OvsdbError and OSError.

    Up to `history_bytes` of how it came about are in its database's history, where that is known.
    With `last` it is that as of this entry of a log.
    """
    if place.kind is Kind.SERVER:
        return await server_dump.fetch(place, caller)
    async with open_to_read(place) as stored:
        state = await newest(stored, caller, history_bytes, last)
        if isinstance(stored, ClusterFile):
            state.notes += stored.notes
        return state


def n_rows(state: State) -> int:
    """The number of all rows."""
    return sum(len(table.rows) for table in state.database.tables.values())
