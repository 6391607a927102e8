"""No body of a request is larger than a bound, whether it says so first or not."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ovncp.api import problem
from ovncp.api.problem import Problem

LARGEST_BODY_BYTES = 16 << 20

_TEXT = f"a body has {LARGEST_BODY_BYTES} bytes at most"


class BoundedBodies:
    """Refuses those that are larger."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _said_length(scope) > LARGEST_BODY_BYTES:
            answer = problem.response(Problem("too-large", _TEXT), Request(scope))
            await answer(scope, receive, send)
            return
        n_bytes = 0

        async def receive_some() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > LARGEST_BODY_BYTES:
                # Of the framework's kind, which it lets pass where a body is read.
                raise HTTPException(413, _TEXT)
            return message

        await self._app(scope, receive_some, send)


def _said_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
