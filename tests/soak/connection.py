"""A JSON-RPC session that may vanish, with nothing of ovncp's own wire code."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]
Handler = Callable[[Message], None]


# What a relay or a worker answers that has lost its source.
_LOST = ("canceled", "database not available", "unknown database")


class Lost(Exception):
    """The connection is gone, or that from there to the database."""


class Connection:
    """A session. `told` is called with each notification, in the order in which they come.

    While `awake` is not set, nothing is read.
    """

    def __init__(self, told: Handler = lambda message: None) -> None:
        self.awake = asyncio.Event()
        self.awake.set()
        self._told = told
        self._numbers = itertools.count()
        self._handlers: dict[int, Handler] = {}
        self._decoder = json.JSONDecoder()
        self._reading: asyncio.Task[None]
        self._writer: asyncio.StreamWriter

    async def open(self, endpoint: str) -> None:
        """Connect to `unix:PATH` or `tcp:HOST:PORT`. Raises OSError."""
        kind, _, rest = endpoint.partition(":")
        if kind == "unix":
            reader, self._writer = await asyncio.open_unix_connection(rest)
        else:
            host, port = rest.rsplit(":", 1)
            reader, self._writer = await asyncio.open_connection(host, int(port))
        self._reading = asyncio.create_task(self._read(reader))

    @property
    def is_lost(self) -> bool:
        """Whether nothing more will come. Raises what went wrong with what came."""
        if self._reading.done():
            self._reading.result()
        return self._reading.done()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        text, data = "", b""
        try:
            while piece := await reader.read(1 << 18):
                await self.awake.wait()
                data += piece
                # A message ends in a brace; until there is one there is nothing to decode.
                if data.endswith(b"}"):
                    text, data = self._take(text + data.decode()), b""
        except ConnectionError:
            pass
        finally:
            self._writer.close()

    def _take(self, text: str) -> str:
        """Handle the messages in `text`; what is left of it."""
        while text:
            try:
                message, end = self._decoder.raw_decode(text)
            except json.JSONDecodeError:
                break
            text = text[end:].lstrip()
            if message.get("method") == "echo":
                self._send({"id": message["id"], "result": message["params"], "error": None})
            elif "method" in message:
                self._told(message)
            else:
                self._handlers.pop(message["id"])(message)
        return text

    def _send(self, message: Message) -> None:
        self._writer.write(json.dumps(message).encode())

    async def request(self, method: str, params: Any, handle: Handler | None = None) -> Any:
        """The result. `handle` was given it before anything that came after it. Raises Lost."""
        answer = await self.ask(method, params, handle)
        error = answer.get("error")
        if error is None:
            return answer["result"]
        assert (error if type(error) is str else error["error"]) in _LOST, answer
        self.abort()
        raise Lost

    async def ask(self, method: str, params: Any, handle: Handler | None = None) -> Message:
        """The answer, which may be an error; `handle` is given results only. Raises Lost."""
        answers: list[Message] = []
        done = asyncio.Event()

        def answered(message: Message) -> None:
            answers.append(message)
            done.set()
            if handle is not None and message.get("error") is None:
                handle(message)

        number = next(self._numbers)
        self._handlers[number] = answered
        self._send({"method": method, "params": params, "id": number})
        waiting = asyncio.create_task(done.wait())
        try:
            await asyncio.wait([waiting, self._reading], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if answers:
            return answers[0]
        assert self.is_lost
        self.abort()
        raise Lost

    def abort(self) -> None:
        """Vanish."""
        self.awake.set()
        self._writer.transport.abort()

    async def close(self) -> None:
        """Leave, and see whether anything was wrong."""
        self.abort()
        await asyncio.wait([self._reading])
        assert self.is_lost


async def connect(endpoint: str, told: Handler = lambda message: None) -> Connection:
    """A connection to `endpoint`, as soon as there is a server."""
    while True:
        connection = Connection(told)
        try:
            await connection.open(endpoint)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return connection
