"""The PostgreSQL backend: `postgresql://HOST:5432,.../DBNAME?db=NAME`.

An append is one statement: if the head's version is the one that we know, move it and insert the
entries (the tables are in `postgres_schema`).  The row of the head makes appenders wait for each
other; the primary key of the entries says once more that an index is given once.  A very large
append takes several statements in one transaction.

Followers are woken by `LISTEN`; they read what there is, so that a lost notification costs a
moment and nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ovncp.log import postgres_leases, postgres_status
from ovncp.log.base import Chunks, Corrupt, Entry, Exists, LogError, Snapshot
from ovncp.log.engine import LEASES, LOG, TURN, Change, EngineLog, Head, Holding, Page, Usage
from ovncp.log.engine_status import EngineStatus
from ovncp.log.location import Location
from ovncp.log.postgres_client import (
    DEFAULT_TIMEOUT_MS,
    PARAMETERS,
    Connection,
    Line,
    migrate,
)
from ovncp.log.postgres_notices import PostgresNotices
from ovncp.log.postgres_stage import StagedSnapshot, read_pieces, staging, sweep, switch
from ovncp.log.timed_lease import TimedLease

# PostgreSQL takes no message and no value of a gibibyte; far less is easier on its memory.
_PART_BYTES = 32 << 20
_PATIENCE_S_PER_BYTE = 1.0 / (4 << 20)
_DELETED_AT_ONCE = 10_000

_APPEND = """
    WITH head AS (
        UPDATE ovncp.head SET next_index = $3, version = version + 1
        WHERE database = $1 AND version = $2 AND NOT EXISTS (
            SELECT FROM unnest($8::text[], $9::bigint[]) AS guard (name, token)
            LEFT JOIN ovncp.lease ON lease.database = $1 AND lease.name = guard.name
                AND lease.token = guard.token AND lease.expires > clock_timestamp()
            WHERE lease.token IS NULL
        )
        RETURNING version, pg_notify('ovncp', 'log ' || $1)
    ), entries AS (
        INSERT INTO ovncp.entry (database, index, part, writer, data)
        SELECT $1, added.index, added.part, $4, added.data
        FROM head, unnest($5::bigint[], $6::integer[], $7::bytea[]) AS added (index, part, data)
    )
    SELECT version FROM head
"""
_APPEND_MORE = """
    INSERT INTO ovncp.entry (database, index, part, writer, data)
    SELECT $1, added.index, added.part, $2, added.data
    FROM unnest($3::bigint[], $4::integer[], $5::bytea[]) AS added (index, part, data)
"""
_FENCE = """
    UPDATE ovncp.head SET version = version + 1 WHERE database = $1 AND version = $2
    RETURNING next_index, version
"""
_HEAD = "SELECT next_index, version FROM ovncp.head WHERE database = $1"
_IDENTITY = "SELECT next_index, version, identity FROM ovncp.head WHERE database = $1"
_FATE = """
    SELECT next_index, version, snapshot.index AS base, snapshot.writer AS snapshot_writer,
        (SELECT writer FROM ovncp.entry WHERE database = $1 AND index = $2 AND part = 0)
    FROM ovncp.head JOIN ovncp.snapshot USING (database) WHERE database = $1
"""
_PAGE = """
    SELECT snapshot.index AS base, next_index, version, entry.index, entry.writer, entry.data
    FROM ovncp.head JOIN ovncp.snapshot USING (database)
    LEFT JOIN ovncp.entry
        ON entry.database = $1 AND entry.index >= $2 AND entry.index < $2 + $3::bigint
    WHERE head.database = $1
    ORDER BY entry.index, entry.part
"""
_SNAPSHOT = "SELECT * FROM ovncp.snapshot WHERE database = $1"
_COMPACT = """
    DELETE FROM ovncp.entry WHERE database = $1 AND index <= $2 AND index < $3 + (
        SELECT min(index) FROM ovncp.entry WHERE database = $1
    )
"""
_TABLES = ("head", "entry", "snapshot", "piece", "lease", "notice")

Part = tuple[int, int, bytes]
"""An entry's index, and the number and the bytes of one part of it."""


