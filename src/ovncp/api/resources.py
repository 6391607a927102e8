"""The routes of all resources, and of all tables: a few patterns, and what a path names in them.

A part of a path may hold any character, a slash too where it is quoted, since OVN's names do.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from ovncp.api import reading, writing
from ovncp.api.call import Call, begin
from ovncp.api.location import PREFIX, RAW, Location, check_location, database_of, locate
from ovncp.ovn.resources import BY_NAME

_PREFIX = PREFIX.encode() + b"/"
_READS = ("GET", "HEAD")
_FIRST = frozenset(name.encode() for name in (RAW, *BY_NAME))


class PathRoute(APIRoute):
    """The route of everything below PREFIX that begins with a resource, as the client wrote it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        before, prefix, path = _raw_path(scope).partition(_PREFIX)
        if before or not prefix or path.partition(b"/")[0] not in _FIRST:
            return Match.NONE, {}
        child = {"endpoint": self.endpoint, "path_params": {}}
        matches_method = scope["method"] in (self.methods or ())
        return Match.FULL if matches_method else Match.PARTIAL, child

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself, which takes no parameters that would have to be found out."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


def _raw_path(scope: Scope) -> bytes:
    path: bytes = scope["raw_path"].partition(b"?")[0]
    return path.removeprefix(scope.get("root_path", "").encode())


def path_below(scope: Scope) -> str:
    """What comes after PREFIX in the path of a request, quoted as it came."""
    return _raw_path(scope).removeprefix(_PREFIX).decode("latin-1")


async def _begin(request: Request, *, changes: bool) -> tuple[Call, Location]:
    call = await begin(request)
    path = path_below(request.scope)
    await call.platform.replicas[database_of(path)].filled()
    location = locate(path, call.platform.replicas)
    check_location(call, location, changes=changes)
    return call, location


async def answer(request: Request) -> Response:
    """One row, or a page of rows; or a change of one, a new one, or the end of one."""
    return await (_read if request.method in _READS else _write)(request)


async def _read(request: Request) -> Response:
    call, location = await _begin(request, changes=False)
    if location.target is not None:
        return reading.one(call, location)
    return await reading.several(call, location)


async def _write(request: Request) -> Response:
    call, location = await _begin(request, changes=True)
    return await writing.write(call, location)


router = APIRouter(route_class=PathRoute)
router.add_api_route(
    PREFIX + "/{path:path}",
    answer,
    methods=[*_READS, "POST", "PATCH", "DELETE"],
    include_in_schema=False,
)
