"""Three nodes behind HAProxy with 300 clients, to which everything happens; see `deployed`."""

from __future__ import annotations

import asyncio

import pytest

from deployed import faults
from deployed.deployment import deployed
from deployed.history import History
from deployed.judge import judge
from deployed.run import clients

PAUSE_SECONDS = 1.0


async def seen(kind: str, *happening: faults.Fault) -> History:
    """What clients see, who write and listen, while all that happens."""
    async with deployed(kind) as deployment, clients(deployment) as history:
        for happens in happening:
            await asyncio.sleep(PAUSE_SECONDS)
            await happens(deployment)
    return history


@pytest.mark.timeout(300)
async def test_nodes_are_killed_and_drained_and_cut_off() -> None:
    history = await seen(
        "ovncp",
        faults.a_node_is_killed,
        faults.sessions_migrate,
        faults.a_node_is_drained,
        faults.a_node_is_cut_from_redis,
    )
    assert judge(history) == []
    assert len(history.terms) > 2
    assert sum(heard.n_moved for heard in history.heard)
    assert sum(heard.n_sessions for heard in history.heard) > len(history.heard)


@pytest.mark.timeout(300)
async def test_redis_and_postgresql_fail() -> None:
    history = await seen(
        "c", faults.postgres_fails_over, faults.redis_restarts, faults.redis_stands_still
    )
    assert judge(history) == []
    assert len(history.terms) > 1
