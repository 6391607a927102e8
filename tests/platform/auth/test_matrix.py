"""Each operation of the interface, asked by somebody of each kind: who is turned away, and how.

A route or a resource that is new has to be entered here, or the tests fail.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from argon2 import PasswordHasher
from starlette.routing import WebSocketRoute

from api_in_process import platform
from least_rows import LEAST
from ovncp.api import app
from ovncp.api.resources import PathRoute
from ovncp.auth.accounts import Accounts
from ovncp.auth.passwords import Passwords
from ovncp.auth.principal import Role
from ovncp.auth.settings import AuthSettings, DatabaseSettings
from ovncp.ovn.resources import BY_NAME, NORTHBOUND, RESOURCES, SOUTHBOUND
from platform_node import databases

WHO = ("viewer", "operator", "admin", "a-viewer", "a-operator", "a-admin", "b-admin", "key")
"""Those with a role over everything, members of tenants a and b, and a key for `switches:read`."""

ALL = set(WHO) - {"key"}
GLOBAL = {"viewer", "operator", "admin"}
WRITERS = {"operator", "admin", "a-operator", "a-admin", "b-admin"}
OF_A = {"a-viewer", "a-operator", "a-admin"}
PUBLIC = None
"""For anybody, known or not."""

V1 = "/api/v1"
ROUTES = {
    ("GET", "/docs"): PUBLIC,
    ("GET", "/docs/{name}"): PUBLIC,
    ("GET", "/redoc"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
    ("GET", "/health/live"): PUBLIC,
    ("GET", "/health/ready"): PUBLIC,
    ("GET", "/health/startup"): PUBLIC,
    ("GET", "/metrics"): GLOBAL,
    ("POST", f"{V1}/login"): PUBLIC,
    ("GET", f"{V1}/login/oidc"): PUBLIC,
    ("GET", f"{V1}/login/oidc/callback"): PUBLIC,
    ("POST", f"{V1}/logout"): ALL,
    ("GET", f"{V1}/me"): ALL,
    ("PUT", f"{V1}/me/password"): ALL,
    ("GET", f"{V1}/me/keys"): ALL,
    ("POST", f"{V1}/me/keys"): ALL,
    ("DELETE", f"{V1}/me/keys/{{key}}"): ALL,
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
SOCKETS = {"/ws"}

# Whether a tenant can have rows of it: its own, or by another row's; or none.
OWN, HELD, NEVER = "own", "held", "never"
THINGS = {
    "switches": OWN,
    "switch-ports": HELD,
    "forwarding-groups": HELD,
    "qos": HELD,
    "routers": OWN,
    "router-ports": HELD,
    "static-routes": HELD,
    "policies": HELD,
    "nat": HELD,
    "gateway-chassis": HELD,
    "acls": HELD,
    "port-groups": OWN,
    "address-sets": OWN,
    "load-balancers": OWN,
    "health-checks": HELD,
    "load-balancer-groups": NEVER,
    "dhcp-options": OWN,
    "dns": OWN,
    "meters": OWN,
    "meter-bands": HELD,
    "ha-chassis-groups": OWN,
    "ha-chassis": HELD,
    "bfd": OWN,
    "static-mac-bindings": NEVER,
    "mirrors": OWN,
    "copp": OWN,
    "chassis-template-vars": OWN,
    **dict.fromkeys(
        (
            "chassis",
            "port-bindings",
            "datapaths",
            "logical-flows",
            "mac-bindings",
            "service-monitors",
            "igmp-groups",
        ),
        NEVER,
    ),
}

_FILLING = {
    "tenant": "a",
    "user": "nobody",
    "database": "nb",
    "table": "Logical_Switch",
    "key": "none",
    "node": "none",
    "session": "none",
    "name": "none",
    "row": "00000000-0000-0000-0000-000000000001",
    "parent": "00000000-0000-0000-0000-000000000002",
}
_BODIES = {
    f"{V1}/transactions": {"operations": [{"method": "DELETE", "path": "/switches/none"}]},
    f"{V1}/batch": {"operations": [{"method": "DELETE", "path": "/switches/none"}]},
}
STALE = '"00000000-0000-0000-0000-000000000000"'


@pytest.fixture(scope="module")
def server():
    with databases("c") as server:
        yield server


@pytest.fixture
async def node(server, tmp_path) -> AsyncIterator:
    """A node with accounts, and somebody of each kind; `asking` are their clients."""
    async with platform(server, accounts=lambda node: accounts_of(node, tmp_path)) as node:
        await node.accounts.prepare()
        tokens = await make_everybody(node.accounts)
        application = app.make(node)
        transport = httpx.ASGITransport(application)

        def client(token):
            headers = {} if token is None else {"authorization": f"Bearer {token}"}
            return httpx.AsyncClient(
                transport=transport, base_url=f"http://node{V1}", headers=headers
            )

        node.app = application
        node.asking = {name: client(token) for name, token in tokens.items()}
        yield node


def accounts_of(node, folder):
    quick = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    settings = AuthSettings(DatabaseSettings(f"sqlite:///{folder}/accounts.db"))
    return Accounts(settings, node, lambda text: None, quick)


async def make_everybody(accounts):
    tokens = {"nobody": None, "forged": "ovncp_key_forged"}
    for tenant in "ab":
        await accounts.tenants.create(tenant, "")
    for name in ("roleless", *WHO):
        role = Role.named(name) if name in GLOBAL else None
        if name == "key":
            soon = datetime.now(UTC) + timedelta(hours=1)
            _, tokens[name] = await accounts.credentials.create_key(
                "admin", name, soon, None, None, ["switches:read"]
            )
            continue
        if name == "admin":
            user = await accounts.users.get(name)
        else:
            user = await accounts.users.create(name, role, None)
        tenant, _, role_there = name.partition("-")
        if role_there:
            await accounts.tenants.put_member(tenant, name, Role.named(role_there))
        tokens[name], _ = await accounts.log_in(user, "::1")
    return tokens


def fill(path):
    return re.sub(r"\{(\w+)(?::path)?\}", lambda match: _FILLING[match[1]], path)


def plain(path):
    return path.replace(":path}", "}")


async def ask(node, name, method, path, **others):
    answer = await node.asking[name].request(method, f"http://node{path}", **others)
    assert answer.status_code < 500, f"{name} {method} {path}: {answer.text}"
    return answer


def operations(node):
    """What the description has: method, path."""
    for path, described in node.app.openapi()["paths"].items():
        for method in described.keys() & {"get", "post", "put", "patch", "delete"}:
            yield method.upper(), path


def resource_of(path):
    """The resource that an operation is about, None for other routes."""
    parts = path.removeprefix(f"{V1}/").split("/")
    if parts[0] not in BY_NAME:
        return None
    if len(parts) < 3:
        return BY_NAME[parts[0]]
    return next(
        r
        for r in RESOURCES
        if any(p.resource == parts[0] and p.path == parts[2] for p in r.parents)
    )


def who_may(method, path):
    resource = resource_of(path)
    if resource is None:
        return ROUTES[method, path]
    reads = method == "GET"
    return (ALL if reads else WRITERS) | (
        {"key"} if reads and resource.name == "switches" else set()
    )


def all_routes(router):
    """The routes of a router, and of those that it includes."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from all_routes(route.original_router)
        else:
            yield route


