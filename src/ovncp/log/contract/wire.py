"""The TCP connections between a handle and its engine, for cases to spoil."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial

_READ_BYTES = 1 << 16


class Wire:
    """A proxy before each of an engine's hosts; whole until told otherwise."""

    def __init__(self, hosts: Sequence[str]):
        """`hosts` are HOST:PORT."""
        self._hosts = hosts
        self._servers: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = False

    async def start(self) -> tuple[str, ...]:
        """Listen; returns what to use in the place of each host."""
        for host in self._hosts:
            accept = partial(self._accept, host)
            self._servers.append(await asyncio.start_server(accept, "127.0.0.1", 0))
        ports = [server.sockets[0].getsockname()[1] for server in self._servers]
        return tuple(f"127.0.0.1:{port}" for port in ports)

    async def _accept(
        self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        name, _, port = host.rpartition(":")
        try:
            to_engine = await asyncio.open_connection(name.strip("[]"), int(port))
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection((reader, writer), to_engine)
        self._connections.add(connection)
        for pump in (connection.pump_requests(), connection.pump_answers()):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def mute(self) -> None:
        """From now on swallow the answers on the connections of now, and refuse new ones."""
        self._is_cut = True
        for connection in self._connections:
            connection.is_mute = True

    def hold(self) -> None:
        """From now on keep back the requests on the connections of now."""
        for connection in self._connections:
            connection.held = bytearray()

    @property
    def n_held(self) -> int:
        """How many bytes of requests are kept back."""
        return sum(len(connection.held or b"") for connection in self._connections)

    def release(self) -> None:
        """Let the engine have the requests that were kept back."""
        for connection in self._connections:
            connection.release()

    def cut(self) -> None:
        """End the handle's connections and refuse new ones; the engine does not hear of those
        whose requests are kept back."""
        self._is_cut = True
        for connection in self._connections:
            connection.cut()

    def mend(self) -> None:
        """Let new connections pass."""
        self._is_cut = False

    async def close(self) -> None:
        """End it all."""
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """A connection of the handle's, and the one to the engine that belongs to it."""

    def __init__(self, from_handle: _Stream, to_engine: _Stream):
        self._from_handle = from_handle
        self._to_engine = to_engine
        self.is_mute = False
        self.held: bytearray | None = None

    async def pump_requests(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._from_handle[0].read(_READ_BYTES):
                if self.held is None:
                    self._to_engine[1].write(data)
                    await self._to_engine[1].drain()
                else:
                    self.held += data
        if self.held is None:
            self._to_engine[1].transport.abort()

    async def pump_answers(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._to_engine[0].read(_READ_BYTES):
                if not self.is_mute and not self._from_handle[1].is_closing():
                    self._from_handle[1].write(data)
                    await self._from_handle[1].drain()
        self._from_handle[1].transport.abort()

    def release(self) -> None:
        if self.held:
            self._to_engine[1].write(bytes(self.held))
            self.held.clear()

    def cut(self) -> None:
        self._from_handle[1].transport.abort()

    def abort(self) -> None:
        self.cut()
        self._to_engine[1].transport.abort()
