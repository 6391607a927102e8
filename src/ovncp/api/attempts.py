"""Attempts at writing by who may not, as the audit trail has them."""

from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from ovncp.api import problem
from ovncp.api.audit import Record
from ovncp.api.identification import address_of
from ovncp.api.location import locate
from ovncp.api.platform import Platform
from ovncp.api.problem import NotAllowed, Problem
from ovncp.api.resources import path_below

_ACTIONS = {"POST": "create", "PUT": "change", "PATCH": "change", "DELETE": "delete"}
_READ_BY_POST = ("trace",)


async def on_not_allowed(request: Request, error: Exception) -> Response:
    """Answer who may not do what they ask for."""
    assert isinstance(error, NotAllowed)
    await tell(request, error, *(error.operation or (request.method, path_below(request.scope))))
    return problem.response(error, request)


async def tell(request: Request, error: NotAllowed, method: str, path: str) -> None:
    """Tell the audit trail that `path`, below /api/v1, was not to be written so."""
    platform: Platform = request.app.state.platform
    action = _ACTIONS.get(method)
    resource, target = _named(path, platform)
    if action is None or resource in _READ_BY_POST:
        return
    record = Record(
        request.scope["principal"],
        request.scope["request_id"],
        address_of(request),
        action,
        resource,
        target,
        None,
        None,
        error.kind,
    )
    await platform.refusals.tell(platform.audit, record)


def _named(path: str, platform: Platform) -> tuple[str, str]:
    """The resource, and the row or whatever of it, that a path is about."""
    try:
        location = locate(path, platform.replicas)
    except Problem:
        first, _, rest = unquote(path.strip("/")).partition("/")
        return first, rest
    return location.resource.name, location.target or ""
