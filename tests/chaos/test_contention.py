"""Servers that all write to the same row, as fast as they can, each give every client its turn."""

from __future__ import annotations

import pytest

from chaos.subjects import SUBJECTS
from chaos.transactions import NAME, NUMBER
from chaos.victims import ServerVictim

N_EACH = 500
PIPELINE = 20
PATIENCE_S = 60.0

NEXT = {"op": "mutate", "table": "Total", "where": [], "mutations": [["number", "+=", 1]]}


@pytest.mark.parametrize("engine", ["etcd", "postgresql"])
def test_each_number_is_given_once(engine: str) -> None:
    with SUBJECTS[engine]() as subject:
        servers = [v.server for v in subject.servers if isinstance(v, ServerVictim)]
        clients = [server.client(timeout=PATIENCE_S) for server in servers]
        numbers = []
        for _ in range(0, N_EACH, PIPELINE):
            ids = [
                (client, client.start("transact", [NAME, NEXT, NUMBER]))
                for _ in range(PIPELINE)
                for client in clients
            ]
            for client, id in ids:
                numbers.append(client.reply(id)["result"][1]["rows"][0]["number"])
        assert sorted(numbers) == list(range(1, len(clients) * N_EACH + 1))
