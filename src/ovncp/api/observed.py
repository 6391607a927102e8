"""Around every request: it is counted, timed, logged and traced, and answered even if it broke."""

from __future__ import annotations

import logging
import time

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ovncp.api import location, problem
from ovncp.api.problem import Problem
from ovncp.api.requests import Requests
from ovncp.api.resources import PathRoute, path_below
from ovncp.api.tracing import Spans

_LOG = logging.getLogger("ovncp.api.requests")

UNMATCHED = "unmatched"
"""The route of what no route is for."""

_BROKE = "something broke here; the log has it, under the request's id"
_READS = ("GET", "HEAD", "OPTIONS")
_METHODS = (*_READS, "POST", "PUT", "PATCH", "DELETE")


class Observed:
    """The middleware; `requests` and `spans` are told of each request."""

    def __init__(self, app: ASGIApp, requests: Requests, spans: Spans) -> None:
        self._app = app
        self._requests = requests
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        method = scope["method"] if scope["method"] in _METHODS else "other"

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, route = message["status"], route_of(scope)
                self._requests.answered(method, route, status, time.perf_counter() - begun)
                span.answered(method, route, status)
            await send(message)

        with self._spans.request(scope) as span:
            try:
                await self._app(scope, receive, send_on)
            except Exception:
                _LOG.exception("%s %s broke", method, scope["path"])
                if status:
                    raise
                answer = problem.response(Problem("error", _BROKE), Request(scope))
                await answer(scope, receive, send_on)
            finally:
                _log(scope, method, status, time.perf_counter() - begun)


def route_of(scope: Scope) -> str:
    """The template of the path, as the description has it."""
    if "endpoint" not in scope:
        return UNMATCHED
    route = scope.get("route")
    if isinstance(route, PathRoute):
        return location.template(path_below(scope))
    path: str = scope["path"] if route is None else route.path
    return path


def _log(scope: Scope, method: str, status: int, seconds: float) -> None:
    level = _level(scope["path"], method, status)
    if not _LOG.isEnabledFor(level):
        return
    fields = {
        "method": method,
        "path": scope["path"],
        "route": route_of(scope),
        "status": status,
        "seconds": round(seconds, 6),
        "address": scope["client"][0] if scope.get("client") else "",
    }
    principal = scope.get("principal")
    if principal is not None:
        fields |= {"principal": principal.name}
        fields |= {} if principal.tenant is None else {"tenant": principal.tenant}
    _LOG.log(level, "%s %s: %d", method, scope["path"], status, extra={"fields": fields})


def _level(path: str, method: str, status: int) -> int:
    """Probes, and what is read, are many; what is refused or changes something is of interest."""
    if path.startswith("/health/") or (method in _READS and status < 400):
        return logging.DEBUG
    return logging.WARNING if status >= 500 else logging.INFO
