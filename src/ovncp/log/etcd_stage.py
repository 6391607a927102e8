"""Values too large for one request: staged in pieces, and then committed by one small key.

`stage/ID` is put first, under an etcd lease that its stager keeps alive; every piece is added on
condition that it is there.  The transaction that commits the value puts it once more, on the same
condition, without a lease and with the use that it has from now on: an index for a batch,
`snapshot` for a snapshot.  So pieces without a `stage/ID` belong to nobody and never will.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import zlib
from collections.abc import AsyncIterator

from ovncp.log.base import Chunks, LogError
from ovncp.log.chunks import cut
from ovncp.log.engine import EngineError
from ovncp.log.etcd_client import (
    Condition,
    EtcdClient,
    Operation,
    Value,
    delete_range,
    exists,
    get,
    get_range,
    prefix_end,
    put,
    unchanged,
)
from ovncp.log.etcd_keys import PIECE_BYTES, Keys
from ovncp.log.etcd_keys import snapshot as parse_snapshot

_logger = logging.getLogger("ovncp.log")

_TTL_MS = 30_000
_RENEWAL_S = 8.0
_PIECES_PER_READ = 8
_SNAPSHOT = b"snapshot"


class PiecesGone(Exception):
    """What was to be read has been deleted meanwhile."""


class Stage:
    """Pieces that are being put."""

    def __init__(self, client: EtcdClient, keys: Keys, name: str, lease: int):
        self.name = name
        self.key = keys.stage(name)
        self.n_pieces = 0
        self._client = client
        self._keys = keys
        self._lease = lease

    async def add(self, data: Chunks) -> int:
        """Put all of `data`; returns in how many pieces.  Raises LogError."""
        before = self.n_pieces
        async for piece in cut(data, PIECE_BYTES):
            await self._add_piece(piece)
        return self.n_pieces - before

    async def _add_piece(self, piece: bytes) -> None:
        key = self._keys.piece(self.name, self.n_pieces)
        deflated = await asyncio.to_thread(zlib.compress, piece, 1)
        if not (await self._client.txn([self.is_ours()], [put(key, deflated)])).succeeded:
            raise self.lost()
        self.n_pieces += 1

    def lost(self) -> LogError:
        """The error for pieces that are not ours any more."""
        return EngineError("etcd was out of reach for too long while data were being staged")

    def is_ours(self) -> Condition:
        """The condition on which a transaction may commit the pieces."""
        return exists(self.key)

    def commit_batch(self, index: int) -> Operation:
        """What makes them those of the batch at `index`."""
        return put(self.key, b"%d" % index)

    def commit_snapshot(self) -> Operation:
        """What makes them those of the snapshot."""
        return put(self.key, _SNAPSHOT)

    async def keep_alive(self) -> None:
        """Keep hold of the stage for ever."""
        while True:
            await asyncio.sleep(_RENEWAL_S)
            with contextlib.suppress(LogError):  # The next time is soon enough.
                await self._client.keep_alive(self._lease)

    async def end(self) -> None:
        """Delete the pieces, unless they are committed; from here on they cannot be."""
        try:
            await self._client.revoke(self._lease)
            nobodys = unchanged(self.key, 0)
            await self._client.txn([nobodys], [_delete_pieces(self._keys, self.name)])
        except LogError as error:
            _logger.info("staged data are left for the next one to sweep up: %s", error)


@contextlib.asynccontextmanager
async def staging(client: EtcdClient, keys: Keys) -> AsyncIterator[Stage]:
    """A stage; at the end its pieces are deleted, unless a transaction committed them.

    Raises LogError.
    """
    lease = await client.grant(_TTL_MS)
    stage = Stage(client, keys, secrets.token_hex(8), lease)
    renewing = asyncio.create_task(stage.keep_alive())
    try:
        await client.txn(then=[put(stage.key, b"", lease)])
        yield stage
    finally:
        renewing.cancel()
        await stage.end()


async def read_pieces(client: EtcdClient, keys: Keys, stage: str, first: int, count: int) -> bytes:
    """What was added as the `count` pieces from `first` on.  Raises LogError and PiecesGone."""
    end = first + count
    inflated = []
    for number in range(first, end, _PIECES_PER_READ):
        some = min(_PIECES_PER_READ, end - number)
        pieces = get_range(keys.piece(stage, number), keys.piece(stage, number + some))
        [found] = (await client.txn(then=[pieces])).found
        if len(found) != some:
            raise PiecesGone(f"pieces of {stage} are missing")
        inflated += await asyncio.to_thread(_inflate, found)
    return b"".join(inflated)


def _inflate(pieces: list[Value]) -> list[bytes]:
    return [zlib.decompress(piece.data) for piece in pieces]


async def sweep(client: EtcdClient, keys: Keys) -> None:
    """Delete the pieces that belong to nothing any more.  Raises LogError."""
    manifest, stages, pieces, entries = (
        await client.txn(
            then=[
                get(keys.snapshot),
                get_range(keys.stages, prefix_end(keys.stages)),
                get_range(keys.pieces, prefix_end(keys.pieces), keys_only=True),
                get_range(keys.entries, keys.entries_end, 1, keys_only=True),
            ]
        )
    ).found
    current = parse_snapshot(manifest[0].data)[0].stage if manifest else None
    oldest = keys.index_of(entries[0].key) if entries else None
    uses = {value.key[len(keys.stages) :].decode(): value.data for value in stages}
    staged = {piece.key[len(keys.pieces) :].split(b"/")[0].decode() for piece in pieces}
    for stage in staged | set(uses):
        if _is_garbage(stage, uses.get(stage), current, oldest):
            await client.txn(then=[_delete(keys, stage), _delete_pieces(keys, stage)])


def _is_garbage(stage: str, use: bytes | None, current: str | None, oldest: int | None) -> bool:
    if use is None:
        return True
    if use == _SNAPSHOT:
        return stage != current
    return use != b"" and (oldest is None or int(use) < oldest)


def _delete(keys: Keys, stage: str) -> Operation:
    key = keys.stage(stage)
    return delete_range(key, key + b"\0")


def _delete_pieces(keys: Keys, stage: str) -> Operation:
    prefix = keys.pieces_of(stage)
    return delete_range(prefix, prefix_end(prefix))
