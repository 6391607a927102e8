"""Each operation of the interface, asked by somebody of each kind: who is turned away, and how.

A route that is new has to be entered here, or the tests fail.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.routing import WebSocketRoute

from everybody import ALL, GLOBAL, OF_A, UNKNOWN, V1, WHO, WRITERS, Everybody, everybody
from ovncp.api import events
from ovncp.api.resources import PathRoute
from ovncp.ovn.resources import BY_NAME, RESOURCES, Resource
from platform_node import databases

PUBLIC = None
"""For anybody, known or not."""
KNOWN = ALL | {"roleless"}
STREAMS = {("GET", "/ws"), ("GET", f"{V1}/events")}

ROUTES = {
    ("GET", "/"): PUBLIC,
    ("GET", "/docs"): PUBLIC,
    ("GET", "/docs/{name}"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
    ("GET", "/health/live"): PUBLIC,
    ("GET", "/health/ready"): PUBLIC,
    ("GET", "/health/startup"): PUBLIC,
    ("GET", "/metrics"): GLOBAL,
    ("GET", "/ws"): ALL,
    ("POST", f"{V1}/login"): PUBLIC,
    ("GET", f"{V1}/login/oidc"): PUBLIC,
    ("GET", f"{V1}/login/oidc/callback"): PUBLIC,
    ("POST", f"{V1}/logout"): KNOWN,
    ("GET", f"{V1}/me"): KNOWN,
    ("PUT", f"{V1}/me/password"): KNOWN,
    ("GET", f"{V1}/me/keys"): KNOWN,
    ("POST", f"{V1}/me/keys"): KNOWN,
    ("DELETE", f"{V1}/me/keys/{{key}}"): KNOWN,
    ("GET", f"{V1}/users"): {"admin"},
    ("POST", f"{V1}/users"): {"admin"},
    ("GET", f"{V1}/users/{{user}}"): {"admin"},
    ("PATCH", f"{V1}/users/{{user}}"): {"admin"},
    ("DELETE", f"{V1}/users/{{user}}"): {"admin"},
    ("GET", f"{V1}/users/{{user}}/keys"): {"admin"},
    ("DELETE", f"{V1}/users/{{user}}/keys/{{key}}"): {"admin"},
    ("GET", f"{V1}/tenants"): GLOBAL,
    ("POST", f"{V1}/tenants"): {"admin"},
    ("GET", f"{V1}/tenants/{{tenant}}"): GLOBAL | OF_A,
    ("PATCH", f"{V1}/tenants/{{tenant}}"): {"admin"},
    ("DELETE", f"{V1}/tenants/{{tenant}}"): {"admin"},
    ("GET", f"{V1}/tenants/{{tenant}}/members"): GLOBAL | OF_A,
    ("PUT", f"{V1}/tenants/{{tenant}}/members/{{user}}"): {"admin", "a-admin"},
    ("DELETE", f"{V1}/tenants/{{tenant}}/members/{{user}}"): {"admin", "a-admin"},
    ("GET", f"{V1}/tenants/{{tenant}}/quotas"): GLOBAL | OF_A,
    ("PUT", f"{V1}/tenants/{{tenant}}/quotas"): {"admin"},
    ("GET", f"{V1}/audit"): {"admin", "a-admin", "b-admin"},
    ("GET", f"{V1}/cluster/nodes"): GLOBAL,
    ("GET", f"{V1}/cluster/nodes/{{node}}"): GLOBAL,
    ("POST", f"{V1}/cluster/nodes/{{node}}/drain"): {"admin"},
    ("GET", f"{V1}/cluster/leader"): GLOBAL,
    ("GET", f"{V1}/cluster/sessions"): GLOBAL,
    ("GET", f"{V1}/cluster/sessions/{{session}}"): GLOBAL,
    ("POST", f"{V1}/cluster/sessions/{{session}}/migrate"): {"admin"},
    ("GET", f"{V1}/cluster/locks"): GLOBAL,
    ("DELETE", f"{V1}/cluster/locks/{{key}}"): {"admin"},
    ("POST", f"{V1}/transactions"): WRITERS,
    ("POST", f"{V1}/batch"): WRITERS,
    ("GET", f"{V1}/topology"): ALL,
    ("POST", f"{V1}/trace"): ALL,
    ("GET", f"{V1}/events"): ALL,
    ("GET", f"{V1}/db/{{database}}/{{table}}"): GLOBAL,
    ("POST", f"{V1}/db/{{database}}/{{table}}"): {"admin"},
    ("GET", f"{V1}/db/{{database}}/{{table}}/{{row}}"): GLOBAL,
    ("PATCH", f"{V1}/db/{{database}}/{{table}}/{{row}}"): {"admin"},
    ("DELETE", f"{V1}/db/{{database}}/{{table}}/{{row}}"): {"admin"},
}
"""Who may ask for what that is no resource; of those all may read and WRITERS change."""

_FILLING = {
    "tenant": "a",
    "user": "unheard-of",
    "database": "nb",
    "table": "Logical_Switch",
    "row": "00000000-0000-0000-0000-000000000001",
    "parent": "00000000-0000-0000-0000-000000000002",
}
_BULK = {"operations": [{"method": "DELETE", "path": "/switches/none"}]}
_BODIES = {f"{V1}/transactions": _BULK, f"{V1}/batch": _BULK}


@pytest.fixture
async def them(tmp_path) -> AsyncIterator[Everybody]:
    with databases("c") as server:
        async with everybody(server, tmp_path) as them:
            # So that the tenant stays, whoever may delete it.
            await them.ask("a-operator", "POST", f"{V1}/switches", {"name": "s"})
            yield them


def plain(path: str) -> str:
    return path.replace(":path}", "}")


def fill(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: _FILLING.get(match[1], "none"), path)


def operations(them: Everybody) -> Iterator[tuple[str, str]]:
    """What the description has: method, path."""
    for path, described in them.app.openapi()["paths"].items():
        for method in described.keys() & {"get", "post", "put", "patch", "delete"}:
            yield method.upper(), path


def routes(router: Any) -> Iterator[tuple[str, str]]:
    """What a router has, and those that it includes; but for the routes of all resources."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from routes(route.original_router)
        elif isinstance(route, WebSocketRoute):
            yield "GET", plain(route.path)
        elif not isinstance(route, PathRoute):
            yield from ((m, plain(route.path)) for m in (route.methods or ()) if m != "HEAD")


