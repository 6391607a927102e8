"""HTTP as uvicorn has it, for requests that arrive in time: who sends slowly is not waited for.

All of a request has to be here within a while of its first byte, and a connection brings its first
one within that; its head is bounded too. The bound of a body is the application's.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD_BYTES = 64 << 10

_ANSWERS = {
    408: b"HTTP/1.1 408 Request Timeout\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
}
_END = b"content-length: 0\r\nconnection: close\r\n\r\n"


class TimelyProtocol(HttpToolsProtocol):
    """One connection, on which a request takes `patience_s` to arrive at most."""

    def __init__(self, *, patience_s: float, **others: Any) -> None:
        super().__init__(**others)
        self._patience_s = patience_s
        self._deadline: asyncio.TimerHandle | None = None
        self._n_head_bytes = 0
        self._has_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol.connection_made`."""
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol.connection_lost`."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol.data_received`."""
        if self._deadline is None:
            self._await_request()
        if not self._has_head:
            self._n_head_bytes += len(data)
        super().data_received(data)
        if not self._has_head and self._n_head_bytes > LARGEST_HEAD_BYTES:
            self._refuse(431)

    def on_headers_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        self._has_head = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        self._arrived()
        super().on_message_complete()

    def _await_request(self) -> None:
        self._n_head_bytes, self._has_head = 0, False
        self._deadline = self.loop.call_later(self._patience_s, self._refuse, 408)

    def _arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._n_head_bytes, self._has_head = 0, False

    def _refuse(self, status: int) -> None:
        """Answer that it is too late, or too much, if nothing was answered yet; and no more."""
        if self._may_answer() and not self.transport.is_closing():
            self.transport.write(_ANSWERS[status] + _END)
        self.transport.close()

    def _may_answer(self) -> bool:
        """Whether an answer now is one to the request that has not arrived."""
        if self.cycle is None:
            return True
        is_begun = self.cycle.response_started
        return not self.pipeline and (
            not is_begun if self._has_head else self.cycle.response_complete
        )
