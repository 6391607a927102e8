"""Whether this node lives, has started, and is to be sent requests: for probes and load balancers.

A dependency is needed if requests fail without it. Without Redis and the Southbound a node goes on
reading and changing the Northbound: that they are down is told, and keeps no requests from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from ovncp.api.platform import Platform
from ovncp.auth.errors import DatabaseUnavailable
from ovncp.cluster.base import Unavailable
from ovncp.ovn.replica import Replica

if TYPE_CHECKING:
    from ovncp.auth.accounts import Accounts

PATIENCE_SECONDS = 1.0
"""For how long a dependency may take to answer."""

router = APIRouter(prefix="/health", tags=["health"])


class Dependency(BaseModel):
    """What this node depends on."""

    status: Literal["up", "down"]
    needed: bool = Field(description="Whether the node is not ready while it is down.")


class Health(BaseModel):
    """How this node is."""

    status: Literal["live", "started", "starting", "ready", "not ready", "draining"]
    node: str
    dependencies: dict[str, Dependency] = Field(default={}, description="By their names.")


_NOT_WELL: dict[int | str, dict[str, object]] = {503: {"model": Health}}


@router.get("/live", summary="Whether the node lives")
async def live(request: Request) -> Health:
    """Answer, which is all that is asked: a node that does not is to be started again."""
    platform: Platform = request.app.state.platform
    return Health(status="live", node=platform.node.id)


@router.get("/startup", summary="Whether the node has started", responses=_NOT_WELL)
async def startup(request: Request, response: Response) -> Health:
    """Whether the node has read the Northbound once, and prepared the database of accounts."""
    platform: Platform = request.app.state.platform
    has_accounts = platform.accounts is None or platform.accounts.is_prepared
    has_started = platform.nb.is_filled and has_accounts
    response.status_code = 200 if has_started else 503
    return Health(status="started" if has_started else "starting", node=platform.node.id)


@router.get("/ready", summary="Whether the node is to be sent requests", responses=_NOT_WELL)
async def ready(request: Request, response: Response) -> Health:
    """Whether all that is needed is in reach, and the node is not about to end."""
    platform: Platform = request.app.state.platform
    readiness: Readiness = request.app.state.readiness
    dependencies = await readiness.dependencies()
    health = Health(status="ready", node=platform.node.id, dependencies=dependencies)
    if any(each.needed and each.status == "down" for each in dependencies.values()):
        health.status = "not ready"
    if platform.node.is_draining:
        health.status = "draining"
    response.status_code = 200 if health.status == "ready" else 503
    return health


class Readiness:
    """Looks at what a node depends on; once for all who ask meanwhile, as anybody may ask."""

    def __init__(self, platform: Platform) -> None:
        self._needs = needs_of(platform)
        self._looking: asyncio.Task[dict[str, Dependency]] | None = None

    async def dependencies(self) -> dict[str, Dependency]:
        """How each is, by its name."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> dict[str, Dependency]:
        answers = await asyncio.gather(*map(_is_up, self._needs))
        return {
            need.name: Dependency(status="up" if is_up else "down", needed=need.is_needed)
            for need, is_up in zip(self._needs, answers, strict=True)
        }


class Need(NamedTuple):
    """A dependency; `look` returns if it can be used, and raises an error if not."""

    name: str
    is_needed: bool
    look: Callable[[], Awaitable[None]]


class _Down(Exception):
    """It cannot be used."""


def needs_of(platform: Platform) -> list[Need]:
    """What a node depends on, as it is configured."""
    needs = [
        Need("northbound", True, lambda: _look_at_replica(platform.nb)),
        Need("southbound", False, lambda: _look_at_replica(platform.sb)),
    ]
    if platform.node.settings.redis is not None:
        needs.append(Need("redis", False, platform.node.store.check))
    accounts = platform.accounts
    if accounts is not None:
        needs.append(Need("database", True, lambda: _look_at_accounts(accounts)))
    return needs


async def _look_at_replica(replica: Replica) -> None:
    if not replica.is_live:
        raise _Down


async def _look_at_accounts(accounts: Accounts) -> None:
    if not accounts.is_prepared:
        raise _Down
    await accounts.database.check()


async def _is_up(need: Need) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await need.look()
    except (_Down, TimeoutError, Unavailable, DatabaseUnavailable):
        return False
    return True
