"""The PostgreSQL backend: `postgresql://HOST:5432,.../DBNAME?db=NAME`.

An append is one statement: if the head's version is the one that we know, move it and insert the
entries (the tables are in `postgres_schema`).  The row of the head makes appenders wait for each
other; the primary key of the entries says once more that an index is given once.  A very large
append takes several statements in one transaction.

Followers are woken by `LISTEN`; they read what there is, so that a lost notification costs a
moment and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ovncp.log.base import Chunks, Corrupt, Entry, LogError, Snapshot
from ovncp.log.chunks import cut
from ovncp.log.engine import LEASES, LOG, Change, EngineLog, Head, Page, Usage
from ovncp.log.location import Location
from ovncp.log.postgres_client import (
    DEFAULT_TIMEOUT_MS,
    PARAMETERS,
    Connection,
    Line,
    migrate,
)
from ovncp.log.timed_lease import TimedLease

_PIECE_BYTES = 1 << 20
_PIECES_PER_READ = 16
# PostgreSQL takes no message and no value of a gibibyte; far less is easier on its memory.
_PART_BYTES = 32 << 20
_PATIENCE_S_PER_BYTE = 1.0 / (4 << 20)
_DELETED_AT_ONCE = 10_000
_SOON_S = 0.01

_APPEND = """
    WITH head AS (
        UPDATE ovncp.head SET next_index = $3, version = version + 1
        WHERE database = $1 AND version = $2
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
_PIECE = """
    INSERT INTO ovncp.piece (database, snapshot, number, data) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING
"""
# Who deletes pieces locks the snapshot's row first, in a statement of its own: then it sees which
# ones are in use. Who puts pieces to use locks them, so that those just deleted do not count.
_LOCK = "SELECT FROM ovncp.snapshot WHERE database = $1 FOR UPDATE"
_SWITCH = """
    WITH present AS (
        SELECT id FROM ovncp.snapshot WHERE database = $1 FOR UPDATE
    ), switched AS (
        UPDATE ovncp.snapshot
        SET id = $2, index = $3, writer = $4, n_data_pieces = $5, n_history_pieces = $6,
            schema = coalesce($7, schema)
        FROM present, ovncp.head
        WHERE snapshot.database = $1 AND head.database = $1
            AND snapshot.index <= $3 AND head.next_index > $3
            AND $5::integer + $6::integer = (
                SELECT count(*) FROM (
                    SELECT FROM ovncp.piece WHERE piece.database = $1 AND snapshot = $2 FOR SHARE
                ) AS kept
            )
        RETURNING present.id AS replaced
    ), deleted AS (
        DELETE FROM ovncp.piece USING switched
        WHERE piece.database = $1 AND piece.snapshot = replaced AND replaced <> $2
    )
    SELECT count(*) FROM switched
"""
_SNAPSHOT = "SELECT * FROM ovncp.snapshot WHERE database = $1"
_PIECES = """
    SELECT data FROM ovncp.piece
    WHERE database = $1 AND snapshot = $2 AND number >= $3 AND number < $4 ORDER BY number
"""
_UNSTAGE = """
    DELETE FROM ovncp.piece WHERE database = $1 AND snapshot = $2 AND NOT EXISTS (
        SELECT FROM ovncp.snapshot WHERE database = $1 AND id = $2
    )
"""
# Nobody stages a snapshot for an hour without a single piece; and if so, it cannot be switched to.
_SWEEP = """
    DELETE FROM ovncp.piece WHERE database = $1 AND snapshot IN (
        SELECT snapshot FROM ovncp.piece
        WHERE database = $1 AND snapshot NOT IN (
            SELECT id FROM ovncp.snapshot WHERE database = $1
        )
        GROUP BY snapshot HAVING max(staged) < clock_timestamp() - interval '1 hour'
    )
"""
_COMPACT = """
    DELETE FROM ovncp.entry WHERE database = $1 AND index <= $2 AND index < $3 + (
        SELECT min(index) FROM ovncp.entry WHERE database = $1
    )
"""
_TAKE = """
    INSERT INTO ovncp.lease (database, name, holder, token, expires)
    VALUES ($1, $2, $3, 1, clock_timestamp() + make_interval(secs => $4))
    ON CONFLICT (database, name) DO UPDATE
    SET holder = excluded.holder, token = lease.token + 1, expires = excluded.expires
    WHERE lease.expires <= clock_timestamp() OR lease.holder = $3
    RETURNING token
"""
_LEFT = """
    SELECT extract(epoch FROM expires - clock_timestamp()) FROM ovncp.lease
    WHERE database = $1 AND name = $2
"""
_RENEW = """
    UPDATE ovncp.lease SET expires = clock_timestamp() + make_interval(secs => $4)
    WHERE database = $1 AND name = $2 AND holder = $3 AND expires > clock_timestamp()
    RETURNING token
"""
_RELEASE = """
    UPDATE ovncp.lease SET expires = 'epoch'
    WHERE database = $1 AND name = $2 AND holder = $3
    RETURNING pg_notify('ovncp', 'leases ' || $1)
"""
_TABLES = ("head", "entry", "snapshot", "piece", "lease")

Part = tuple[int, int, bytes]
"""An entry's index, and the number and the bytes of one part of it."""


@dataclass(frozen=True, slots=True)
class PostgresChange(Change):
    """A change: entries, or a conversion's snapshot."""

    entries: Sequence[bytes]
    snapshot: tuple[Any, ...] | None
    """The parameters of `_SWITCH` after the database."""


class PostgresLog(EngineLog[PostgresChange]):
    """A log in PostgreSQL."""

    shared = True

    def __init__(self, location: Location, line: Line, head: Head):
        timeout_ms = location.milliseconds("timeout_ms", DEFAULT_TIMEOUT_MS)
        super().__init__(str(location), head, timeout_ms)
        self._database = location.database
        self._appender = line
        self._reader = Line(location)
        # For what must not wait for appends or reads, nor they for it.
        self._other = Line(location)
        self._listener = Line(location)

    @classmethod
    async def open(cls, location: str) -> PostgresLog:
        """Open the log at `location`.  Raises LogError, as when there is none."""
        place, line = await _connect(location)
        try:
            return cls(place, line, await _read_head(line, place))
        except BaseException:
            line.drop()
            raise

    @classmethod
    async def create(cls, location: str, schema: bytes, data: Chunks = b"") -> None:
        """Make a log of `schema` and the state `data`.  Raises LogError if there is one."""
        place, line = await _connect(location)
        stage = _Stage(line, place.database)
        try:
            n_pieces = await stage.add(data)
            if not await line.ask(lambda connection: _create(connection, stage, schema, n_pieces)):
                raise LogError(f"{place}: the database exists already")
        finally:
            await stage.end()
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
    async def _batch(self, index: int, entries: Sequence[bytes]) -> AsyncIterator[PostgresChange]:
        yield PostgresChange(index, index + len(entries), entries, None)

    @contextlib.asynccontextmanager
    async def _conversion(
        self, index: int, schema: bytes, data: Chunks
    ) -> AsyncIterator[PostgresChange]:
        stage = _Stage(self._other, self._database)
        try:
            snapshot = (stage.name, index, self.writer, await stage.add(data), 0, schema)
            yield PostgresChange(index, index + 1, (), snapshot)
        finally:
            await stage.end()

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
        )
        return version

    async def _add_the_rest(
        self, connection: Connection, change: PostgresChange, messages: list[list[Part]]
    ) -> None:
        for parts in messages:
            await connection.execute(_APPEND_MORE, self._database, self.writer, *_columns(parts))
        if change.snapshot is not None and not await connection.fetchval(
            _SWITCH, self._database, *change.snapshot
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
        return await self._appender.ask(self._head_from)

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
            data = await self._pieces(manifest["id"], 0, n_data)
            history = await self._pieces(manifest["id"], n_data, n_history)
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

    async def _pieces(self, snapshot: str, first: int, count: int) -> bytes | None:
        """The `count` pieces from `first` on, None if some are missing."""
        pieces: list[bytes] = []
        end = first + count
        for number in range(first, end, _PIECES_PER_READ):
            arguments = (self._database, snapshot, number, min(number + _PIECES_PER_READ, end))
            pieces += [row["data"] for row in await _fetch(self._other, _PIECES, *arguments)]
        return b"".join(pieces) if len(pieces) == count else None

    # Upkeep.

    async def save_snapshot(self, index: int, data: Chunks, history: Chunks = b"") -> None:
        self._check_open()
        async with self._one_snapshot:
            self._check_open()
            await self._check_covers(index)
            stage = _Stage(self._other, self._database)
            try:
                n_data, n_history = await stage.add(data), await stage.add(history)
                snapshot = (stage.name, index, self.writer, n_data, n_history, None)
                [row] = await _fetch(self._other, _SWITCH, self._database, *snapshot)
                if not row["count"]:
                    await self._check_covers(index)
                    raise LogError(f"{self.name}: the snapshot's pieces were deleted meanwhile")
            finally:
                await stage.end()

    async def _check_covers(self, index: int) -> None:
        [row] = await _fetch(self._other, _FATE, self._database, index) or [None]
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
        await _delete_pieces(self._other, _SWEEP, self._database)

    async def usage(self) -> Usage:
        self._check_open()
        [row] = await _fetch(self._other, "SELECT pg_database_size(current_database()) AS size")
        return Usage(row["size"], row["size"], None)

    # Hints, leases, the end.

    async def _hints(self) -> AsyncIterator[set[str]]:
        async for heard in self._listener.listen():
            words = (payload.partition(" ") for payload in heard)
            changed = {what for what, _, database in words if database == self._database}
            yield changed if heard else {LOG, LEASES}

    async def _take(self, name: str, ttl_ms: int) -> TimedLease | float:
        # Asked again after a lost answer, it finds that it holds the lease already.
        holder = secrets.token_hex(16)
        asked_at = asyncio.get_running_loop().time()
        key = (self._database, name)
        taken = await _fetch(self._other, _TAKE, *key, holder, ttl_ms / 1000)
        if taken:
            token = taken[0]["token"]
            return PostgresLease(self._other, key, holder, token, ttl_ms, asked_at)
        [left] = await _fetch(self._other, _LEFT, *key)
        return max(float(left[0]), _SOON_S)

    async def _disconnect(self) -> None:
        for line in (self._appender, self._reader, self._other, self._listener):
            line.drop()


class PostgresLease(TimedLease):
    """A lease that is a row; the server's clock says when it is over."""

    def __init__(
        self,
        line: Line,
        key: tuple[str, str],
        holder: str,
        token: int,
        ttl_ms: int,
        asked_at: float,
    ):
        """See `TimedLease`; `key` is the database and the name, `holder` this holder's mark."""
        super().__init__(key[1], token, ttl_ms, asked_at)
        self._line = line
        self._key = key
        self._holder = holder
        self._ttl_ms = ttl_ms

    async def _prolong(self) -> bool:
        arguments = (*self._key, self._holder, self._ttl_ms / 1000)
        return bool(await _fetch(self._line, _RENEW, *arguments))

    async def _give_back(self) -> None:
        await _fetch(self._line, _RELEASE, *self._key, self._holder)


class _Stage:
    """Pieces of a snapshot to be, each committed on its own."""

    def __init__(self, line: Line, database: str):
        self.name = secrets.token_hex(16)
        self.database = database
        self._line = line
        self._n_pieces = 0

    async def add(self, data: Chunks) -> int:
        """Store all of `data`; returns in how many pieces.  Raises LogError."""
        before = self._n_pieces
        async for piece in cut(data, _PIECE_BYTES):
            await _fetch(self._line, _PIECE, self.database, self.name, self._n_pieces, piece)
            self._n_pieces += 1
        return self._n_pieces - before

    async def end(self) -> None:
        """Delete the pieces unless they are the snapshot's.  Left to `compact` if that fails."""
        with contextlib.suppress(LogError):
            await _delete_pieces(self._line, _UNSTAGE, self.database, self.name)


async def _delete_pieces(line: Line, statement: str, database: str, *arguments: str) -> None:
    async def delete(connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute(_LOCK, database)
            await connection.execute(statement, database, *arguments)

    await line.ask(delete)


async def _create(connection: Connection, stage: _Stage, schema: bytes, n_pieces: int) -> bool:
    """Whether a log was made, now or by this very call before its answer was lost."""
    async with connection.transaction():
        made = await connection.fetchval(
            "INSERT INTO ovncp.head (database, next_index) VALUES ($1, 1) "
            "ON CONFLICT DO NOTHING RETURNING 1",
            stage.database,
        )
        if made:
            await connection.execute(
                "INSERT INTO ovncp.snapshot VALUES ($1, $2, 0, '', $3, $4, 0)",
                stage.database,
                stage.name,
                schema,
                n_pieces,
            )
    present = await connection.fetchval(
        "SELECT id FROM ovncp.snapshot WHERE database = $1", stage.database
    )
    return bool(present == stage.name)


async def _connect(location: str) -> tuple[Location, Line]:
    place = Location.parse(location, PARAMETERS)
    line = Line(place)
    try:
        await line.ask(migrate)
    except BaseException:
        line.drop()
        raise
    return place, line


async def _read_head(line: Line, place: Location) -> Head:
    [row] = await _fetch(line, _HEAD, place.database) or [None]
    return _head(row, str(place))


def _head(row: Any, name: str) -> Head:
    found = _found(row, name)
    return Head(found["next_index"], found["version"])


def _found(row: Any, name: str) -> Any:
    if row is None:
        raise LogError(f"{name}: there is no such database")
    return row


async def _fetch(line: Line, statement: str, *arguments: Any) -> list[Any]:
    rows: list[Any] = await line.ask(lambda connection: connection.fetch(statement, *arguments))
    return rows


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
