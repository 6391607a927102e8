"""Three nodes behind HAProxy with 300 clients, to which everything happens; see `deployed`."""

from __future__ import annotations

import asyncio

import pytest

from deployed import faults
from deployed.deployment import deployed
from deployed.judge import judge
from deployed.run import clients

SCENARIOS = {
    "nodes come and go": ("ovncp", [faults.a_node_is_killed]),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_nothing_is_lost_doubled_or_told_wrongly(scenario: str) -> None:
    kind, happening = SCENARIOS[scenario]
    async with deployed(kind) as deployment:
        async with clients(deployment) as history:
            for happens in happening:
                await asyncio.sleep(1)
                await happens(deployment)
    assert judge(history) == []
    assert sum(heard.n_sessions for heard in history.heard) > len(history.heard)