async def test_there_is_an_entry_for_every_route_and_every_resource(node):
    assert [r.name for r in RESOURCES if r.name not in THINGS] == []
    described = {key for key in operations(node) if resource_of(key[1]) is None}
    routed = set()
    for route in all_routes(node.app):
        if isinstance(route, WebSocketRoute):
            assert plain(route.path) in SOCKETS
        elif not isinstance(route, PathRoute):
            routed |= {(m, plain(route.path)) for m in (route.methods or ()) if m != "HEAD"}
    assert sorted((described | routed) - ROUTES.keys()) == []
    assert sorted(ROUTES.keys() - described - routed) == []


async def test_each_operation_turns_away_whom_it_should(node):
    await make(node, "a-operator", "switches")  # So that the tenant stays.
    for method, path in sorted({*operations(node), *ROUTES}):
        allowed = who_may(method, path)
        if allowed is PUBLIC or path == f"{V1}/events":
            continue
        body = _BODIES.get(path, {}) if method in ("POST", "PUT", "PATCH") else None
        for name in ("nobody", "forged", "roleless", *WHO):
            answer = await ask(node, name, method, fill(path), json=body)
            if name in ("nobody", "forged"):
                expected = {401}
            elif name in allowed:
                expected = set(range(200, 500)) - {401, 403, 429}
            else:
                expected = {403}
            status = answer.status_code
            if path.endswith("/batch") and status == 200:
                status = answer.json()["results"][0]["status"]  # Each has its own.
            assert status in expected, (name, method, path, answer.text)


