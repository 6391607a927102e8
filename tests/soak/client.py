"""A client that monitors a part of a database, and checks whatever it is told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from soak.conditions import Where, draw_where
from soak.connection import Connection, Lost, Message, connect
from soak.run import Run
from soak.values import COLUMNS, NOBODY, Items, Row, changed, default, value_of
from soak.writer import Writer

METHODS = {1: "monitor", 2: "monitor_cond", 3: "monitor_cond_since"}
EVERYTHING: Where = ([], lambda key, row: True)


class Known:
    """What the client knows: some columns of some items of the state `number`.

    `where` is the condition that they meet. `last_id` is that of the transaction that led there.
    """

    def __init__(self, where: Where) -> None:
        self.items: Items = {}
        self.number = -1
        self.where = where
        self.last_id = NOBODY

    def copy(self) -> Known:
        known = Known(self.where)
        known.items, known.number, known.last_id = dict(self.items), self.number, self.last_id
        return known


class Client:
    """A client of the database of `writer`. `version` is that of its monitor."""

    def __init__(self, run: Run, writer: Writer, version: int) -> None:
        self._run = run
        self._writer = writer
        self._version = version
        self._columns = run.draw.sample(list(COLUMNS), run.draw.randint(1, len(COLUMNS)))
        self.known = Known(self._draw_where())
        # What was known once, and a condition that is asked for.
        self._past: Known | None = None
        self._coming: Where | None = None
        self._connection: Connection

    def _draw_where(self) -> Where:
        if self._version == 1:
            return EVERYTHING
        return draw_where(self._run.draw, self._writer.states[-1])

    @property
    def is_up_to_date(self) -> bool:
        """Whether the latest state is known, under no condition but the one that was asked for."""
        return self.known.number == len(self._writer.states) - 1 and self._coming is None

    async def run(self) -> None:
        """Come and go until it is over."""
        while not self._run.is_over:
            endpoint = self._run.draw.choice(self._run.endpoints)
            self._connection = await connect(endpoint, self._told)
            try:
                await self._monitor()
                while not self._run.is_over:
                    await self._do_something()
            except Lost:
                self._run.counts["connections lost"] += 1
        await self._connection.close()

    async def _do_something(self) -> None:
        await asyncio.sleep(self._run.draw.random())
        if self._connection.is_lost:
            raise Lost
        if not self._run.is_quiet:
            await self._run.draw.choice(self._deeds())()

    def _deeds(self) -> list[Callable[[], Awaitable[None]]]:
        deeds = [self._sleep, self._vanish, self._remember]
        return deeds if self._version == 1 else [*deeds, *[self._change_condition] * 3]

    async def _sleep(self) -> None:
        """Read nothing for a while."""
        self._connection.awake.clear()
        await asyncio.sleep(3 * self._run.draw.random())
        self._connection.awake.set()

    async def _vanish(self) -> None:
        self._connection.abort()
        await asyncio.sleep(0.1)

    async def _remember(self) -> None:
        """Keep what is known for a return after a longer while."""
        self._past = self.known.copy()

    async def _change_condition(self) -> None:
        self._coming = self._draw_where()
        change = {"Item": [{"where": self._coming[0]}]}
        method = "monitor_cond_change"
        await self._connection.request(method, ["m", "m", change], self._condition_changed)
        self._run.counts["conditions changed"] += 1

    def _condition_changed(self, _: Message) -> None:
        assert self._coming is not None
        self.known.where, self._coming = self._coming, None
        self._check()

    # Beginning

    async def _monitor(self) -> None:
        """Begin anew, or go on from what is known, what was, or what never was."""
        # A change that was asked for last may have come to be, or not.
        if self._coming is not None or self._version < 3:
            self.known = Known(self._coming or self.known.where)
            self._coming = None
        choice = self._run.draw.random()
        if self._version == 3 and choice < 0.2 and self._past is not None:
            self.known = self._past.copy()
        elif choice < 0.3:
            self.known.last_id = str(uuid.uuid4())
        await self._connection.request(METHODS[self._version], self._params(), self._begun)

    def _params(self) -> list[Any]:
        wanted: dict[str, Any] = {"columns": self._columns}
        if self._version > 1:
            wanted["where"] = self.known.where[0]
        requests = {"Item": [wanted], "State": [{"columns": ["number"]}]}
        last_id = [self.known.last_id] if self._version == 3 else []
        return [self._writer.name, "m", requests, *last_id]

    def _begun(self, message: Message) -> None:
        updates = message["result"]
        found = False
        if self._version == 3:
            found, self.known.last_id, updates = updates
        self._run.counts["resumed" if found else "begun"] += 1
        if not found:
            self.known.items, self.known.number = {}, -1
        self._take(updates)

    # Being told

    def _told(self, message: Message) -> None:
        assert message["method"] == f"update{'' if self._version == 1 else self._version}"
        name, *last_id, updates = message["params"]
        assert name == "m"
        if last_id:
            (self.known.last_id,) = last_id
        self._run.counts["updates"] += 1
        self._take(updates)

    def _take(self, updates: Any) -> None:
        for update in updates.get("State", {}).values():
            ((_, row),) = [(kind, row) for kind, row in update.items() if kind != "old"]
            self.known.number = row["number"]
        for key, update in updates.get("Item", {}).items():
            row = self._updated(self.known.items.pop(key, None), update)
            if row is not None:
                self.known.items[key] = row
        self._check()

    def _updated(self, old: Row | None, update: Any) -> Row | None:
        """The row that was `old` after a `<row-update>` or a `<row-update2>`, which has to fit."""
        if "modify" in update:
            assert old is not None
            json = update["modify"].items()
            return old | {column: changed(column, old[column], new) for column, new in json}
        if "old" in update:
            assert old is not None
            json = update["old"].items()
            assert old | {column: value_of(column, value) for column, value in json} == old
        elif "delete" in update:
            assert old is not None
        else:
            assert old is None
        row = update.get("new", update.get("insert", update.get("initial")))
        if row is None:
            return None
        values = {column: value_of(column, value) for column, value in row.items()}
        return {column: default(column) for column in self._columns} | values

    def _check(self) -> None:
        """What is known is what there was to see of the state of that number."""
        number = self.known.number
        assert 0 <= number < len(self._writer.states)
        self._writer.latest_seen = max(self._writer.latest_seen, number)
        wheres = [self.known.where] if self._coming is None else [self.known.where, self._coming]
        assert any(self.known.items == self._visible(number, where) for where in wheres)

    def _visible(self, number: int, where: Where) -> Items:
        return {
            key: {column: row[column] for column in self._columns}
            for key, row in self._writer.states[number].items()
            if where[1](key, row)
        }
