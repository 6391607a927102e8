"""Between a database and its log as a whole: reading it at the start, writing all of it.

Either takes long for a large database, and is done in slices, with a breath for others in between.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import orjson

from ovncp.log.base import Entry, Log, Snapshot
from ovncp.log.engine import EngineLog
from ovncp.ovsdb import conversion, snapshot_entry
from ovncp.ovsdb.database import Database, Settings
from ovncp.ovsdb.entry import NextId, next_id
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.history import History
from ovncp.ovsdb.replay import Inapplicable, insert_rows
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.transaction import Transaction
from ovncp.ovsdb.window import Restoration, Window
from ovncp.wire.json_stream import JsonError, parse

_LOG = logging.getLogger("ovncp.ovsdb_server")

_ENTRIES_PER_SLICE = 100
_SHORT_BYTES = 1 << 16  # of a first entry that takes no time

T = TypeVar("T")

Read = Callable[[int], AsyncIterator[list[Entry]]]
"""Gives the entries from an index on, as `Log.read`."""


class Moment:
    """The whole content of a database as it is now, to be written out while it changes.

    `index` is that of the last entry of the log that it includes.
    """

    def __init__(self, database: Database, index: int, date_msec: int) -> None:
        self.index = index
        self._date_msec = date_msec
        self._is_diff = database.settings.stores_differences
        self._content = snapshot_entry.rows_of(database.tables.values())
        self._window = Window(database.history, database.stored_id)

    def data(self, comment: str) -> AsyncIterator[bytes]:
        """The JSON text of the snapshot, in pieces."""
        pieces = snapshot_entry.encode(self._content, comment, self._date_msec, self._is_diff)
        return _in_slices(pieces)

    def history(self) -> AsyncIterator[bytes]:
        """The text of the history up to here, in pieces."""
        return _in_slices(self._window.encode())


async def _in_slices(steps: Iterator[T]) -> AsyncIterator[T]:
    for step in steps:
        yield step
        await asyncio.sleep(0)


async def _do(steps: Iterator[None]) -> None:
    async for _ in _in_slices(steps):
        pass


async def open_database(
    log: Log,
    new_uuid: Callable[[], str],
    settings: Settings,
    read: Read | None = None,
) -> tuple[Database, int]:
    """The database that `log` holds, and the index of its last entry. Raises LogError, OvsdbError.

    `read` gives its entries in place of `log`, perhaps not all of them.

    As on the C server, what the database cannot read ends the log, and a transaction that breaks a
    rule of the schema is passed over. Either is a warning, and what it was is kept.
    """
    snapshot = await log.snapshot()
    schema = DatabaseSchema.from_json(parse_entry(snapshot.schema))
    start_id = _start_id(schema)
    if isinstance(log, EngineLog):
        schema.persist()
    database = Database(schema, new_uuid, settings, start_id)
    index = await _Opening(log, database, read or log.read).run(snapshot)
    database.history.note_start()
    return database, index


def _start_id(schema: DatabaseSchema) -> str:
    """The transaction id of an empty database."""
    return next_id("", orjson.dumps(schema.to_json()))


class _Opening:
    """The reading of a log into an empty database."""

    def __init__(self, log: Log, database: Database, read: Read) -> None:
        self._log = log
        self._read = read
        self._database = database
        self._apply = self._fill

    async def run(self, snapshot: Snapshot) -> int:
        """Read all; the index of the last entry that could be read."""
        index = snapshot.index
        if snapshot.data:
            if not await self._take(Entry(index, snapshot.data)):
                return index - 1
            if snapshot.history:
                await restore_history(snapshot.history, self._database)
        async for batch in self._read(index + 1):
            for place, item in enumerate(batch):
                if not await self._take(item):
                    return index
                index = item.index
                if place % _ENTRIES_PER_SLICE == 0:
                    await asyncio.sleep(0)
        return index

    async def _take(self, item: Entry) -> bool:
        """Apply an entry; false if that is the end."""
        try:
            await self._apply(item.data)
        except Inapplicable as error:
            where = await self._log.leave_out(item.index)
            _LOG.warning("%s: left out (%s)", where, error)
        except OvsdbError as error:
            _LOG.warning("%s", error)
            await self._log.disown(item.index)
            return False
        return True

    async def _fill(self, data: bytes) -> None:
        """Apply the first entry, which may be a snapshot: long, and of rows to insert alone."""
        if len(data) <= _SHORT_BYTES:
            # A client may know the state before it.
            await self._replay(data)
            self._apply = self._replay
            return
        database = self._database
        transaction = Transaction()
        try:
            async for piece in _in_slices(snapshot_entry.decode(data)):
                insert_rows(transaction, database.tables, piece, database.new_version)
        except (ValueError, OvsdbError):
            transaction.abort()
            await self._replay(data)
        else:
            await _do(database.fill(transaction))
            transaction_id = next_id(database.stored_id, data)
            database.resume(History(database.settings.history_bytes, transaction_id))
        self._apply = self._replay

    async def _replay(self, data: bytes) -> None:
        self._database.replay(parse_entry(data), data)


async def restore_history(text: bytes, database: Database) -> None:
    """Have the history, and with it the transaction id, that belong to what `database` holds."""
    max_bytes = database.settings.history_bytes
    try:
        restoration = Restoration(
            text, database.tables, max_bytes, database.new_version, parse_entry
        )
        await _do(restoration.steps())
    except (ValueError, OvsdbError) as error:
        _LOG.info("%s: clients cannot resume from before now (%s)", database.name, error)
    else:
        database.resume(restoration.history)


async def convert(
    database: Database, schema: DatabaseSchema, log: Log, index: int, date_msec: int
) -> Database:
    """`database` with another schema and the data that fit, stored in `log` at `index`.

    Nothing executes meanwhile. Raises OvsdbError or LogError, and then nothing has changed.
    """
    converted = Database(schema, database.new_uuid, database.settings)
    content = snapshot_entry.rows_of(database.tables.values())
    transaction = Transaction()
    steps = conversion.convert(content, converted.tables, transaction, converted.new_version)
    await _do(steps)
    await _do(converted.fill(transaction))
    data = Moment(converted, index, date_msec).data("converted by ovsdb-server")
    # The id that it has when the log is read again: what clients know of the old schema is past.
    stored_id = NextId(_start_id(schema))
    await log.convert(index, orjson.dumps(schema.to_json()), _told_of(data, stored_id.take))
    converted.resume(History(database.settings.history_bytes, stored_id.id()))
    return converted


async def _told_of(
    pieces: AsyncIterator[bytes], tell: Callable[[bytes], None]
) -> AsyncIterator[bytes]:
    async for piece in pieces:
        tell(piece)
        yield piece


def parse_entry(data: bytes) -> Any:
    """The JSON of an entry, or of a schema. Raises OvsdbError."""
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
