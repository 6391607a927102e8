"""Random schemas and transactions get the same answers from the C server and from ours.

Each seed is a schema with a hundred transactions, watched by an unconditional and a conditional
monitor.  `FUZZ_SEEDS=1000-1200 pytest tests/conformance/test_fuzz_differential.py` tries others.

What is left out of the comparison: `_version`, the order of rows, and the details of an error
(the row that they name is the first in the order of hashes).
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from conformance.random_database import RandomDatabase
from servers import Client, Server

SEEDS = [int(seed) for seed in os.environ.get("FUZZ_SEEDS", "0-11").split("-")]
N_TRANSACTIONS = 100


# A row with several wrong columns is refused for the first of them in the order of hashes.
REFUSED = dict.fromkeys(("syntax error", "constraint violation"), "refused")


class Side:
    """A server, a client that writes, and one that watches."""

    def __init__(self, server: Server) -> None:
        self.writer = server.client()
        self.watcher = server.client()

    def answers(self, operations: list[Any]) -> list[Any]:
        """The results, and what the watcher was told, in a form that can be compared."""
        reply = self.writer.request("transact", ["db", *operations])
        return [[plain_result(result) for result in reply["result"]], *self.told()]

    def told(self) -> list[Any]:
        settle(self.watcher)
        told, self.watcher.notifications = self.watcher.notifications, []
        updates = [(message["params"][0], plain_updates(message["params"][1])) for message in told]
        return [update for update in sorted(updates, key=content) if update[1]]

    def monitor(self, method: str, requests: dict[str, Any]) -> Any:
        return plain_reply(self.watcher.request(method, ["db", method, requests]))

    def change(self, conditions: dict[str, Any]) -> list[Any]:
        params = ["monitor_cond", "monitor_cond", conditions]
        return [plain_reply(self.watcher.request("monitor_cond_change", params)), *self.told()]


def content(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def settle(client: Client) -> None:
    """Wait for what the writer's last transaction has caused."""
    client.sync("db")


def plain_reply(reply: dict[str, Any]) -> Any:
    return (
        plain_updates(reply["result"]) if reply["error"] is None else plain_result(reply["error"])
    )


def plain_result(result: Any) -> Any:
    error = (result or {}).get("error")
    if error is not None:
        return REFUSED.get(error, error)
    if result and "rows" in result:
        return sorted(result["rows"], key=content)
    return result


def plain_updates(updates: dict[str, Any]) -> dict[str, Any]:
    """The updates without rows of which nothing that is monitored has changed."""
    tables = {
        name: {uuid: row for uuid, row in rows.items() if row != {"modify": {}}}
        for name, rows in updates.items()
    }
    return {name: rows for name, rows in tables.items() if rows}


@pytest.mark.parametrize("seed", range(SEEDS[0], SEEDS[-1] + 1))
def test_same_answers(seed: int) -> None:
    random = RandomDatabase(seed)
    with (
        Server("c", [("db", random.schema)]) as c,
        Server("ovncp", [("db", random.schema)]) as ours,
    ):
        sides = [Side(server) for server in (c, ours)]
        history: list[Any] = []

        def agree(method: str, *args: Any) -> None:
            history.append([method, *args])
            theirs, mine = (getattr(side, method)(*args) for side in sides)
            assert mine == theirs, report(seed, random, history)

        agree("monitor", "monitor", random.monitor_requests(False))
        agree("monitor", "monitor_cond", random.monitor_requests(True))
        for number in range(N_TRANSACTIONS):
            agree("answers", random.transaction())
            if number % 10 == 9:
                table = random.any_table()
                agree("change", {table: [{"where": random.condition(table)}]})


def report(seed: int, random: RandomDatabase, history: list[Any]) -> str:
    steps = "\n".join(json.dumps(step) for step in history[-3:])
    return f"seed {seed}, step {len(history)}\n{json.dumps(random.schema)}\n...\n{steps}"
