"""The database of a running server, of any kind: its schema, and one consistent dump of its rows.

The dump is the first answer of a monitor (ovsdb-server(7), section 4.1.12), which is the database
at one moment. Only what is stored is asked for: ephemeral columns are the server's, and gone when
it ends. Of several servers, the members of a cluster, the one that leads is asked.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ovncp.follow.link import Connect
from ovncp.ops.client import Client
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.place import Place
from ovncp.ops.db.state import State
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.replica import parse_dump
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.transaction import Transaction

_SERVER = "_Server"
_ROWS_AT_ONCE = 1000
_CONNECT_S = 3.0
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Standing:
    """How a server stands to a database: `index` is 0 where there is none."""

    is_connected: bool = True
    is_leader: bool = True
    index: int = 0


@dataclass(frozen=True)
class Session:
    """A connection to a server that has the database `name`, and shows `_Server` if it is able."""

    client: Client
    remote: str
    name: str
    shows_itself: bool

    async def standing(self) -> Standing:
        """How the server stands now; what it had to tell before comes before that.

        Raises Refusal.
        """
        if not self.shows_itself:
            return Standing()
        select = {
            "op": "select",
            "table": "Database",
            "where": [["name", "==", self.name]],
            "columns": ["connected", "leader", "index"],
        }
        [result] = await self.client.transact(_SERVER, [select])
        for row in result["rows"]:
            index = row["index"]
            return Standing(row["connected"], row["leader"], index if type(index) is int else 0)
        return Standing()

    async def schema(self) -> DatabaseSchema:
        """The schema. Raises Refusal, OvsdbError."""
        return DatabaseSchema.from_json(await self.client.call("get_schema", [self.name]))


@asynccontextmanager
async def sessions(
    place: Place, connect: Callable[[str], Connect], patience_s: float = _PATIENCE_S
) -> AsyncIterator[list[Session]]:
    """Sessions with those of the servers at `place` that answer within so many seconds.

    Raises Refusal, OSError.
    """
    clients = {remote: Client(connect(remote)) for remote in place.location.split(",")}
    opening = [_open(clients[remote], remote, place, patience_s) for remote in clients]
    tried = await asyncio.gather(*opening, return_exceptions=True)
    found = [each for each in tried if isinstance(each, Session)]
    problems = [each for each in tried if isinstance(each, BaseException)]
    try:
        for problem in problems:
            if not isinstance(problem, Refusal | OSError) or len(tried) == 1:
                raise problem
        if not found:
            raise Refusal(f"{place.name}: {'; '.join(map(str, problems))}")
        yield found
    finally:
        for session in found:
            session.client.close()


async def _open(client: Client, remote: str, place: Place, patience_s: float) -> Session:
    try:
        async with asyncio.timeout(_CONNECT_S):
            await client.open()
        async with asyncio.timeout(patience_s):
            return await _session(client, remote, place)
    except TimeoutError as error:
        client.close()
        raise Refusal(f"{remote}: no answer") from error
    except BaseException:
        client.close()
        raise


async def _session(client: Client, remote: str, place: Place) -> Session:
    databases: list[str] = await client.call("list_dbs", [])
    return Session(client, remote, _chosen(place, databases), _SERVER in databases)


def _chosen(place: Place, databases: list[str]) -> str:
    own = [name for name in databases if name != _SERVER]
    if place.database in own or (not place.database and len(own) == 1):
        return place.database or own[0]
    problem = f"there is no {place.database}" if place.database else "?db=NAME is missing"
    raise Refusal(f"{place.name}: {problem}; the server has: {', '.join(sorted(own)) or 'none'}")


async def best(
    found: list[Session], place: Place, *, cut_off: bool = False
) -> tuple[Session, Standing]:
    """The one of `found` that leads, or else one that is connected. Raises Refusal.

    One that is cut off from its cluster is refused, as what it has may be old, unless `cut_off`.
    """
    known = [(session, await session.standing()) for session in found]
    session, standing = max(known, key=lambda each: (each[1].is_connected, each[1].is_leader))
    if not standing.is_connected and not cut_off:
        raise Refusal(f"{place.name}: the server is cut off from where {session.name} is stored")
    return session, standing


async def fetch(place: Place, caller: Caller, *, cut_off: bool = False) -> State:
    """The state of the database at `place`; its index is 0 where there is none.

    Raises Refusal, OSError and OvsdbError.
    """
    async with sessions(place, caller.connect) as found:
        session, standing = await best(found, place, cut_off=cut_off)
        schema = await session.schema()
        caller.progress(f"{place.name}: asked for all rows")
        dump = await session.client.call("monitor_cond", [session.name, None, everything(schema)])
    database = database_of(dump, schema, place, caller)
    return State(database, standing.index, caller.now_msec())


async def fetch_schema(place: Place, connect: Callable[[str], Connect]) -> DatabaseSchema:
    """The schema of the database at `place`. Raises Refusal, OSError and OvsdbError."""
    async with sessions(place, connect) as found:
        return await found[0].schema()


def everything(schema: DatabaseSchema) -> dict[str, Any]:
    """The `<monitor-cond-requests>` for all columns that are stored."""
    return {
        table.name: [
            {
                "columns": [
                    column.name
                    for column in table.columns.values()
                    if column.persistent and not column.name.startswith("_")
                ]
            }
        ]
        for table in schema.tables.values()
    }


def database_of(dump: Any, schema: DatabaseSchema, place: Place, caller: Caller) -> Database:
    """The database that the `<table-updates2>` object `dump` of a server at `place` is.

    Raises Refusal, OvsdbError.
    """
    database = Database(schema, caller.new_uuid)
    transaction, n_rows = Transaction(), 0
    for items in parse_dump(dump, database.tables, _ROWS_AT_ONCE):
        for table, uuid, datums in items:
            assert datums is not None, "a dump has rows to insert alone"
            transaction.insert(table, table.make_row(uuid, datums, database.new_version()), datums)
        n_rows += len(items)
        caller.progress(f"{place.name}: {n_rows:,} rows read")
    for _ in database.fill(transaction):
        pass
    if sum(len(table.rows) for table in database.tables.values()) != n_rows:
        raise Refusal(
            f"{place.name}: the server has rows that nothing refers to, against its schema"
        )
    return database
