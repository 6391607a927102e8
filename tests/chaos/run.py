"""What all who take part in a run have in common, and how they find a server to talk to."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

from chaos.history import History
from chaos.transactions import STATUS
from soak.connection import Connection, Handler, Lost

PATIENCE_S = 3.0
"""How long a client waits for a server that it has just come to."""


class Over(Exception):
    """The run is over."""


class Run:
    """A run on the servers at `endpoints`, by name; with what has been seen, and counts of it.

    The `diary` says what harm was done, and when; `complaints` what the servers warned of.
    While it `is_quiet` nobody begins anything new; when it `is_over` all leave.
    """

    def __init__(self, endpoints: dict[str, str], seed: int):
        self.endpoints = endpoints
        self.draw = random.Random(seed)
        self.history = History()
        self.counts: Counter[str] = Counter()
        self.diary: list[tuple[float, str]] = []
        self.complaints: dict[str, list[str]] = {}
        self.is_quiet = False
        self.is_over = False
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    async def connect(self, told: Handler = lambda message: None) -> tuple[str, Connection]:
        """A connection to some server that is connected, and leads where one does; and its name.

        As the C and Python clients choose one that want a leader. Raises Over.
        """
        while not self.is_over:
            name = self.draw.choice(list(self.endpoints))
            connection = Connection(told)
            try:
                await connection.open(self.endpoints[name])
            except OSError:
                await asyncio.sleep(0.05)
                continue
            try:
                async with asyncio.timeout(PATIENCE_S):
                    if await is_usable(connection):
                        return name, connection
            except (Lost, TimeoutError):
                self.counts["servers found useless"] += 1
            connection.abort()
            await asyncio.sleep(0.05)
        raise Over


async def is_usable(connection: Connection, *, leads: bool = True) -> bool:
    """Whether the server says that it is connected, and `leads`. Raises Lost."""
    (status,) = await connection.request("transact", ["_Server", STATUS])
    return any(row["connected"] and (row["leader"] or not leads) for row in status["rows"])
