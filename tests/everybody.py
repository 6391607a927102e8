"""Somebody of each kind, and what they ask a node in this process: requests, sockets, streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from argon2 import PasswordHasher
from fastapi import FastAPI

from api_in_process import platform
from ovncp.api import app
from ovncp.api.platform import Platform
from ovncp.auth.accounts import Accounts
from ovncp.auth.passwords import Passwords
from ovncp.auth.principal import Role
from ovncp.auth.settings import AuthSettings, DatabaseSettings
from ovncp.cluster.node import Node
from servers import Server

V1 = "/api/v1"

GLOBAL = {"viewer", "operator", "admin"}
OF_A = {"a-viewer", "a-operator", "a-admin"}
ALL = GLOBAL | OF_A | {"b-admin"}
"""Those with a role over everything, and members of the tenants a and b."""
WRITERS = {"operator", "admin", "a-operator", "a-admin", "b-admin"}
UNKNOWN = {"nobody", "forged"}
WHO = (*sorted(UNKNOWN), "roleless", "key", *sorted(ALL))
"""Besides those: without any token, with one that is made up, with no role, with a key that is good
for `switches:read` alone."""


def quick_passwords() -> Passwords:
    """Such as are checked at once, and not safe at all."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


class Everybody:
    """Asks as any of WHO."""

    def __init__(self, node: Platform, tokens: dict[str, str | None]) -> None:
        self.node = node
        self.app = app.make(node)
        self._headers = {
            name: {} if token is None else {"authorization": f"Bearer {token}"}
            for name, token in tokens.items()
        }
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://node"
        )

    async def ask(
        self, who: str, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        """The answer, which is no failure of ours."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self._client.request(
            method, path, json=body, headers=self._headers[who] | given
        )
        assert answer.status_code < 500, f"{who} {method} {path}: {answer.text}"
        return answer

    async def get(self, who: str, path: str) -> Any:
        """What somebody reads below /api/v1, who may."""
        answer = await self.ask(who, "GET", f"{V1}{path}")
        assert answer.status_code == 200, f"{who} {path}: {answer.text}"
        return answer.json()

    def listen(self, who: str, kind: str, query: str = "") -> Listening:
        """Somebody's conversation over "websocket" or "sse"."""
        return Listening(self.app, kind, self._headers[who], query)


class Listening:
    """A client of events, over either transport, as ASGI has them."""

    def __init__(self, app: FastAPI, kind: str, headers: dict[str, str], query: str) -> None:
        path = "/ws" if kind == "websocket" else f"{V1}/events"
        scope = {
            "type": "websocket" if kind == "websocket" else "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "ws" if kind == "websocket" else "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("node", 80),
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        if kind == "websocket":
            self.said.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.create_task(app(scope, self.said.get, self._heard.put))

    async def status(self) -> int:
        """How it was answered; 101 if it goes on as a WebSocket."""
        message = await asyncio.wait_for(self._heard.get(), 10)
        return 101 if message["type"] == "websocket.accept" else int(message["status"])

    async def message(self) -> dict[str, Any]:
        """The next message; an empty one at the end."""
        while True:
            heard = await asyncio.wait_for(self._heard.get(), 10)
            if heard["type"] == "websocket.close" or heard.get("more_body") is False:
                return {}
            text = heard.get("text") or heard.get("body", b"").decode()
            for line in text.splitlines():
                if line.startswith(("data: ", "{")):
                    found: dict[str, Any] = json.loads(line.removeprefix("data: "))
                    return found

    async def subscribed(self) -> None:
        """Return once what happens is told; who asked is let in."""
        assert await self.status() in (101, 200)
        while (await self.message())["type"] != "subscribed":
            pass

    async def events(self, last: str) -> list[dict[str, Any]]:
        """All events up to that of the row with the name `last`."""
        found: list[dict[str, Any]] = []
        while not any(event.get("name") == last for event in found):
            message = await self.message()
            assert message, f"it ended before {last}"
            found += message.get("events", [])
        return found

    async def close(self) -> None:
        """Listen no more."""
        self.said.put_nowait({"type": "websocket.disconnect", "code": 1000})
        self._task.cancel()
        await asyncio.wait([self._task])


@asynccontextmanager
async def everybody(server: Server, folder: Path) -> AsyncIterator[Everybody]:
    """A node with accounts in front of both databases at `server`, and somebody of each kind."""

    def accounts_of(node: Node) -> Accounts:
        settings = AuthSettings(DatabaseSettings(f"sqlite:///{folder}/accounts.db"))
        return Accounts(settings, node, lambda text: None, quick_passwords())

    async with platform(server, accounts=accounts_of) as node:
        assert node.accounts is not None
        await node.accounts.prepare()
        yield Everybody(node, await _tokens(node.accounts))


async def _tokens(accounts: Accounts) -> dict[str, str | None]:
    tokens: dict[str, str | None] = {"nobody": None, "forged": "ovncp_key_forged"}
    for tenant in "ab":
        await accounts.tenants.create(tenant, "")
    for name in ("roleless", *sorted(ALL)):
        role = Role.named(name) if name in GLOBAL else None
        if name == "admin":
            user = await accounts.users.get(name)
        else:
            user = await accounts.users.create(name, role, None)
        tenant, _, role_there = name.partition("-")
        if role_there:
            await accounts.tenants.put_member(tenant, name, Role.named(role_there))
        tokens[name], _ = await accounts.log_in(user, "::1")
    soon, scopes = datetime.now(UTC) + timedelta(hours=1), ["switches:read"]
    _, tokens["key"] = await accounts.credentials.create_key(
        "admin", "key", soon, None, None, scopes
    )
    return tokens
