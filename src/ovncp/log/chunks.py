"""`Chunks`, which come in pieces of any size, cut to the size that an engine stores."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from ovncp.log.base import Chunks


async def cut(data: Chunks, size: int) -> AsyncIterator[bytes]:
    """`data` in pieces of `size` bytes, the last of which may be shorter; none of no data."""
    gathered = bytearray()
    async for chunk in _each(data):
        gathered += chunk
        while len(gathered) >= size:
            yield bytes(gathered[:size])
            del gathered[:size]
    if gathered:
        yield bytes(gathered)


async def _each(data: Chunks) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        yield data
    elif isinstance(data, AsyncIterable):
        async for chunk in data:
            yield chunk
    else:
        for chunk in data:
            yield chunk
