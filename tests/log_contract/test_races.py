"""Batches that several processes propose at one head: one is made, however they overlap."""

from __future__ import annotations

import asyncio
import json

import pytest

from log_contract.faults import opened
from log_contract.racer import racers
from ovncp.log.contract.case import entries_from
from ovncp.log.engine import Head

N_ROUNDS = 60
LENGTHS = (1, 2, 5, 40)


@pytest.mark.parametrize("kind", ["etcd", "postgres"])
async def test_of_batches_that_overlap_one_is_made(kind, request):
    location = request.getfixturevalue(kind).url("race")
    async with opened(location) as log, racers(location, len(LENGTHS)) as running:
        head = await log._read_head()
        winners = []
        for _ in range(N_ROUNDS):
            proposals = zip(running, LENGTHS, strict=True)
            made = await asyncio.gather(*(racer.propose(head, n) for racer, n in proposals))
            assert sum(made) == 1
            winner = made.index(True)
            winners += [running[winner].name] * LENGTHS[winner]
            before, head = head, await log._read_head()
            assert head.next_index == before.next_index + LENGTHS[winner]
            # Whoever has not heard of it is refused: within what is there, across it, behind it.
            for late, n_entries in ((before, 1), (before, 2 * max(LENGTHS))):
                assert not await running[0].propose(late, n_entries)
            assert not await running[1].propose(Head(head.next_index, before.version), 1)
        assert [json.loads(entry.data) for entry in await entries_from(log, 1)] == winners
        assert len(set(winners)) > 1
