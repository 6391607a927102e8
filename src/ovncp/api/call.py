"""One request, as those who answer it need to know it."""

from dataclasses import dataclass

from starlette.requests import Request

from ovncp.api import access, sight
from ovncp.api.platform import Platform
from ovncp.auth.principal import Principal
from ovncp.ovn.tenancy import View


@dataclass(frozen=True)
class Call:
    """Who asks what for: `request_id` is what logs, the audit trail and the answer have."""

    platform: Platform
    principal: Principal
    view: View
    request: Request
    request_id: str
    address: str


async def begin(request: Request) -> Call:
    """The call that `request` is, when all is here that who asks has written before.

    Raises Problem, and SessionLost if there is no Northbound yet.
    """
    platform: Platform = request.app.state.platform
    principal = await access.principal_of(request)
    await platform.nb.filled()
    await platform.sight.catch_up(principal.id, sight.shown_by(request))
    address = request.client.host if request.client is not None else ""
    request_id = request.scope["request_id"]
    return Call(platform, principal, platform.view(principal), request, request_id, address)
