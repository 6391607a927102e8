"""The database of a running server, of any kind: its schema, and one consistent dump of its rows.

The dump is the first answer of a monitor (ovsdb-server(7), section 4.1.12), which is the database
at one moment. Only what is stored is asked for: ephemeral columns are the server's, and gone when
it ends.
"""

from typing import Any

from ovncp.ops.db.caller import Caller
from ovncp.ops.db.place import Place
from ovncp.ops.db.state import State
from ovncp.ops.refusal import Refusal
from ovncp.ops.simulate.client import Client
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.replica import parse_dump
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.transaction import Transaction

_SERVER = "_Server"
_ROWS_AT_ONCE = 1000


async def fetch(place: Place, caller: Caller, *, cut_off: bool = False) -> State:
    """The state of the database at `place`, which has no index.

    Raises Refusal, OSError and OvsdbError.
    """
    client = Client(caller.connect(place.location))
    await client.open()
    try:
        databases: list[str] = await client.call("list_dbs", [])
        name = _chosen(place, databases)
        index = 0
        if _SERVER in databases:
            index = await _index(client, place, name, cut_off)
        schema = DatabaseSchema.from_json(await client.call("get_schema", [name]))
        caller.progress(f"{place.name}: asked for all rows")
        dump = await client.call("monitor_cond", [name, None, _everything(schema)])
    finally:
        client.close()
    return State(_database(place, schema, dump, caller), index, caller.now_msec())


def _chosen(place: Place, databases: list[str]) -> str:
    own = [name for name in databases if name != _SERVER]
    if place.database in own or (not place.database and len(own) == 1):
        return place.database or own[0]
    problem = f"there is no {place.database}" if place.database else "?db=NAME is missing"
    raise Refusal(f"{place.name}: {problem}; the server has: {', '.join(sorted(own)) or 'none'}")


async def _index(client: Client, place: Place, name: str, cut_off: bool) -> int:
    """The index that the server is at, 0 if it has none.

    Refuses a server that is cut off from its cluster, as what it has may be old, unless `cut_off`.
    """
    select = {
        "op": "select",
        "table": "Database",
        "where": [["name", "==", name]],
        "columns": ["connected", "index"],
    }
    [result] = await client.transact(_SERVER, [select])
    for row in result["rows"]:
        if not row["connected"] and not cut_off:
            raise Refusal(f"{place.name}: the server is cut off from where {name} is stored")
        if type(row["index"]) is int:
            return row["index"]
    return 0


def _everything(schema: DatabaseSchema) -> dict[str, Any]:
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


def _database(place: Place, schema: DatabaseSchema, dump: Any, caller: Caller) -> Database:
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
