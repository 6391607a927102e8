"""A snapshot's pieces: each committed on its own, and all put to use by one statement.

Pieces that are not the snapshot's belong to somebody who stages them now, or to nobody.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import astuple, dataclass

from ovncp.log.base import Chunks, LogError
from ovncp.log.chunks import cut
from ovncp.log.postgres_client import Connection, Line

_PIECE_BYTES = 1 << 20
_PIECES_PER_READ = 16

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


@dataclass(frozen=True, slots=True)
class StagedSnapshot:
    """A snapshot whose pieces are stored; without a `schema` it has the one before it."""

    stage: str
    index: int
    writer: str
    n_data_pieces: int
    n_history_pieces: int = 0
    schema: bytes | None = None


async def switch(connection: Connection, database: str, staged: StagedSnapshot) -> bool:
    """Make `staged` the snapshot; false if its pieces were deleted, or it is too old or too new."""
    return bool(await connection.fetchval(_SWITCH, database, *astuple(staged)))


class Stage:
    """Pieces of a snapshot to be."""

    def __init__(self, line: Line, database: str):
        self.name = secrets.token_hex(16)
        self._database = database
        self._line = line
        self._n_pieces = 0

    async def add(self, data: Chunks) -> int:
        """Store all of `data`; returns in how many pieces.  Raises LogError."""
        before = self._n_pieces
        async for piece in cut(data, _PIECE_BYTES):
            await self._line.fetch(_PIECE, self._database, self.name, self._n_pieces, piece)
            self._n_pieces += 1
        return self._n_pieces - before


@contextlib.asynccontextmanager
async def staging(line: Line, database: str) -> AsyncIterator[Stage]:
    """A stage; at the end its pieces are deleted unless they are the snapshot's.

    They are left for a `sweep` if that fails.
    """
    stage = Stage(line, database)
    try:
        yield stage
    finally:
        with contextlib.suppress(LogError):
            await _delete(line, _UNSTAGE, database, stage.name)


async def read_pieces(line: Line, key: tuple[str, str], first: int, count: int) -> bytes | None:
    """The `count` pieces from `first` on, None if some are missing.  Raises LogError.

    `key` is the database and the snapshot's id.
    """
    pieces: list[bytes] = []
    end = first + count
    for number in range(first, end, _PIECES_PER_READ):
        numbers = (number, min(number + _PIECES_PER_READ, end))
        pieces += [row["data"] for row in await line.fetch(_PIECES, *key, *numbers)]
    return b"".join(pieces) if len(pieces) == count else None


async def sweep(line: Line, database: str) -> None:
    """Delete the pieces that belong to nobody.  Raises LogError."""
    await _delete(line, _SWEEP, database)


async def _delete(line: Line, statement: str, database: str, *arguments: str) -> None:
    async def delete(connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute(_LOCK, database)
            await connection.execute(statement, database, *arguments)

    await line.ask(delete)