async def test_what_is_for_everybody_is_no_secret(node):
    for (method, path), allowed in ROUTES.items():
        if allowed is PUBLIC:
            answer = await ask(node, "nobody", method, fill(path), json={})
            assert answer.status_code in (200, 302, 401, 404, 422), (path, answer.status_code)


async def test_events_are_for_those_who_are_known(node):
    for name in ("nobody", "forged", "roleless", "key"):
        answer = await ask(node, name, "GET", f"{V1}/events")
        assert answer.status_code == (401 if name in ("nobody", "forged") else 403)


_numbers = itertools.count()


async def make(node, name, thing, place=""):
    """A row that `name` makes, and where."""
    resource = BY_NAME[thing]
    path = f"{V1}/{thing}"
    if resource.parents:
        parent = resource.parents[0]
        _, row = await make(node, name, parent.resource)
        path = f"{V1}/{parent.resource}/{row['_uuid']}/{parent.path}"
    fields = dict(LEAST[thing])
    if resource.order == "name":
        fields["name"] = f"{thing}-{next(_numbers)}"
    for column in {"logical_port", "chassis"} & fields.keys():
        fields[column] = f"x{next(_numbers)}"
    answer = await ask(node, name, "POST", path, json=fields)
    return path, answer.json() if answer.status_code == 201 else answer.status_code


@pytest.mark.parametrize("thing", [r.name for r in RESOURCES if not r.is_read_only])
async def test_rows_are_seen_and_touched_by_those_whose_they_are(node, thing):
    place, row = await make(node, "a-operator", thing)
    if THINGS[thing] == NEVER:
        assert row == 422
        place, row = await make(node, "admin", thing)
        await check_row(node, thing, place, row, GLOBAL)
        return
    await check_row(node, thing, place, row, GLOBAL | OF_A)
    place, row = await make(node, "admin", thing)
    await check_row(node, thing, place, row, GLOBAL)


async def check_row(node, thing, place, row, seeing):
    path = f"{V1}/{thing}/{row['_uuid']}"
    stale = {"if-match": STALE}
    for name in sorted(ALL):
        sees = name in seeing
        got = await ask(node, name, "GET", path)
        assert got.status_code == (200 if sees else 404), (name, path)
        listed = await ask(node, name, "GET", f"{V1}/{thing}?limit=1000")
        uuids = [item["_uuid"] for item in listed.json()["items"]]
        assert (row["_uuid"] in uuids) == sees
        counted = await ask(node, name, "GET", f"{V1}/{thing}?_uuid={row['_uuid']}&count=true")
        if counted.status_code == 200:
            assert counted.json()["count"] == sees
        for method, body in (("PATCH", {}), ("DELETE", None)):
            for where in {path, f"{place}/{row['_uuid']}"}:
                answer = await ask(node, name, method, where, json=body, headers=stale)
                if name not in WRITERS:
                    assert answer.status_code == 403, (name, method, where)
                else:
                    assert answer.status_code == (412 if sees else 404), (name, method, where)
    assert (await ask(node, "admin", "GET", path)).status_code == 200


async def test_rows_of_the_southbound_are_for_those_whose_network_it_is(node, server):
    _, switch = await make(node, "a-operator", "switches")
    ids = [["logical-switch", switch["_uuid"]]]
    datapath = {"tunnel_key": 7, "external_ids": ["map", ids]}
    chassis = {"name": "hv", "encaps": ["named-uuid", "e"]}
    encap = {"type": "geneve", "ip": "1.1.1.1", "chassis_name": "hv"}
    server.client().transact(
        SOUTHBOUND,
        {"op": "insert", "table": "Datapath_Binding", "row": datapath},
        {"op": "insert", "table": "Encap", "row": encap, "uuid-name": "e"},
        {"op": "insert", "table": "Chassis", "row": chassis},
    )
    server.client().sync(NORTHBOUND)
    while not (await ask(node, "admin", "GET", f"{V1}/chassis")).json()["items"]:
        pass
    for name in sorted(ALL):
        for thing, seeing in (("datapaths", GLOBAL | OF_A), ("chassis", GLOBAL)):
            found = (await ask(node, name, "GET", f"{V1}/{thing}")).json()["items"]
            assert len(found) == (name in seeing), (name, thing)
