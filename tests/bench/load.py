"""The load: bytes encoded beforehand, and sockets whose replies are counted, never parsed.

A generator that parsed what it receives would measure itself.  What is counted is a mark that each
awaited message holds exactly once.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

PIECE_BYTES = 1 << 20
# A server that writes each reply by itself would otherwise share its processor with us.
SMALL_PIECE_BYTES = 16 << 10
GATHER_SECONDS = 0.0005
PIPELINE = 1000
STALL_SECONDS = 120.0


def encode(method: str, params: Any, id: Any) -> bytes:
    message = {"method": method, "params": params, "id": id}
    return json.dumps(message, separators=(",", ":")).encode()


class Counter:
    """Counts `mark` in a stream that arrives in pieces."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self.tail = b""
        self.count = 0

    def feed(self, piece: bytes) -> None:
        # The tail is one byte shorter than the mark, so that none is counted twice.
        kept = len(self.mark) - 1
        seam = self.tail + piece[:kept]
        self.count += seam.count(self.mark) + piece.count(self.mark)
        self.tail = (self.tail + piece[-kept:])[-kept:]


class Connection:
    """One session, at work on sending `todo` and counting marks.

    `address` is the path of a UNIX socket, or a host and a port.
    """

    def __init__(self, address: Path | tuple[str, int], mark: bytes) -> None:
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.socket = socket.socket(family)
        self.socket.connect(address if isinstance(address, tuple) else str(address))
        self.socket.setblocking(False)
        self.counter = Counter(mark)
        self.received = 0
        self.todo: list[bytes] = []
        self.later: deque[bytes] = deque()
        # How many marks have to be there for the next block of `later` to be due.
        self.due = 0
        self.rest = memoryview(b"")

    def receive(self) -> None:
        try:
            piece = self.socket.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        if not piece:
            raise ConnectionError("the server closed the connection")
        if b'"method":"echo"' in piece[-200:]:
            self.todo.append(b'{"id":"echo","result":[],"error":null}')
        self.received += len(piece)
        self.counter.feed(piece)
        self._take_what_is_due()
        if len(piece) < SMALL_PIECE_BYTES:
            time.sleep(GATHER_SECONDS)

    def supply(self, requests: Sequence[bytes]) -> None:
        """Send `requests`, with at most two blocks of `PIPELINE` under way."""
        starts = range(0, len(requests), PIPELINE)
        self.later.extend(b"".join(requests[start : start + PIPELINE]) for start in starts)
        self.due = self.counter.count - PIPELINE
        self._take_what_is_due()

    def _take_what_is_due(self) -> None:
        while self.later and self.counter.count >= self.due:
            self.todo.append(self.later.popleft())
            self.due += PIPELINE

    def send(self) -> None:
        while self.rest or self.todo:
            if not self.rest:
                self.rest = memoryview(self.todo.pop(0))
            try:
                self.rest = self.rest[self.socket.send(self.rest) :]
            except BlockingIOError:
                return


def exchange(connections: Sequence[Connection], wanted: int) -> float:
    """Runs until each connection has counted `wanted` marks in all; the seconds it took."""
    start = last = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(
                connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection
            )
        open_ones = set(connections)
        while open_ones:
            ready = selector.select(1)
            if ready:
                last = time.perf_counter()
            elif time.perf_counter() - last > STALL_SECONDS:
                raise TimeoutError(f"the server said nothing for {STALL_SECONDS} s")
            for key, mask in ready:
                connection = key.data
                if mask & selectors.EVENT_READ:
                    connection.receive()
                connection.send()
                waits = selectors.EVENT_WRITE if connection.rest else 0
                selector.modify(connection.socket, selectors.EVENT_READ | waits, connection)
                if connection.counter.count >= wanted and connection in open_ones:
                    open_ones.discard(connection)
    return time.perf_counter() - start


def call(path: Path, requests: Iterable[bytes]) -> list[Any]:
    """The parsed results of `requests`, for preparing a load; not for measuring."""
    requests = list(requests)
    results: list[Any] = []
    decoder = json.JSONDecoder()
    with socket.socket(socket.AF_UNIX) as session:
        session.connect(str(path))
        for request in requests:
            session.sendall(request)
            text = ""
            while True:
                text += session.recv(PIECE_BYTES).decode()
                try:
                    message, _ = decoder.raw_decode(text)
                except json.JSONDecodeError:
                    continue
                results.append(message["result"])
                break
    return results


def pipelined(connection: Connection, requests: Sequence[bytes]) -> float:
    """Sends all `requests` with at most two blocks of `PIPELINE` under way; the seconds it took."""
    return pipelined_by_all([connection], requests)


def pipelined_by_all(connections: Sequence[Connection], requests: Sequence[bytes]) -> float:
    """As `pipelined`, each connection all `requests`, at the same time; none waits for another."""
    start = time.perf_counter()
    base = connections[0].counter.count
    for connection in connections:
        connection.supply(requests)
    exchange(connections, base + len(requests))
    return time.perf_counter() - start
