"""Who changes a database, and knows every state that it ever had."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from soak.connection import Connection, Lost, connect
from soak.run import Run
from soak.values import COLUMNS, Items, Row, default, shown


def _begin() -> list[Any]:
    everything = [{"op": "delete", "table": name, "where": []} for name in ("Item", "State")]
    return [*everything, {"op": "insert", "table": "State", "row": {"number": 0}}]


class Writer:
    """Changes the database `name`. `states` has its items by the state's number.

    The last of them may be one that is asked for and never comes to be, if the server dies: then
    no client may have seen it.
    """

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        self.name = name
        self.states: list[Items] = [{}]
        self.latest_seen = 0
        self.is_idle = asyncio.Event()

    async def run(self) -> None:
        """Write until it is over."""
        connection = await connect(self._run.endpoints[0])
        await connection.request("transact", [self.name, *_begin()])
        while not self._run.is_over:
            if self._run.is_quiet:
                self.is_idle.set()
                await asyncio.sleep(0.02)
                continue
            self.is_idle.clear()
            operations, items = self._draw()
            self.states.append(items)
            try:
                results = await connection.request("transact", [self.name, *operations])
            except Lost:
                connection = await self._settle()
            else:
                assert len(results) == len(operations), results
            self._run.counts["transactions"] += 1
        self.is_idle.set()
        await connection.close()

    async def _settle(self) -> Connection:
        """Find out whether the latest state came to be."""
        select = {"op": "select", "table": "State", "where": [], "columns": ["number"]}
        while True:
            connection = await connect(self._run.endpoints[0])
            try:
                (result,) = await connection.request("transact", [self.name, select])
            except Lost:
                continue
            number = result["rows"][0]["number"]
            assert number in (len(self.states) - 1, len(self.states) - 2), "a state was lost"
            if number < len(self.states) - 1:
                self.states.pop()
                self._run.counts["transactions that never were"] += 1
            assert self.latest_seen <= number, "a client saw what is not stored"
            return connection

    def _draw(self) -> tuple[list[Any], Items]:
        """The operations that lead to the next state, and its items."""
        number = len(self.states) - 1
        items = dict(self.states[-1])
        guard = {"op": "wait", "table": "State", "where": [], "columns": ["number"], "timeout": 0}
        operations: list[Any] = [guard | {"until": "==", "rows": [{"number": number}]}]
        operations += [self._change(items) for _ in range(self._run.draw.randint(1, 4))]
        row = {"number": number + 1}
        operations.append({"op": "update", "table": "State", "where": [], "row": row})
        living = frozenset(items)
        for key, item in items.items():
            if not item["peers"] <= living:
                items[key] = item | {"peers": item["peers"] & living}
        return operations, items

    def _change(self, items: Items) -> Any:
        """An operation, which is done to `items`."""
        draw = self._run.draw
        if not items or draw.random() < 1.2 - len(items) / 100:
            key = str(uuid.UUID(int=draw.getrandbits(128), version=4))
            items[key] = {column: default(column) for column in COLUMNS} | self._values(items)
            row = {column: shown(column, value) for column, value in items[key].items()}
            return {"op": "insert", "table": "Item", "uuid": key, "row": row}
        key = draw.choice(list(items))
        where = [["_uuid", "==", ["uuid", key]]]
        if draw.random() < 0.2:
            del items[key]
            return {"op": "delete", "table": "Item", "where": where}
        values = self._values(items)
        items[key] = items[key] | values
        row = {column: shown(column, value) for column, value in values.items()}
        return {"op": "update", "table": "Item", "where": where, "row": row}

    def _values(self, items: Items) -> Row:
        """New values for some columns."""
        draw = self._run.draw
        some = [str(number) for number in range(6)]
        values = {
            "k": draw.randrange(20),
            "kind": f"kind {draw.randrange(4)}",
            "text": "x" * draw.choice([0, 10, 1000, 100_000]),
            "tags": frozenset(draw.sample(some, draw.randrange(4))),
            "ids": frozenset((key, draw.choice(some)) for key in draw.sample(some, 2)),
            "tag": frozenset(draw.choice([[], [1], [2], [3]])),
            "peers": frozenset(draw.sample(list(items), min(len(items), draw.randrange(3)))),
        }
        return {column: values[column] for column in draw.sample(list(values), 3)}