@dataclass(frozen=True, slots=True)
class PostgresChange(Change):
    """A change: entries, or a conversion's snapshot."""

    entries: Sequence[bytes]
    snapshot: StagedSnapshot | None


class PostgresLog(EngineLog[PostgresChange]):
    """A log in PostgreSQL."""

    def __init__(self, location: Location, line: Line, head: Head, identity: str):
        timeout_ms = location.milliseconds("timeout_ms", DEFAULT_TIMEOUT_MS)
        super().__init__(str(location), head, timeout_ms)
        self.identity = identity
        self._database = location.database
        self._appender = line
        self._reader = Line(location)
        # For what must not wait for appends or reads, nor they for it.
        self._other = Line(location)
        self._listener = Line(location)
        self._notices = PostgresNotices(self._other, location.database)

    @classmethod
    async def open(cls, location: str) -> PostgresLog:
        """Open the log at `location`.  Raises LogError, as when there is none."""
        place, line = await _connect(location)
        try:
            [row] = await line.fetch(_IDENTITY, place.database) or [None]
            return cls(place, line, _head(row, str(place)), str(row["identity"]))
        except BaseException:
            line.drop()
            raise

    @classmethod
    async def create(cls, location: str, schema: bytes, data: Chunks = b"", index: int = 0) -> None:
        """See `registry.Engine.create`."""
        place, line = await _connect(location)
        try:
            async with staging(line, place.database) as stage:
                key = (place.database, stage.name)
                n_pieces = await stage.add(data)
                if not await line.ask(
                    lambda connection: _create(connection, key, schema, n_pieces, index)
                ):
                    raise Exists(f"{place}: the database exists already")
        finally:
            line.drop()

    @classmethod
    async def drop(cls, location: str) -> None:
        """Delete the log and all that is stored of it, for good; no error if there is none."""
        place, line = await _connect(location)

        async def delete(connection: Connection) -> None:
            async with connection.transaction():
                for table in _TABLES:
                    await connection.execute(
                        f"DELETE FROM ovncp.{table} WHERE database = $1", place.database
                    )

        try:
            await line.ask(delete)
        finally:
            line.drop()

    # Appending.

    @contextlib.asynccontextmanager
    async def _batch(
        self, index: int, entries: Sequence[bytes], guards: Sequence[TimedLease]
    ) -> AsyncIterator[PostgresChange]:
        yield PostgresChange(index, index + len(entries), guards, entries, None)

    @contextlib.asynccontextmanager
    async def _conversion(
        self, index: int, schema: bytes, data: Chunks
    ) -> AsyncIterator[PostgresChange]:
        async with staging(self._other, self._database) as stage:
            n_data = await stage.add(data)
            snapshot = StagedSnapshot(stage.name, index, self.writer, n_data, schema=schema)
            yield PostgresChange(index, index + 1, (), (), snapshot)

    async def _propose(
        self, change: PostgresChange, known: Head, attempt: int
    ) -> tuple[bool, Head]:
        messages = list(_messages(change))

        async def make(connection: Connection) -> int | None:
            if len(messages) == 1 and change.snapshot is None:
                return await self._move_head(connection, change, known, messages[0])
            async with connection.transaction():
                version = await self._move_head(connection, change, known, messages[0])
                if version is not None:
                    await self._add_the_rest(connection, change, messages[1:])
                return version

        async def ask(connection: Connection) -> tuple[bool, Head]:
            version = await make(connection)
            if version is None:
                return False, await self._head_from(connection)
            return True, Head(change.next_index, version)

        more_s = sum(map(len, change.entries)) * _PATIENCE_S_PER_BYTE
        return await self._appender.ask_once(ask, attempt, more_s)

    async def _move_head(
        self, connection: Connection, change: PostgresChange, known: Head, parts: list[Part]
    ) -> int | None:
        version: int | None = await connection.fetchval(
            _APPEND,
            self._database,
            known.version,
            change.next_index,
            self.writer,
            *_columns(parts),
            [lease.name for lease in change.guards],
            [lease.token for lease in change.guards],
        )
        return version

    async def _add_the_rest(
        self, connection: Connection, change: PostgresChange, messages: list[list[Part]]
    ) -> None:
        for parts in messages:
            await connection.execute(_APPEND_MORE, self._database, self.writer, *_columns(parts))
        if change.snapshot is not None and not await switch(
            connection, self._database, change.snapshot
        ):
            raise LogError(f"{self.name}: the snapshot's pieces were deleted meanwhile")

    async def _fence(
        self, change: PostgresChange, known: Head, attempt: int
    ) -> tuple[bool | None, Head]:
        async def ask(connection: Connection) -> tuple[bool | None, Head]:
            fenced = await connection.fetchrow(_FENCE, self._database, known.version)
            if fenced is not None:
                return False, Head(fenced["next_index"], fenced["version"])
            found = await connection.fetchrow(_FATE, self._database, change.index)
            return self._fate(change, _found(found, self.name))

        return await self._appender.ask_once(ask, attempt)

    def _fate(self, change: PostgresChange, found: Any) -> tuple[bool | None, Head]:
        head = Head(found["next_index"], found["version"])
        if head.next_index == change.index:
            return False, head
        if change.snapshot is None:
            made = found["writer"] == self.writer
        else:
            made = (found["base"], found["snapshot_writer"]) == (change.index, self.writer)
        return (None if not made and change.index <= found["base"] else made), head

    async def _read_head(self) -> Head:
        return await self._other.ask(self._head_from)

    async def _head_from(self, connection: Connection) -> Head:
        return _head(await connection.fetchrow(_HEAD, self._database), self.name)

    # Reading.

    async def _page(self, from_index: int, limit: int) -> Page:
        rows = await self._reader.ask(
            lambda connection: connection.fetch(_PAGE, self._database, from_index, limit)
        )
        first = _found(rows[0] if rows else None, self.name)
        base, head = first["base"], Head(first["next_index"], first["version"])
        if from_index <= base or first["index"] is None:
            return Page(base, head, [], 0)
        return Page(base, head, list(self._entries(rows)), len(rows))

    def _entries(self, rows: list[Any]) -> Iterator[Entry]:
        """The entries of `rows`, the parts of a large one joined."""
        parts: list[bytes] = []
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            parts.append(row["data"])
            if following is None or following["index"] != row["index"]:
                yield Entry(row["index"], b"".join(parts), row["writer"] == self.writer)
                parts = []

    async def snapshot(self) -> Snapshot:
        self._check_open()
        manifest = await self._manifest()
        while True:
            n_data, n_history = manifest["n_data_pieces"], manifest["n_history_pieces"]
            key = (self._database, manifest["id"])
            data = await read_pieces(self._other, key, 0, n_data)
            history = await read_pieces(self._other, key, n_data, n_history)
            if data is not None and history is not None:
                return Snapshot(manifest["index"], manifest["schema"], data, history)
            before, manifest = manifest, await self._manifest()
            if before["id"] == manifest["id"]:
                raise Corrupt(f"{self.name}: pieces of the snapshot are missing")

    async def _manifest(self) -> Any:
        row = await self._other.ask(
            lambda connection: connection.fetchrow(_SNAPSHOT, self._database)
        )
        return _found(row, self.name)

    # Upkeep.

    async def save_snapshot(self, index: int, data: Chunks, history: Chunks = b"") -> None:
        self._check_open()
        async with self._one_snapshot:
            self._check_open()
            await self._check_covers(index)
            async with staging(self._other, self._database) as stage:
                n_data, n_history = await stage.add(data), await stage.add(history)
                staged = StagedSnapshot(stage.name, index, self.writer, n_data, n_history)
                if not await self._other.ask(
                    lambda connection: switch(connection, self._database, staged)
                ):
                    await self._check_covers(index)
                    raise LogError(f"{self.name}: the snapshot's pieces were deleted meanwhile")

    async def _check_covers(self, index: int) -> None:
        [row] = await self._other.fetch(_FATE, self._database, index) or [None]
        found = _found(row, self.name)
        self._learn(Head(found["next_index"], found["version"]))
        if not found["base"] <= index < found["next_index"]:
            raise LogError(f"{self.name}: cannot save a snapshot at {index}")

    async def compact(self, index: int) -> None:
        """See `Log.compact`; ten thousand entries at a time, so that others are not held up."""
        self._check_open()
        if index > (await self._manifest())["index"]:
            raise LogError(f"{self.name}: no snapshot covers the entries up to {index}")

        async def delete(connection: Connection) -> str:
            deleted: str = await connection.execute(
                _COMPACT, self._database, index, _DELETED_AT_ONCE
            )
            return deleted

        while await self._other.ask(delete) != "DELETE 0":
            pass
        await sweep(self._other, self._database)

    async def usage(self) -> Usage:
        self._check_open()
        [row] = await self._other.fetch("SELECT pg_database_size(current_database()) AS size")
        return Usage(row["size"], row["size"], None)

    async def status(self) -> EngineStatus:
        self._check_open()
        return await postgres_status.read_status(self._other)

    async def make_room(self) -> None:
        """See `EngineLog.make_room`; what was deleted, autovacuum frees."""
        self._check_open()
        await self._notices.sweep()

    async def post(self, name: str, text: bytes, ttl_ms: int) -> None:
        self._check_open()
        await self._notices.post(name, text, ttl_ms)

    async def withdraw(self, name: str) -> None:
        self._check_open()
        await self._notices.withdraw(name)

    async def notices(self) -> dict[str, bytes]:
        self._check_open()
        return await self._notices.read()

    async def leases(self) -> list[Holding]:
        self._check_open()
        return await postgres_leases.held(self._other, self._database)

    # Hints, leases, the end.

    async def _hints(self) -> AsyncIterator[set[str]]:
        async for heard in self._listener.listen():
            ours = f"{TURN} {self._database} {self.writer}"
            words = (payload.split(" ") for payload in heard if payload != ours)
            changed = {what for what, database, *_ in words if database == self._database}
            if LOG in changed or not heard:
                self._learn(await self._read_head())
            yield changed if heard else {LOG, LEASES}

    async def ask_for_turn(self) -> None:
        notice = f"{TURN} {self._database} {self.writer}"
        await self._other.fetch("SELECT pg_notify('ovncp', $1)", notice)

    async def _take(self, name: str, ttl_ms: int, is_theft: bool) -> TimedLease | float:
        return await postgres_leases.take(self._other, (self._database, name), ttl_ms, is_theft)

    async def _disconnect(self) -> None:
        for line in (self._appender, self._reader, self._other, self._listener):
            line.drop()


