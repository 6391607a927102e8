"""`kill -9` under load: all acknowledged transactions are found again, by `ovsdb-tool` as well."""

from __future__ import annotations

import os
import random
import threading
import time

from faults.schemas import NAMES, insert, names, names_in
from interop.programs import wait_for
from servers import Client, Closed, Server, Timeout

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "8"))
WRITERS = 4
PIPELINE = 20


def write_until_closed(client: Client, prefix: str, acknowledged: set[str]) -> None:
    """Inserts names, some at a time, and keeps those whose reply said that they are in."""
    number = 0
    try:
        while True:
            batch = [f"{prefix}-{number + index}" for index in range(PIPELINE)]
            number += PIPELINE
            for name in batch:
                client.start("transact", ["Names", insert(name, "x" * 300)], id=name)
            for name in batch:
                reply = client.reply(name)
                assert "uuid" in reply["result"][0], reply
                acknowledged.add(name)
    except (Closed, Timeout, OSError):
        # What had arrived before the end counts as well.
        acknowledged.update(
            reply["id"] for reply in client.replies.values() if "uuid" in reply["result"][0]
        )


def load(server: Server, round_: int, acknowledged: set[str]) -> list[threading.Thread]:
    threads = [
        threading.Thread(
            target=write_until_closed, args=(server.client(), f"{round_}-{writer}", acknowledged)
        )
        for writer in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    return threads


def test_every_acknowledged_transaction_survives_kill_9(ours: str) -> None:
    acknowledged: set[str] = set()
    chance = random.Random(7047)
    with Server(ours, [("names", NAMES)]) as server:
        for round_ in range(ROUNDS):
            threads = load(server, round_, acknowledged)
            if round_ % 3 == 2:
                server.appctl("ovsdb-server/compact")
            time.sleep(chance.uniform(0.02, 0.4))
            if round_ == ROUNDS - 1:
                wait_for(lambda: len(acknowledged) > 100, "some load")
            server.kill9()
            for thread in threads:
                thread.join()
            server.restart()
            client = server.client()
            found = names(client)
            assert acknowledged <= found
            # A record that the kill has cut short, which C's program refuses, ends with a write.
            last = f"{round_}-last"
            assert "uuid" in client.transact("Names", insert(last))[0]
            acknowledged.add(last)
            assert found | {last} == names_in(server.files["names"])


def test_an_orderly_end_loses_nothing_either(ours: str) -> None:
    acknowledged: set[str] = set()
    with Server(ours, [("names", NAMES)]) as server:
        threads = load(server, 0, acknowledged)
        wait_for(lambda: len(acknowledged) > 100, "some load")
        server.stop()
        for thread in threads:
            thread.join()
        assert acknowledged <= names_in(server.files["names"])
        server.restart()
        assert acknowledged <= names(server.client())
