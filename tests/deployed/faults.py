"""What happens to a deployment while its clients go on, each time until all is whole again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from itertools import cycle

from deployed.deployment import NODES, PATIENCE_SECONDS, WIRED, Deployment

Fault = Callable[[Deployment], Awaitable[None]]

_DOWN_SECONDS = 1.5
_CUT_SECONDS = 8.0
"""Longer than the leader's lease, and a node's timeout."""
PAUSE_SECONDS = 20.0
_ONE_IN = 30
"""Of the clients one in so many is asked to move."""


async def a_node_is_killed(deployment: Deployment) -> None:
    """The leader, which has its clients come to the others."""
    name = await deployment.leader()
    deployment.kill_node(name)
    await asyncio.sleep(_DOWN_SECONDS)
    await deployment.start_node(name)
    await deployment.is_whole()


async def a_node_is_drained(deployment: Deployment) -> None:
    """The leader, by SIGTERM."""
    name = await deployment.leader()
    status = await deployment.drain_node(name)
    assert status == 0, f"{name} ended with {status}"
    await deployment.start_node(name)
    await deployment.is_whole()


async def a_node_is_cut_from_redis(deployment: Deployment) -> None:
    """One that has clients; it may lead or not."""
    deployment.wire.cut()
    await asyncio.sleep(_CUT_SECONDS)
    others = [name for name in NODES if name != WIRED]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await deployment.leader(others) == WIRED:
            await asyncio.sleep(0.2)
    deployment.wire.mend()
    await deployment.is_whole()


async def sessions_migrate(deployment: Deployment) -> None:
    """Some clients are asked to move, by whichever node is asked."""
    listed = await deployment.told(NODES[0], "/cluster/sessions")
    n_asked = 0
    for node, session in zip(cycle(NODES), listed["items"][::_ONE_IN], strict=False):
        path = f"/cluster/sessions/{session['id']}/migrate"
        answer = await deployment.ask(node, path, method="POST")
        if answer is not None:  # Or it is over by now, with a node that was killed.
            assert answer["to"] != session["node"], (answer, session)
            n_asked += 1
    assert n_asked


async def redis_restarts(deployment: Deployment) -> None:
    """At its own pace, and then killed; it keeps what it has."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deployment.redis.signal(number)
        await asyncio.sleep(0.3)
        deployment.redis.kill()
        await asyncio.to_thread(deployment.redis.start)
        await deployment.is_whole()


async def redis_stands_still(deployment: Deployment) -> None:
    """For longer than anything waits for it."""
    with deployment.redis.paused():
        await asyncio.sleep(PAUSE_SECONDS)
    await deployment.is_whole()


async def postgres_fails_over(deployment: Deployment) -> None:
    """Its primary crashes, and the standby takes over."""
    await deployment.fail_postgres_over()
    await deployment.is_whole()


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        a_node_is_killed,
        a_node_is_drained,
        a_node_is_cut_from_redis,
        sessions_migrate,
        redis_restarts,
        redis_stands_still,
        postgres_fails_over,
    )
}
REPEATABLE = [name for name in FAULTS if name != postgres_fails_over.__name__]
"""Those that may happen again and again: there is one standby."""
