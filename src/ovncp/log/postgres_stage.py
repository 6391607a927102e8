"""What is too large for one row: staged in pieces, each committed on its own, and then put to use.

Pieces that are neither the snapshot's nor a batch's belong to somebody who stages them now, or to
nobody.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import astuple, dataclass

from ovncp.log.base import Chunks, LogError
from ovncp.log.chunks import cut
from ovncp.log.postgres_client import Connection, Line

PIECE_BYTES = 1 << 20
"""The largest part of what is staged."""

_PIECES_PER_READ = 16

_PIECE = """
    INSERT INTO ovncp.piece (database, stage, number, data) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING
"""
# Who deletes unused pieces or puts pieces to use locks the snapshot's row first, in a statement of
# its own, so that the next one sees what the other has done.
_LOCK = "SELECT FROM ovncp.snapshot WHERE database = $1 FOR UPDATE"
_COUNT = "SELECT count(*) FROM ovncp.piece WHERE database = $1 AND stage = $2"
_SWITCH = """
    WITH present AS (
        SELECT stage FROM ovncp.snapshot WHERE database = $1 FOR UPDATE
    ), switched AS (
        UPDATE ovncp.snapshot
        SET stage = $2, index = $3, writer = $4, n_data_pieces = $5, n_history_pieces = $6,
            schema = coalesce($7, schema)
        FROM present, ovncp.head
        WHERE snapshot.database = $1 AND head.database = $1
            AND snapshot.index <= $3 AND head.next_index > $3
            AND $5::integer + $6::integer = (
                SELECT count(*) FROM (
                    SELECT FROM ovncp.piece WHERE piece.database = $1 AND stage = $2 FOR SHARE
                ) AS kept
            )
        RETURNING present.stage AS replaced
    ), deleted AS (
        DELETE FROM ovncp.piece USING switched
        WHERE piece.database = $1 AND piece.stage = replaced AND replaced <> $2
    )
    SELECT count(*) FROM switched
"""
_PIECES = """
    SELECT data FROM ovncp.piece
    WHERE database = $1 AND stage = $2 AND number >= $3 AND number < $4 ORDER BY number
"""
_IN_USE = """
    SELECT stage FROM ovncp.snapshot WHERE database = $1
    UNION ALL SELECT stage FROM ovncp.batch WHERE database = $1 AND stage IS NOT NULL
"""
_UNSTAGE = f"""
    DELETE FROM ovncp.piece WHERE database = $1 AND stage = $2 AND stage NOT IN ({_IN_USE})
"""
# Nobody stages anything for an hour without a single piece; and if so, it cannot be put to use.
_SWEEP = f"""
    DELETE FROM ovncp.piece WHERE database = $1 AND stage IN (
        SELECT stage FROM ovncp.piece WHERE database = $1 AND stage NOT IN ({_IN_USE})
        GROUP BY stage HAVING max(staged) < clock_timestamp() - interval '1 hour'
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


async def lock_pieces(connection: Connection, database: str) -> None:
    """See to it that only this transaction puts pieces to use, or deletes those without a use."""
    await connection.execute(_LOCK, database)


async def is_whole(connection: Connection, key: tuple[str, str], n_pieces: int) -> bool:
    """Whether so many pieces are there, asked by whoever has locked them.

    `key` is the database and the stage.
    """
    return bool(await connection.fetchval(_COUNT, *key) == n_pieces)


class Stage:
    """Pieces of a snapshot or a batch to be."""

    def __init__(self, line: Line, database: str):
        self.name = secrets.token_hex(16)
        self._database = database
        self._line = line
        self._n_pieces = 0

    async def add(self, data: Chunks) -> int:
        """Store all of `data`; returns in how many pieces.  Raises LogError."""
        before = self._n_pieces
        async for piece in cut(data, PIECE_BYTES):
            await self._line.fetch(_PIECE, self._database, self.name, self._n_pieces, piece)
            self._n_pieces += 1
        return self._n_pieces - before


@contextlib.asynccontextmanager
async def staging(line: Line, database: str) -> AsyncIterator[Stage]:
    """A stage; at the end its pieces are deleted unless they have been put to use.

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

    `key` is the database and the stage.
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
            await lock_pieces(connection, database)
            await connection.execute(statement, database, *arguments)

    await line.ask(delete)