def resource_of(path: str) -> Resource | None:
    """The resource that an operation is about, None for other routes."""
    parts = path.removeprefix(f"{V1}/").split("/")
    if len(parts) < 3:
        return BY_NAME.get(parts[0])
    within = {(p.resource, p.path): each for each in RESOURCES for p in each.parents}
    return within.get((parts[0], parts[2]))


def who_may(method: str, path: str) -> set[str] | None:
    resource = resource_of(path)
    if resource is None:
        return ROUTES[method, path]
    if method != "GET":
        return WRITERS
    return ALL | {"key"} if resource.name == "switches" else ALL


async def test_there_is_an_entry_for_every_route(them: Everybody) -> None:
    others = {key for key in operations(them) if resource_of(key[1]) is None}
    others |= set(routes(them.app))
    assert sorted(others - ROUTES.keys()) == []
    assert sorted(ROUTES.keys() - others) == []


async def test_each_operation_turns_away_whom_it_should(them: Everybody) -> None:
    wrong = []
    logout = ("POST", f"{V1}/logout")
    asked = sorted({*operations(them), *ROUTES} - STREAMS - {logout})
    for method, path in [*asked, logout]:
        allowed = who_may(method, path)
        body = _BODIES.get(path, {}) if method in ("POST", "PUT", "PATCH") else None
        for who in WHO if allowed is not PUBLIC else ():
            answer = await them.ask(who, method, fill(path), body)
            status = answer.status_code
            if path.endswith("/batch") and status == 200:
                status = answer.json()["results"][0]["status"]  # Each has its own.
            turned_away = 401 if who in UNKNOWN else 403
            if (status == turned_away) == (who in allowed) or status == 429:
                wrong.append((who, method, path, answer.text))
    assert wrong == []


async def test_what_is_for_everybody_is_no_secret(them: Everybody) -> None:
    for (method, path), allowed in ROUTES.items():
        if allowed is PUBLIC:
            answer = await them.ask("nobody", method, fill(path), {})
            assert answer.status_code in (200, 302, 401, 404, 422), (path, answer.status_code)


@pytest.mark.parametrize("kind", ["websocket", "sse"])
async def test_events_are_for_those_who_are_known(them: Everybody, kind: str) -> None:
    path = "/ws" if kind == "websocket" else f"{V1}/events"
    for who in WHO:
        listening = them.listen(who, kind)
        try:
            status = await listening.status()
        finally:
            await listening.close()
        if who in ROUTES["GET", path]:
            assert status == (101 if kind == "websocket" else 200), who
        else:
            assert status == (401 if who in UNKNOWN else 403), who


@pytest.mark.parametrize("kind", ["websocket", "sse"])
async def test_who_is_shut_out_is_told_no_more(
    them: Everybody, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOK_SECONDS", 0.05)
    staying = them.listen("a-operator", kind, "resources=switches")
    leaving = {who: them.listen(who, kind, "resources=switches") for who in ("viewer", "a-viewer")}
    for each in (staying, *leaving.values()):
        await each.subscribed()
    await them.ask("admin", "DELETE", f"{V1}/tenants/a/members/a-viewer")
    await them.ask("viewer", "POST", f"{V1}/logout")
    for each in leaving.values():
        while await each.message():
            pass
    await them.ask("a-operator", "POST", f"{V1}/switches", {"name": "after"})
    assert await staying.events("after")
    for each in (staying, *leaving.values()):
        await each.close()
