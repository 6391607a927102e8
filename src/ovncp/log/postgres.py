"""The PostgreSQL backend: `postgresql://HOST:5432,.../DBNAME?db=NAME`.

An append is one statement and one round trip: if the head's version is the one that we know, move
the head and insert one row with the whole batch (the tables are in `postgres_schema`).  Two batches
never overlap, whatever their lengths.  The row of the head is locked by whoever moves it, and who
waited for that finds another version; so each batch begins where the one before it ended, as that
is where the head was.  The primary key, a batch's first index, says the same once more.

A batch over 1 MiB is staged in pieces, and its row has their name.

Followers are woken by `LISTEN`; they read what there is, so that a notification that is lost, or
not true, costs a moment and nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import orjson

from ovncp.log import postgres_leases, postgres_status
from ovncp.log.base import Chunks, Corrupt, Entry, Exists, LogError, Snapshot
from ovncp.log.engine import (
    LEASES,
    LOG,
    Change,
    EngineLog,
    Head,
    Holding,
    Page,
    Usage,
    entries_in,
)
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
from ovncp.log.postgres_stage import (
    PIECE_BYTES,
    StagedSnapshot,
    is_whole,
    lock_pieces,
    read_pieces,
    staging,
    sweep,
    switch,
)
from ovncp.log.recent import Recent
from ovncp.log.timed_lease import TimedLease

_DELETED_AT_ONCE = 1000
_NEWS = 16
"""How many batches to read at the most when others have appended; more are left to who reads."""

_ASKS, _ENDED = "asks", "ended"

# The guards are locked until the change is made, so that none goes to another holder in between.
_APPEND = """
    WITH moved AS (
        UPDATE ovncp.head SET next_index = $4, version = version + 1
        WHERE database = $1 AND version = $2 AND next_index = $3
            AND cardinality($5::text[]) = (
                SELECT count(*) FROM (
                    SELECT FROM unnest($5, $6::bigint[]) AS guard (name, token)
                    JOIN ovncp.lease USING (name, token)
                    WHERE database = $1 AND expires > clock_timestamp()
                    FOR SHARE OF lease
                ) AS held
            )
        RETURNING version, pg_notify('ovncp', json_build_array('log', $1, version, $7::text)::text)
    ), appended AS (
        INSERT INTO ovncp.batch (database, index, next_index, writer, data, stage, n_pieces)
        SELECT $1, $3, $4, $7::text, $8::bytea, $9::text, $10::integer FROM moved
        WHERE $8 IS NOT NULL
    )
    SELECT version FROM moved
"""
_FENCE = """
    UPDATE ovncp.head SET version = version + 1 WHERE database = $1 AND version = $2
    RETURNING next_index, version
"""
_HEAD = "SELECT next_index, version FROM ovncp.head WHERE database = $1"
_IDENTITY = "SELECT next_index, version, identity FROM ovncp.head WHERE database = $1"
_FATE = """
    SELECT next_index, version, snapshot.index AS base, snapshot.writer AS snapshot_writer,
        (SELECT writer FROM ovncp.batch WHERE database = $1 AND index = $2)
    FROM ovncp.head JOIN ovncp.snapshot USING (database) WHERE database = $1
"""
# From the batch on that has the first index, which is not looked for by max(): that may be planned
# as a scan of all, if the table is empty when it is.
_PAGE = """
    SELECT snapshot.index AS base, head.next_index, version, batch.*
    FROM ovncp.head JOIN ovncp.snapshot USING (database)
    LEFT JOIN LATERAL (
        SELECT index, writer, data, stage, n_pieces FROM ovncp.batch
        WHERE database = $1 AND next_index > $2 AND index >= coalesce((
            SELECT index FROM ovncp.batch WHERE database = $1 AND index <= $2
            ORDER BY index DESC LIMIT 1
        ), $2)
        ORDER BY index LIMIT $3
    ) AS batch ON true
    WHERE head.database = $1
    ORDER BY batch.index
"""
# It need not outlive a crash of PostgreSQL, and so waits for no disk.
_TELL = "SELECT set_config('synchronous_commit', 'off', true), pg_notify('ovncp', $1)"
_SNAPSHOT = "SELECT * FROM ovncp.snapshot WHERE database = $1"
# Batches that reach beyond the index stay, but are not read any more.
_COMPACT = """
    WITH deleted AS (
        DELETE FROM ovncp.batch WHERE database = $1 AND index IN (
            SELECT index FROM ovncp.batch
            WHERE database = $1 AND index <= $2 AND next_index <= $2 + 1
            ORDER BY index LIMIT $3
        )
        RETURNING stage
    ), unstaged AS (
        DELETE FROM ovncp.piece USING deleted WHERE database = $1 AND piece.stage = deleted.stage
    )
    SELECT count(*) FROM deleted
