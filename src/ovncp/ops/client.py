"""One connection that asks and waits for answers, or asks many things at once (RFC 7047 section 4).

How a connection is made is told by the caller: a `Connect` that the command line made of a target.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from ovncp.follow.link import MAX_MESSAGE_BYTES, Connect
from ovncp.ops.refusal import Refusal
from ovncp.wire.client import Answer, ClientConnection, Notification

_OPERATIONS_AT_ONCE = 500
_TRANSACTIONS_AT_ONCE = 8
_CLOSED = "the server closed the connection"


class Client(asyncio.Protocol):
    """A client of `target`. `about` of `post` is given to `answered` with the answer.

    `told` is called with what the server says unasked, `lost` when the connection ends, unless it
    was closed here.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._wire = ClientConnection(MAX_MESSAGE_BYTES)
        self._transport: asyncio.Transport | None = None
        self.answered: Callable[[Any, Answer], None] = lambda about, answer: None
        self.told: Callable[[Notification], None] = lambda notification: None
        self.lost: Callable[[list[Any]], None] = lambda abandoned: None

    async def open(self) -> None:
        """Connect, and send what was posted already. Raises OSError."""
        await self._connect(lambda: self)
        self.flush()

    def close(self) -> None:
        """End the connection, of which nothing more is told."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    @property
    def transport(self) -> asyncio.BaseTransport | None:
        """None before and after the connection."""
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        was_closed, self._transport = self._transport is None, None
        abandoned = self._wire.abandon()
        self._wire = ClientConnection(MAX_MESSAGE_BYTES)
        posted = []
        for about in abandoned:
            if isinstance(about, asyncio.Future):
                if not about.done():
                    about.set_exception(Refusal(_CLOSED))
            else:
                posted.append(about)
        if not was_closed:
            self.lost(posted)

    def data_received(self, data: bytes) -> None:
        for event in self._wire.receive(data):
            if isinstance(event, Notification):
                self.told(event)
            elif not isinstance(event.about, asyncio.Future):
                self.answered(event.about, event)
            elif not event.about.done():
                event.about.set_result(event)
        self.flush()

    def post(self, method: str, params: list[Any], about: Any) -> None:
        """Ask with the next `flush`."""
        self._wire.request(method, params, about)

    def flush(self) -> None:
        """Send what was posted."""
        if self._transport is not None and self._wire.output:
            output, self._wire.output = self._wire.output, []
            self._transport.writelines(output)

    async def call(self, method: str, params: list[Any]) -> Any:
        """The result of a request, for a client that is connected. Raises Refusal."""
        if self._transport is None:
            raise Refusal(_CLOSED)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.post(method, params, answer)
        self.flush()
        answered = await answer
        if answered.error is not None:
            raise Refusal(f"{method}: the server says: {words(answered.error)}")
        return answered.result

    async def transact(self, database: str, operations: list[dict[str, Any]]) -> list[Any]:
        """The results of `operations`. Raises Refusal."""
        results: list[Any] = await self.call("transact", [database, *operations])
        for result in results:
            if result and "error" in result:
                raise Refusal(f"transact: the server says: {words(result)}")
        return results

    async def transact_all(
        self, database: str, groups: list[list[dict[str, Any]]], progress: Callable[[int], None]
    ) -> list[Any]:
        """The results of all operations, of which those of a group are in one transaction."""
        results: list[Any] = []
        batches = list(_batches(groups))
        for first in range(0, len(batches), _TRANSACTIONS_AT_ONCE):
            some = batches[first : first + _TRANSACTIONS_AT_ONCE]
            for answer in await asyncio.gather(*(self.transact(database, each) for each in some)):
                results += answer
            progress(len(results))
        return results


def _batches(groups: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    batches: list[list[dict[str, Any]]] = [[]]
    for group in groups:
        if len(batches[-1]) + len(group) > _OPERATIONS_AT_ONCE and batches[-1]:
            batches.append([])
        batches[-1] += group
    return batches


def words(error: Any) -> str:
    """An error of the protocol (RFC 7047 section 3.1, <error>) in one line."""
    if not isinstance(error, dict):
        return str(error)
    return ": ".join(str(error[name]) for name in ("error", "details") if error.get(name))
