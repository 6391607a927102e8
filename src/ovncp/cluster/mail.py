"""Messages from node to node: a stream for each node, which it reads in its own time.

A message may come twice, or not at all if the node is away for longer than they are kept; so it
asks for something that does no harm if it is done again, and that can be asked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import orjson

from ovncp.cluster.base import Gap, Item, Store, Unavailable
from ovncp.cluster.stream import Reader

_logger = logging.getLogger("ovncp.cluster.mail")

_KEPT = 10_000
_KEPT_S = 600.0
_WAIT_S = 5.0
_FAILED_PAUSE_S = 0.5

Body = dict[str, Any]
Handler = Callable[[Body], None]


class Mail:
    """One node's box, and the way to the others'."""

    def __init__(self, store: Store, node_id: str):
        self._store = store
        self._node_id = node_id
        self._handlers: dict[str, Handler] = {}

    def on(self, kind: str, handler: Handler) -> None:
        """Have `handler` called with each message of a kind to this node."""
        self._handlers[kind] = handler

    async def send(self, node_id: str, kind: str, body: Body) -> None:
        """Send a message; it is underway on return.  Raises Unavailable."""
        letter = orjson.dumps({"kind": kind, "body": body})
        await self._store.publish(_box(node_id), [letter], _KEPT, _KEPT_S)

    async def run(self) -> None:
        """Read this node's messages, from those of now on, for ever."""
        reader: Reader | None = None
        while True:
            try:
                if reader is None:
                    last = await self._store.last(_box(self._node_id))
                    reader = Reader(self._store, _box(self._node_id), last)
                self._open(await reader.next(_WAIT_S))
            except Unavailable:
                await asyncio.sleep(_FAILED_PAUSE_S)
            except Gap as gap:
                _logger.info("messages may be lost: %s", gap)
                reader = None

    def _open(self, items: list[Item]) -> None:
        for item in items:
            letter = orjson.loads(item.data)
            handler = self._handlers.get(letter["kind"])
            if handler is None:
                _logger.warning("a message of unknown kind: %s", letter["kind"])
                continue
            try:
                handler(letter["body"])
            except Exception:
                _logger.exception("a message of kind %s cannot be handled", letter["kind"])


def _box(node_id: str) -> str:
    return f"mail:{node_id}"
