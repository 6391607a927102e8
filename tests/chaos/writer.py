"""Clients that write and read, each on a server until that fails or they feel like another."""

from __future__ import annotations

import asyncio

from chaos.history import Answer, Holding, Read, Write
from chaos.run import Over, Run, is_usable
from chaos.transactions import (
    KEYS,
    LOCK,
    NAME,
    NUMBER,
    REFUSALS,
    VERSIONS,
    Json,
    answered,
    expecting,
    operations,
)
from soak.connection import Connection, Lost, Message

LARGE = 1_500_000
"""The bytes of a part that is over what etcd takes at once."""


class Writer:
    """Writes and reads at random; `pause_s` is how long it waits in between, at the most."""

    def __init__(self, run: Run, name: str, pause_s: float):
        self._run = run
        self._name = name
        self._pause_s = pause_s
        self._n_writes = 0
        self._server = ""
        self._connection: Connection
        self._versions = dict.fromkeys(KEYS, 0)

    async def run(self) -> None:
        """Write until it is quiet."""
        while not self._run.is_quiet:
            try:
                self._server, self._connection = await self._run.connect(self._told)
            except Over:
                return
            try:
                await self._stay()
            except (Lost, TimeoutError) as error:
                self._run.counts[f"left a server: {type(error).__name__}"] += 1
            self._connection.abort()

    def _told(self, message: Message) -> None:
        """Nothing is asked for that could be told of."""

    async def _stay(self) -> None:
        """Write to this server for as long as that works; raises Lost or TimeoutError."""
        while not self._run.is_quiet and self._run.draw.random() > 0.01:
            await asyncio.sleep(self._pause_s * self._run.draw.random())
            async with asyncio.timeout(1 + 19 * self._run.draw.random()):
                if self._run.draw.random() < 0.2:
                    await self._read()
                else:
                    await self._write_at_random()

    async def _read(self) -> None:
        was_usable = await is_usable(self._connection)
        start = self._run.now()
        results = await self._connection.request("transact", [NAME, NUMBER, VERSIONS])
        number = results[0]["rows"][0]["number"]
        versions = {row["key"]: row["version"] for row in results[1]["rows"]}
        self._versions = dict(versions)
        end = self._run.now()
        usable_all_the_while = was_usable and await is_usable(self._connection)
        self._run.history.reads.append(
            Read(self._name, self._server, start, end, number, versions, usable_all_the_while)
        )
        if not usable_all_the_while:
            raise Lost

    async def _write_at_random(self) -> None:
        draw = self._run.draw
        choice = draw.random()
        key = draw.choice(KEYS)
        if choice < 0.1:
            # Which is refused if somebody else came first.
            await self._write(key, before=[expecting(self._versions[key], key)], may_fail=True)
        elif choice < 0.2:
            await self._write(key, after=draw.choice(REFUSALS), may_fail=True)
        else:
            await self._write(key, n_bytes=LARGE if choice > 0.995 else draw.choice([0, 10, 1000]))

    async def _write(
        self,
        key: str,
        *,
        before: list[Json] = [],  # noqa: B006
        after: list[Json] = [],  # noqa: B006
        n_bytes: int = 0,
        may_fail: bool = False,
        holding: Holding | None = None,
    ) -> None:
        """Write to `key`. Raises Lost, also when there was an error other than was meant to be."""
        self._n_writes += 1
        n_parts = self._run.draw.randint(1, 3)
        write = Write(f"{self._name}.{self._n_writes}", self._name, self._server, key, n_parts,
                      self._run.now(), holding=holding)  # fmt: skip
        work = [NAME, *before, *operations(write, n_bytes), *after]
        error = ""
        try:
            message = await self._connection.ask("transact", work)
            write, error = answered(write, message, self._run.now())
        finally:
            self._run.history.writes.append(write)
            self._run.counts[write.answer.value] += 1
        if write.answer is Answer.DONE:
            self._versions[key] = write.version
            assert not after, "what had to fail did not"
        elif not may_fail or not error.startswith(_MEANT):
            self._run.counts[f"answer {error}"] += 1
            raise Lost


_MEANT = ("aborted", "timed out", "constraint violation", "referential integrity violation")


class Holder(Writer):
    """Waits for the lock, writes under it for a while, gives it up in some way, and so on."""

    def __init__(self, run: Run, name: str, pause_s: float):
        super().__init__(run, name, pause_s)
        self._holding: Holding | None = None
        self._n_holdings = 0

    def _told(self, message: Message) -> None:
        if message["method"] == "locked":
            self._hold()
        elif message["method"] == "stolen":
            self._run.counts["locks taken away"] += 1
            self._holding = None

    def _hold(self) -> None:
        self._n_holdings += 1
        self._run.counts["locks held"] += 1
        self._holding = Holding(LOCK, f"{self._name} for the {self._n_holdings}. time")

    def _answered(self, message: Message) -> None:
        if message["result"]["locked"]:
            self._hold()

    async def _stay(self) -> None:
        self._holding = None
        while not self._run.is_quiet:
            method = "steal" if self._run.draw.random() < 0.1 else "lock"
            async with asyncio.timeout(20):
                await self._connection.request(method, [LOCK], self._answered)
            await self._wait()
            await self._write_while_held()
            if self._run.draw.random() < 0.5:
                raise Lost
            self._holding = None
            async with asyncio.timeout(20):
                await self._connection.request("unlock", [LOCK])
            # "locked" may have been on its way.
            self._holding = None
            await asyncio.sleep(self._run.draw.random())

    async def _wait(self) -> None:
        while self._holding is None and not self._run.is_quiet:
            await asyncio.sleep(0.02)
            if self._connection.is_lost:
                raise Lost

    async def _write_while_held(self) -> None:
        until = self._run.now() + 4 * self._run.draw.random()
        while self._holding and self._run.now() < until and not self._run.is_quiet:
            async with asyncio.timeout(1 + 19 * self._run.draw.random()):
                await self._write(self._run.draw.choice(KEYS), holding=self._holding)
            await asyncio.sleep(self._pause_s * self._run.draw.random())
