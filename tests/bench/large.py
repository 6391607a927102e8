"""A large database: opening it, what it takes, and how long others wait while it is compacted."""

from __future__ import annotations

import functools
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.database import name as uuid_of
from tests.bench.database import southbound
from tests.bench.load import call, encode
from tests.servers import Server

PATIENCE_SECONDS = 300
LEAD_SECONDS = 1.0
PAUSE_SECONDS = 0.002

READY = encode("transact", ["OVN_Southbound", {"op": "comment", "comment": "ready"}], 1)
PING = encode("echo", [], "ping")
southbound = functools.lru_cache(maxsize=2)(southbound)


def served(kind: str, rows: int, *, start: bool = True) -> Server:
    """A server of a Southbound database with so many port bindings."""
    database = ("sb", southbound(rows))
    return Server(kind, [database], start=start, patience=PATIENCE_SECONDS)


def opening(kind: str, rows: int) -> float:
    """Milliseconds from the start of the process to its first answer."""
    with served(kind, rows, start=False) as server:
        start = time.perf_counter()
        server.start()
        call(server.socket_path, [READY])
        return (time.perf_counter() - start) * 1e3


def resident(server: Server) -> float:
    """Megabytes of resident memory."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1e3


def memory(kind: str, rows: int) -> float:
    """Megabytes that the server takes once it has answered."""
    with served(kind, rows) as server:
        call(server.socket_path, [READY])
        return resident(server)


def compaction_stall(kind: str, rows: int) -> float:
    """Milliseconds that an echo waits at most while a database is compacted that is updated."""
    waits: list[float] = []
    done = threading.Event()
    with served(kind, rows) as server, ThreadPoolExecutor(2) as clients:
        call(server.socket_path, [READY])
        updater = clients.submit(repeat, server, update_of_port, done, [])
        pinger = clients.submit(repeat, server, lambda _: PING, done, waits)
        try:
            time.sleep(LEAD_SECONDS)
            server.appctl("ovsdb-server/compact")
            time.sleep(LEAD_SECONDS)
        finally:
            done.set()
        updater.result()
        pinger.result()
    return max(waits) * 1e3


def repeat(
    server: Server, request: Callable[[int], bytes], done: threading.Event, waits: list[float]
) -> None:
    """Sends one request after the other, each a little after the answer to the one before."""
    with socket.socket(socket.AF_UNIX) as session:
        session.connect(str(server.socket_path))
        for number in itertools.count():
            if done.is_set():
                return
            start = time.perf_counter()
            session.sendall(request(number))
            session.recv(1 << 16)
            waits.append(time.perf_counter() - start)
            time.sleep(PAUSE_SECONDS)


def update_of_port(number: int) -> bytes:
    where = [["_uuid", "==", ["uuid", uuid_of("port", number % 1000)]]]
    row = {"options": ["map", [["number", str(number)]]]}
    operation = {"op": "update", "table": "Port_Binding", "where": where, "row": row}
    return encode("transact", ["OVN_Southbound", operation], 1)
