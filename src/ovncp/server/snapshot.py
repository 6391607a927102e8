"""Between a database and its log as a whole: reading it at the start, writing a snapshot of it.

A snapshot is written in slices, with a breath for others between them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import orjson

from ovncp.log.base import Log
from ovncp.ovsdb import entry
from ovncp.ovsdb.database import Database, Settings
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.wire.json_stream import JsonError, parse

_ROWS_PER_SLICE = 200


class Moment:
    """The whole content of a database as it is now, to be written out while it changes.

    Rows never change in place, so that holding on to their values is enough.
    """

    def __init__(self, database: Database, index: int, date_msec: int) -> None:
        self.index = index
        self._date_msec = date_msec
        self._transaction_id = database.stored_id
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
        comment = entry.snapshot_comment("compacting database online", self._transaction_id)
        yield entry.snapshot_tail(comment, self._date_msec)


async def open_database(
    log: Log,
    new_uuid: Callable[[], str],
    settings: Settings,
) -> Database:
    """The database that `log` holds. Raises LogError and OvsdbError."""
    snapshot = await log.snapshot()
    schema = DatabaseSchema.from_json(_parse(snapshot.schema))
    start_id = entry.next_id("", orjson.dumps(schema.to_json()))
    database = Database(schema, new_uuid, settings, start_id)
    if snapshot.data:
        _replay(database, (snapshot.data,))
    async for batch in log.read(snapshot.index + 1):
        _replay(database, (item.data for item in batch))
    return database


def _replay(database: Database, entries: Iterable[bytes]) -> None:
    for data in entries:
        database.replay(_parse(data), data)


def _parse(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _parse_as_written(data)


def _parse_as_written(data: bytes) -> Any:
    # The C server writes what orjson does not read: strings that are not UTF-8.
    try:
        return parse(data)
    except JsonError as error:
        message = f"{len(data)} bytes of the log are not valid JSON ({error})"
        raise OvsdbError("syntax error", message) from error
