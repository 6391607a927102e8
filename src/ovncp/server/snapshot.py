"""Between a database and its log as a whole: reading it at the start, writing a snapshot of it.

A snapshot is written in slices, with a breath for others between them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

import orjson

from ovncp.log.base import Log
from ovncp.ovsdb import entry
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.schema import DatabaseSchema

_ROWS_PER_SLICE = 200


class Moment:
    """The whole content of a database as it is now, to be written out while it changes.

    Rows never change in place, so that holding on to their values is enough.
    """

    def __init__(self, database: Database, index: int, date_msec: int) -> None:
        self.index = index
        self._date_msec = date_msec
        self._transaction_id = database.transaction_id
        self._tables = [
            (table, [(row.uuid, row.values) for row in table.rows.values()])
            for table in database.tables.values()
            if table.rows
        ]

    async def text(self) -> bytes:
        """The JSON text of the snapshot as a whole."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """The JSON text of the snapshot in pieces, with a breath for others between them."""
        yield b"{"
        for table, rows in self._tables:
            separator = b'"%b":{' % table.name.encode()
            for start in range(0, len(rows), _ROWS_PER_SLICE):
                yield separator + entry.encode_rows(table, rows[start : start + _ROWS_PER_SLICE])
                separator = b","
                await asyncio.sleep(0)
            yield b"},"
        comment = entry.snapshot_comment(self._transaction_id)
        yield entry.snapshot_tail(comment, self._date_msec)


async def open_database(
    log: Log,
    new_uuid: Callable[[], str],
    history_bytes: int,
) -> Database:
    """The database that `log` holds. Raises LogError and OvsdbError."""
    snapshot = await log.snapshot()
    schema = DatabaseSchema.from_json(orjson.loads(snapshot.schema))
    start_id = entry.next_id("", orjson.dumps(schema.to_json()))
    database = Database(schema, new_uuid, history_bytes, start_id)
    if snapshot.data:
        _replay(database, (snapshot.data,))
    async for batch in log.read(snapshot.index + 1):
        _replay(database, (item.data for item in batch))
    return database


def _replay(database: Database, entries: Iterable[bytes]) -> None:
    for data in entries:
        database.replay(orjson.loads(data), data)
