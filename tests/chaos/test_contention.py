"""Servers that all write to the same row, as fast as they can, and have to let each other."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest

from chaos.subjects import SUBJECTS
from chaos.transactions import NAME, NUMBER
from chaos.victims import ServerVictim
from servers import Client

N_TRANSACTIONS = 1500
PIPELINE = 60
N_MORE = 5
PATIENCE_S = 60.0

NEXT = {"op": "mutate", "table": "Total", "where": [], "mutations": [["number", "+=", 1]]}


@pytest.mark.parametrize("engine", ["etcd", "postgresql"])
def test_each_number_is_given_once_and_each_client_its_turn(engine: str) -> None:
    with SUBJECTS[engine]() as subject:
        draw = random.Random(1)
        servers = [v.server for v in subject.servers if isinstance(v, ServerVictim)]
        clients = [server.client(timeout=PATIENCE_S) for server in servers]
        waiting: deque[tuple[Client, Any]] = deque()
        numbers = []
        for n_sent in range(N_TRANSACTIONS + PIPELINE):
            if n_sent < N_TRANSACTIONS:
                client = draw.choice(clients)
                waiting.append((client, client.start("transact", [NAME, NEXT, NUMBER])))
            if n_sent >= PIPELINE:
                client, id = waiting.popleft()
                numbers.append(client.reply(id)["result"][1]["rows"][0]["number"])
        # And when nobody is in another's way any more.
        for client in clients * N_MORE:
            numbers.append(client.transact(NAME, NEXT, NUMBER)[1]["rows"][0]["number"])
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