"""
_TABLES = ("head", "batch", "snapshot", "piece", "lease", "place", "notice")


@dataclass(frozen=True, slots=True)
class PostgresChange(Change):
    """A change: the `body` of a batch, b"" where it is staged, or a conversion's snapshot."""

    body: bytes | None = None
    stage: str | None = None
    n_pieces: int = 0
    snapshot: StagedSnapshot | None = None

    @property
    def is_staged(self) -> bool:
        """Whether there are pieces to be put to use."""
        return self.stage is not None or self.snapshot is not None


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
        self._recent: Recent[list[Entry]] = Recent()

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
        body, next_index = b"\n".join(entries), index + len(entries)
        if len(body) <= PIECE_BYTES:
            yield PostgresChange(index, next_index, guards, body)
            return
        async with staging(self._other, self._database) as stage:
            n_pieces = await stage.add(body)
            yield PostgresChange(index, next_index, guards, b"", stage.name, n_pieces)

    @contextlib.asynccontextmanager
    async def _conversion(
        self, index: int, schema: bytes, data: Chunks
    ) -> AsyncIterator[PostgresChange]:
        async with staging(self._other, self._database) as stage:
            n_data = await stage.add(data)
            snapshot = StagedSnapshot(stage.name, index, self.writer, n_data, schema=schema)
            yield PostgresChange(index, index + 1, (), snapshot=snapshot)

    async def _propose(
        self, change: PostgresChange, known: Head, attempt: int
    ) -> tuple[bool, Head]:
        async def ask(connection: Connection) -> tuple[bool, Head]:
            version = await self._make_by(connection, change, known)
            if version is None:
                return False, await self._head_from(connection)
            return True, Head(change.next_index, version)

        return await self._appender.ask_once(ask, attempt)

    async def _make_by(
        self, connection: Connection, change: PostgresChange, known: Head
    ) -> int | None:
        """Make `change` if the head is `known`; the version that it has then, None if not made."""
        if not change.is_staged:
            return await self._move_head(connection, change, known)
        async with connection.transaction():
            await lock_pieces(connection, self._database)
            version = await self._move_head(connection, change, known)
            if version is not None and not await self._put_to_use(connection, change):
                raise LogError(f"{self.name}: the staged pieces were deleted meanwhile")
            return version

    async def _move_head(
        self, connection: Connection, change: PostgresChange, known: Head
    ) -> int | None:
        version: int | None = await connection.fetchval(
            _APPEND,
            self._database,
            known.version,
            change.index,
            change.next_index,
            [lease.name for lease in change.guards],
            [lease.token for lease in change.guards],
            self.writer,
            change.body,
            change.stage,
            change.n_pieces,
        )
        return version

    async def _put_to_use(self, connection: Connection, change: PostgresChange) -> bool:
        if change.snapshot is not None:
            return await switch(connection, self._database, change.snapshot)
        assert change.stage is not None
        return await is_whole(connection, (self._database, change.stage), change.n_pieces)

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
        rows = await self._reader.fetch(_PAGE, self._database, from_index, limit)
        first = _found(rows[0] if rows else None, self.name)
        base, head = first["base"], Head(first["next_index"], first["version"])
        if from_index <= base or first["index"] is None:
            return Page(base, head, [], 0)
        # There may be memory for one that is staged, and not for many.
        n_batches = next((n for n, row in enumerate(rows, 1) if row["stage"]), len(rows))
        entries: list[Entry] = []
        for row in rows[:n_batches]:
            body = row["data"] if row["stage"] is None else await self._staged(row)
            if body is None:
                return Page(await self._base_behind(from_index), head, [], 0)
            entries += self._entries(row, body)
        return Page(base, head, entries[max(0, from_index - first["index"]) :], n_batches)

    async def _staged(self, row: Any) -> bytes | None:
        """The entries of a batch in pieces, None if they are gone."""
        return await read_pieces(self._reader, (self._database, row["stage"]), 0, row["n_pieces"])

    async def _base_behind(self, index: int) -> int:
        """The snapshot's index, which is why the pieces of the batch with `index` are gone."""
        base: int = (await self._manifest())["index"]
        if base < index:
            raise Corrupt(f"{self.name}: pieces of entry {index} are missing")
        return base

    async def snapshot(self) -> Snapshot:
        self._check_open()
        manifest = await self._manifest()
        while True:
            n_data, n_history = manifest["n_data_pieces"], manifest["n_history_pieces"]
            key = (self._database, manifest["stage"])
            data = await read_pieces(self._other, key, 0, n_data)
            history = await read_pieces(self._other, key, n_data, n_history)
            if data is not None and history is not None:
                return Snapshot(manifest["index"], manifest["schema"], data, history)
            before, manifest = manifest, await self._manifest()
            if before["stage"] == manifest["stage"]:
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
        """See `Log.compact`; a thousand batches at a time, so that others are not held up."""
        self._check_open()
        if index > (await self._manifest())["index"]:
            raise LogError(f"{self.name}: no snapshot covers the entries up to {index}")
        arguments = (self._database, index, _DELETED_AT_ONCE)
        while (await self._other.fetch(_COMPACT, *arguments))[0]["count"]:
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
        # Closed at once if the head cannot be read, as it would close the connection later.
        async with contextlib.aclosing(self._listener.listen()) as listening:
            async for heard in listening:
                hints = [hint for text in heard if (hint := self._hint(text))]
                if not heard:
                    self._learn(await self._read_head())
                elif any(self._is_news(hint) for hint in hints):
                    await self._take_in_news()
                # Afterwards, so that what came first is known to whoever's turn it is then.
                for what, detail, writer in hints:
                    self._note_turn(what, detail, writer)
                changed = {LEASES if what == LEASES else LOG for what, _, _ in hints}
                yield changed if heard else {LOG, LEASES}

    def _is_news(self, hint: tuple[str, float, str]) -> bool:
        """Whether it tells of an append of another handle that is not known of yet."""
        what, version, writer = hint
        return what == LOG and version > self._head.version and writer != self.writer

    async def _take_in_news(self) -> None:
        """Read what has come since the head that is known, for whoever reads here to have it."""
        index = self._head.next_index
        rows = await self._reader.fetch(_PAGE, self._database, index, _NEWS)
        first = _found(rows[0] if rows else None, self.name)
        # What is staged is left to whoever reads, and what is in the snapshot.
        if first["index"] == index > first["base"]:
            at_hand = takewhile(lambda row: row["stage"] is None, rows)
            entries = [entry for row in at_hand for entry in self._entries(row, row["data"])]
            if entries:
                self._recent.add(index, entries, sum(len(row["data"]) for row in rows))
        self._learn(Head(first["next_index"], first["version"]))

    def _entries(self, row: Any, body: bytes) -> list[Entry]:
        return entries_in(body, row["index"], row["writer"] == self.writer)

    async def _at_hand(self, from_index: int) -> list[Entry]:
        return self._recent.take(from_index) or []

    def _hint(self, notification: str) -> tuple[str, float, str] | None:
        """What has happened, the head's version or an asker's patience, and who did it.

        It is said as [WHAT, DATABASE, NUMBER, WRITER], or the first two. None if it is not for us.
        """
        try:
            what, database, *details = orjson.loads(notification)
            number, writer = details or (0, "")
            found = str(what), float(number), str(writer)
            return found if database == self._database else None
        except (ValueError, TypeError, OverflowError):
            return None  # Whoever may connect may notify, of anything.

    def _note_turn(self, what: str, patience_s: float, writer: str) -> None:
        if what == _ASKS:
            self.turns.asked(writer, patience_s)
        elif what in (_ENDED, LOG):
            self.turns.ended(writer)

    async def _tell_turn(self, patience_s: float | None) -> None:
        what = _ENDED if patience_s is None else _ASKS
        notification = orjson.dumps([what, self._database, patience_s or 0, self.writer])
        await self._other.fetch(_TELL, notification.decode())

    async def _take(self, name: str, ttl_ms: int, is_theft: bool) -> TimedLease | None:
        return await self._place(name, ttl_ms).take(is_theft)

    def _place(self, name: str, ttl_ms: int) -> postgres_leases.PostgresPlace:
        return postgres_leases.PostgresPlace(self._other, (self._database, name), ttl_ms)

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
        "SELECT stage FROM ovncp.snapshot WHERE database = $1", database
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
