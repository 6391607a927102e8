"""Who asks, and what they may do: asked on every route, answered by whoever `Access` is given.

Without users and tenants everybody is the administrator of this node, which listens on this machine
alone then.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from starlette.requests import HTTPConnection, Request

from ovncp.api.problem import NotAllowed
from ovncp.auth import decision
from ovncp.auth.principal import Identity, Principal, Role


class Access(Protocol):
    """Finds out who asks."""

    async def identity(self, connection: HTTPConnection) -> Identity:
        """Who asks, whatever for. Raises Problem, "unauthorized"."""

    async def principal(self, connection: HTTPConnection) -> Principal:
        """Who made the request, or opened the WebSocket, as they are for it.

        Raises Problem, "unauthorized" or "forbidden".
        """

    async def quotas(self, tenant: str) -> Mapping[str, int]:
        """How many rows of a resource the tenant may have, by the resource's name."""


class OpenAccess:
    """Everybody is the administrator."""

    _EVERYBODY = Identity("anonymous", "anonymous", Role.ADMIN)

    async def identity(self, connection: HTTPConnection) -> Identity:
        """See `Access.identity`."""
        return self._EVERYBODY

    async def principal(self, connection: HTTPConnection) -> Principal:
        """See `Access.principal`."""
        return self._EVERYBODY.acting(None)

    async def quotas(self, tenant: str) -> Mapping[str, int]:
        """See `Access.quotas`."""
        return {}


async def principal_of(connection: HTTPConnection) -> Principal:
    """Who asks; a dependency for routes of any kind."""
    access: Access = connection.app.state.platform.access
    principal = await access.principal(connection)
    connection.scope["principal"] = principal
    return principal


def may_read(thing: str) -> Callable[[Request], Awaitable[Principal]]:
    """The dependency of a route that shows a thing, as `ovncp.auth.decision` names them."""

    async def allowed(request: Request) -> Principal:
        principal = await principal_of(request)
        allow(principal, thing, changes=False)
        return principal

    return allowed


def allow(principal: Principal, thing: str, *, changes: bool) -> None:
    """Refuse who may not read, or change, a thing as `ovncp.auth.decision` names them.

    What of it is seen is another question. Raises NotAllowed.
    """
    allow_in(principal.tenant, principal, thing, changes=changes)


def allow_in(tenant: str | None, principal: Principal, thing: str, *, changes: bool) -> None:
    """As `allow`, where the thing is one `tenant`'s. Raises NotAllowed."""
    action = decision.action(thing, changes=changes)
    decided = decision.allowed(principal, action, tenant)
    if not decided.allowed:
        raise NotAllowed(decided.why)
