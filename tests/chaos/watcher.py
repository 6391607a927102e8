"""A client that monitors all there is, and goes on on one server where it was on another."""

from __future__ import annotations

import asyncio

from chaos.history import View, Witness
from chaos.run import Over, Run, is_usable
from chaos.transactions import MONITORED, NAME, Json, Replica
from soak.connection import Connection, Lost, Message

NOBODY = "00000000-0000-0000-0000-000000000000"
WANTED = {table: [{"columns": columns}] for table, columns in MONITORED.items()}


class Watcher:
    """Watches until it is over."""

    def __init__(self, run: Run, name: str):
        self._run = run
        self._name = name
        self._replica = Replica.empty()
        self._last_id = NOBODY
        self._witness = Witness(name)
        self._connection: Connection

    @property
    def number(self) -> int:
        """How many writes it has been told of."""
        return self._replica.number

    async def run(self) -> None:
        """Come and go until it is over."""
        while not self._run.is_over:
            try:
                _, self._connection = await self._run.connect(self._told)
            except Over:
                return
            try:
                await self._monitor()
                if self._witness.known > self.number:
                    self._witness.is_connected = await is_usable(self._connection, leads=False)
                await self._stay()
            except (Lost, TimeoutError):
                self._run.counts["monitors that moved"] += 1
            self._connection.abort()

    async def _monitor(self) -> None:
        async with asyncio.timeout(20):
            params = [NAME, "m", WANTED, self._last_id]
            await self._connection.request("monitor_cond_since", params, self._begun)

    def _begun(self, message: Message) -> None:
        found, last_id, updates = message["result"]
        self._run.counts["monitors resumed" if found else "monitors begun"] += 1
        if not found:
            self._witness = Witness(self._name, self._replica.number)
            self._run.history.witnesses.append(self._witness)
            self._replica = Replica.empty()
        self._take(last_id, updates)

    def _told(self, message: Message) -> None:
        if message["method"] == "update3":
            _, last_id, updates = message["params"]
            self._take(last_id, updates)
        else:
            self._run.counts[f"told {message['method']}"] += 1
            self._connection.abort()

    def _take(self, last_id: str, updates: Json) -> None:
        self._last_id = last_id
        ids, keys = self._replica.update(updates)
        transaction = last_id if last_id != NOBODY else None
        states = self._replica.states(keys)
        view = View(self._run.now(), self.number, ids, states, transaction)
        self._witness.views.append(view)

    async def _stay(self) -> None:
        """Stay for a while, and now and then read nothing; raises Lost."""
        draw = self._run.draw
        until = self._run.now() + 20 * draw.random()
        while not self._run.is_over and (self._run.is_quiet or self._run.now() < until):
            await asyncio.sleep(draw.random())
            if self._connection.is_lost:
                raise Lost
            if not self._run.is_quiet and draw.random() < 0.05:
                self._connection.awake.clear()
                await asyncio.sleep(2 * draw.random())
                self._connection.awake.set()
