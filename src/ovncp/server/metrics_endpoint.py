"""Where Prometheus asks for the metrics: HTTP, as far as that needs it (RFC 9112).

A connection is one request and one answer, and has a few seconds for both.
"""

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable
from functools import partial

from ovncp.server.configuration import ConfigurationError
from ovncp.server.exposition import CONTENT_TYPE

_LOG = logging.getLogger("ovncp.ovsdb_server")

PATH = "/metrics"

MOST_CONNECTIONS = 32
MOST_HEAD_BYTES = 8192
PATIENCE_SECONDS = 10.0

_ADDRESS = re.compile(r"(?:\[([^]]+)\]|([^:\[\]]+)):(\d{1,5})")
_REQUEST_LINE = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[0-9]\r\n")
_STATUS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class MetricsEndpoint:
    """Listens at `address`, HOST:PORT; `text` makes the metrics."""

    def __init__(self, address: str, text: Callable[[], Awaitable[str]]) -> None:
        """Raises ConfigurationError."""
        self._address = address
        self._host, self._port = _parse(address)
        self._text = text
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def start(self) -> None:
        """Listen. Raises ConfigurationError."""
        accept, most = self._accept, MOST_HEAD_BYTES
        try:
            self._server = await asyncio.start_server(accept, self._host, self._port, limit=most)
        except OSError as error:
            errno = error.errno or 0
            reason = os.strerror(errno) if errno > 0 else error.strerror
            raise ConfigurationError(f"--metrics={self._address}: {reason}") from error
        for sock in self._server.sockets:
            host, port = sock.getsockname()[:2]
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            _LOG.info("the metrics are at http://%s%s", place, PATH)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening, and drop the connections."""
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MOST_CONNECTIONS:
            writer.write(_response(503, b"too many connections\n"))
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(partial(self._ended, writer))

    def _ended(self, writer: asyncio.StreamWriter, task: "asyncio.Task[None]") -> None:
        self._connections.discard(task)
        writer.transport.abort()
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("the metrics cannot be shown", exc_info=task.exception())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # so that `drain` leaves nothing behind
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                writer.write(await self._answer(reader))
                writer.write_eof()
                await writer.drain()
                # Who has all of it closes. To close before could take some of it back.
                while await reader.read(MOST_HEAD_BYTES):
                    pass
        except (TimeoutError, ConnectionError):
            pass  # there is nobody who would wait for an answer

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS / 2):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return _response(408, b"the request does not come to an end\n")
        except asyncio.LimitOverrunError:
            return _response(431, b"the request is too long\n")
        except asyncio.IncompleteReadError:
            return _response(400, b"the request has no end\n")
        line = _REQUEST_LINE.match(head)
        if line is None:
            return _response(400, b"this is no HTTP request\n")
        return await self._response_to(line[1], line[2].partition(b"?")[0].decode(errors="replace"))

    async def _response_to(self, method: bytes, path: str) -> bytes:
        if method not in (b"GET", b"HEAD"):
            return _response(405, b"only GET and HEAD are allowed\n", "Allow: GET, HEAD\r\n")
        if path != PATH:
            return _response(404, f"the metrics are at {PATH}\n".encode(), body=method == b"GET")
        return _response(200, (await self._text()).encode(), body=method == b"GET")


def _parse(address: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[3]) > 65535:
        raise ConfigurationError(f"--metrics={address}: HOST:PORT is expected")
    return match[1] or match[2], int(match[3])


def _response(status: int, content: bytes, fields: str = "", *, body: bool = True) -> bytes:
    kind = CONTENT_TYPE if status == 200 else "text/plain; charset=utf-8"
    head = (
        f"HTTP/1.1 {status} {_STATUS[status]}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        f"Connection: close\r\n{fields}\r\n"
    )
    return head.encode() + (content if body else b"")
