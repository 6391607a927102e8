"""Every request has an id: the client's own `X-Request-ID`, if it is a decent one, or a new one."""

import re
import uuid
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADER = b"x-request-id"
_DECENT = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}\Z").match

current: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered, for logs; "" outside of one."""


class RequestIds:
    """Puts the id into the scope, as `request_id`, and into the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        request_id = given if _DECENT(given) else uuid.uuid4().hex.encode()
        scope["request_id"] = request_id.decode()
        current.set(scope["request_id"])

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (_HEADER, request_id)]
            await send(message)

        await self._app(scope, receive, send_with_id)
