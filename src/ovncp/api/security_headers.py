"""What browsers are told with every answer: to guess nothing, frame it nowhere, keep it nowhere.

Pages may load what comes from here, and nothing from elsewhere.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
_DATA = [*_ALWAYS, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")]
_PAGE = [
    *_ALWAYS,
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; frame-ancestors 'none'",
    ),
]
_NOT_KEPT = (b"cache-control", b"no-store")
_TLS_ALONE = (b"strict-transport-security", b"max-age=31536000")


class SecurityHeaders:
    """Puts them into every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_tls = scope["scheme"] == "https"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add(message["headers"], is_tls)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _add(headers: list[tuple[bytes, bytes]], is_tls: bool) -> None:
    given = dict(headers)
    is_page = given.get(b"content-type", b"").startswith(b"text/html")
    headers += _PAGE if is_page else _DATA
    if b"cache-control" not in given:
        headers.append(_NOT_KEPT)
    if is_tls:
        headers.append(_TLS_ALONE)