async def _create(
    connection: Connection, key: tuple[str, str], schema: bytes, n_pieces: int, index: int
) -> bool:
    """Whether a log was made, now or by this very call before its answer was lost.

    `key` is the database and the stage of its first snapshot.
    """
    database, stage = key
    async with connection.transaction():
        made = await connection.fetchval(
            "INSERT INTO ovncp.head (database, next_index) VALUES ($1, $2) "
            "ON CONFLICT DO NOTHING RETURNING 1",
            database,
            index + 1,
        )
        if made:
            await connection.execute(
                "INSERT INTO ovncp.snapshot VALUES ($1, $2, $3, '', $4, $5, 0)",
                database,
                stage,
                index,
                schema,
                n_pieces,
            )
    present = await connection.fetchval(
        "SELECT id FROM ovncp.snapshot WHERE database = $1", database
    )
    return bool(present == stage)


async def _connect(location: str) -> tuple[Location, Line]:
    place = Location.parse(location, PARAMETERS)
    line = Line(place)
    try:
        await line.ask(migrate)
    except BaseException:
        line.drop()
        raise
    return place, line


def _head(row: Any, name: str) -> Head:
    found = _found(row, name)
    return Head(found["next_index"], found["version"])


def _found(row: Any, name: str) -> Any:
    if row is None:
        raise LogError(f"{name}: there is no such database")
    return row


def _messages(change: PostgresChange) -> Iterator[list[Part]]:
    """The parts of a change's entries, as many in one list as one statement may have."""
    message: list[Part] = []
    size = 0
    for index, entry in enumerate(change.entries, change.index):
        for number, start in enumerate(range(0, len(entry), _PART_BYTES)):
            part = entry[start : start + _PART_BYTES]
            if message and size + len(part) > _PART_BYTES:
                yield message
                message, size = [], 0
            message.append((index, number, part))
            size += len(part)
    yield message


def _columns(parts: list[Part]) -> tuple[list[int], list[int], list[bytes]]:
    return [p[0] for p in parts], [p[1] for p in parts], [p[2] for p in parts]
