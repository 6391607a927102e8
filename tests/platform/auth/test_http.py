"""Accounts over HTTP: logins, keys, users, tenants, the audit trail, nodes and their sessions."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import pytest

from api_in_process import platform
from everybody import quick_passwords
from oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider
from ovncp.api import app, refusals
from ovncp.auth.accounts import Accounts
from ovncp.auth.principal import Role
from ovncp.auth.settings import AuthSettings, DatabaseSettings, OidcSettings
from ovncp.cli import api_node
from ovncp.cli.config import ServerSection
from ovncp.cluster.memory import Memory
from ovncp.cluster.rates import Limit
from ovncp.cluster.sessions import Session
from ovncp.server.preflight import Refused
from platform_node import Node, databases
from servers import OVNCP

PASSWORD = "correct horse battery"
BASE = "http://node/api/v1"
EDGES_OF_TIME = ("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00")
"""Moments that are beyond all calendars in UTC."""


@pytest.fixture(scope="module")
def server():
    with databases("c") as server:
        yield server


class World:
    """A node with accounts, and clients of it."""

    def __init__(self, node):
        self.node = node
        self.accounts = node.accounts
        self.app = app.make(node)

    def client(self, token=None, address="127.0.0.1", **headers):
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(self.app, client=(address, 1))
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers)

    async def user(self, name, role=None, **tenants):
        """A client of a new user, who has logged in."""
        user = await self.accounts.users.create(name, role, PASSWORD)
        for tenant, there in tenants.items():
            await self.accounts.tenants.put_member(tenant, name, there)
        token, _ = await self.accounts.log_in(user, "::1")
        return self.client(token)


def accounts_with(folder, said, **settings):
    def make(node):
        database = DatabaseSettings(f"sqlite:///{folder}/accounts.db")
        return Accounts(AuthSettings(database, **settings), node, said.append, quick_passwords())

    return make


@pytest.fixture
async def open_world(server, tmp_path):
    opened = []

    async def open_one(**settings):
        said = []
        manager = platform(server, accounts=accounts_with(tmp_path, said, **settings))
        node = await manager.__aenter__()
        opened.append(manager)
        await node.accounts.prepare()
        world = World(node)
        world.said = said
        for tenant in "ab":
            await world.accounts.tenants.create(tenant, "")
        world.admin = await world.user("root", Role.ADMIN)
        return world

    yield open_one
    for manager in opened:
        await manager.__aexit__(None, None, None)


@pytest.fixture
async def world(open_world):
    return await open_world()


async def checked(answering, status=200):
    answer = await answering
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def kind(problem):
    return problem["type"].rpartition(":")[2]


def in_an_hour():
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


class TestLogin:
    async def test_with_a_password_and_out_again(self, world):
        await world.user("ann", Role.VIEWER)
        anybody = world.client()
        body = {"name": "ann", "password": PASSWORD}
        found = await checked(anybody.post("/login", json=body))
        assert datetime.fromisoformat(found["expires"]) > datetime.now(UTC)
        ann = world.client(found["token"])
        me = await checked(ann.get("/me"))
        assert (me["name"], me["role"], me["tenants"]) == ("ann", "viewer", {})
        await checked(ann.post("/logout"), 204)
        await checked(ann.get("/me"), 401)
        for wrong in ({"name": "ann", "password": "x"}, {"name": "nn", "password": PASSWORD}):
            assert kind(await checked(anybody.post("/login", json=wrong), 401)) == "unauthorized"
        for bad in ({}, {"name": "ann", "password": PASSWORD, "x": 1}, {"name": 1}):
            await checked(anybody.post("/login", json=bad), 422)

    async def test_by_basic_in_one_request(self, world):
        await world.user("ann", Role.VIEWER)
        async with world.client() as anybody:
            for auth, status in (
                (("ann", PASSWORD), 200),
                (("ann", "wrong"), 401),
                (("ann", PASSWORD), 200),
            ):
                answer = await anybody.get("/switches", auth=auth)
                assert answer.status_code == status
            assert 'Basic realm="ovncp"' in (await anybody.get("/me")).headers["www-authenticate"]
            for odd in ("Basic x", "Basic", "Basic w6k=", "Digest x", "Bearer", ""):
                answer = await anybody.get("/me", headers={"authorization": odd})
                assert answer.status_code == 401

    async def test_in_a_browser_by_a_cookie_that_other_sites_cannot_use(self, world):
        await world.user("ann", Role.OPERATOR)
        browser = world.client(origin="http://node")
        login = {"name": "ann", "password": PASSWORD, "cookie": True}
        answer = await browser.post("/login", json=login)
        cookie = answer.headers["set-cookie"].lower()
        assert answer.status_code == 204 and "httponly" in cookie and "samesite=lax" in cookie
        await checked(browser.get("/me"))
        await checked(browser.post("/switches", json={"name": "by cookie"}), 201)
        switch = {"name": "by another"}
        for headers, status in (
            ({"origin": "http://evil"}, 403),
            ({"origin": "null"}, 403),
            ({"origin": ""}, 403),
            ({"sec-fetch-site": "cross-site"}, 403),
            ({"sec-fetch-site": "same-site"}, 403),
            ({"sec-fetch-site": "same-origin"}, 201),
        ):
            await checked(browser.post("/switches", json=switch | {"name": str(headers)},
                                       headers=headers), status)  # fmt: skip
        evil = world.client(origin="http://evil")
        await checked(evil.post("/login", json=login), 403)
        await checked(browser.post("/logout"), 204)
        assert "ovncp_session" not in browser.cookies
        await checked(browser.get("/me"), 401)

    async def test_too_many_failures_are_told_when_to_come_again(self, open_world):
        world = await open_world(login_limit=Limit(2, 60.0))
        await world.user("ann", Role.VIEWER)
        anybody = world.client()
        for _ in range(2):
            await checked(anybody.post("/login", json={"name": "ann", "password": "x"}), 401)
        answer = await anybody.post("/login", json={"name": "ann", "password": PASSWORD})
        assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= 60
        elsewhere = world.client(address="10.0.0.1")
        await checked(elsewhere.post("/login", json={"name": "ann", "password": PASSWORD}))

    async def test_the_rate_is_limited_by_user_and_by_address(self, open_world):
        world = await open_world(user_limit=Limit(5, 60.0), address_limit=Limit(8, 60.0))
        ann, ben = [await world.user(name, Role.VIEWER) for name in ("ann", "ben")]
        statuses = [(await ann.get("/me")).status_code for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        answers = [await ben.get("/switches") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        login = {"name": "ann", "password": PASSWORD}
        await checked(world.client().post("/login", json=login), 429)
        await checked(world.client().get("/login/oidc"), 429)
        await checked(world.client(address="10.0.0.1").post("/login", json=login))


class TestKeys:
    async def test_a_key_is_made_used_and_ended(self, world):
        ann = await world.user("ann", Role.OPERATOR)
        new = {"name": "ci", "expires": in_an_hour(), "scopes": ["switches:read"]}
        made = await checked(ann.post("/me/keys", json=new), 201)
        assert made["token"].startswith("ovncp_key_") and made["scopes"] == ["switches:read"]
        key = world.client(made["token"])
        await checked(key.get("/switches"))
        await checked(key.post("/switches", json={"name": "x"}), 403)
        await checked(key.get("/routers"), 403)
        (listed,) = (await checked(ann.get("/me/keys")))["items"]
        assert "token" not in listed and "hash" not in listed and listed["used"]
        await checked(world.admin.delete(f"/me/keys/{made['id']}"), 404)
        await checked(ann.delete(f"/me/keys/{made['id']}"), 204)
        await checked(key.get("/switches"), 401)

    async def test_a_key_cannot_become_more(self, world):
        ann = await world.user("ann", Role.ADMIN)
        new = {"name": "k", "expires": in_an_hour(), "role": "viewer"}
        key = world.client((await checked(ann.post("/me/keys", json=new), 201))["token"])
        for_all = {"name": "more", "expires": in_an_hour()}
        await checked(key.post("/me/keys", json=for_all), 403)
        await checked(key.put("/me/password", json={"old": PASSWORD, "new": PASSWORD * 2}), 403)
        await checked(key.get("/users"), 403)

    async def test_a_key_for_one_tenant(self, world):
        ann = await world.user("ann", None, a=Role.OPERATOR, b=Role.OPERATOR)
        new = {"name": "k", "expires": in_an_hour(), "tenant": "a"}
        key = world.client((await checked(ann.post("/me/keys", json=new), 201))["token"])
        row = await checked(key.post("/switches", json={"name": "of a"}), 201)
        assert row["external_ids"] == {"ovncp:tenant": "a"}
        await checked(key.get("/switches", headers={"ovn-tenant": "b"}), 403)

    async def test_an_administrator_ends_anybodys(self, world):
        ann = await world.user("ann", Role.VIEWER)
        new = {"name": "k", "expires": in_an_hour()}
        made = await checked(ann.post("/me/keys", json=new), 201)
        (listed,) = (await checked(world.admin.get("/users/ann/keys")))["items"]
        assert listed["id"] == made["id"]
        await checked(world.admin.delete(f"/users/root/keys/{made['id']}"), 404)
        await checked(world.admin.delete(f"/users/ann/keys/{made['id']}"), 204)
        await checked(world.client(made["token"]).get("/me"), 401)

    async def test_what_makes_no_sense_is_refused(self, world):
        for bad in (
            {"name": "k"},
            {"name": "", "expires": in_an_hour()},
            {"name": "k", "expires": "2020-01-01T00:00:00Z"},
            {"name": "k", "expires": in_an_hour(), "scopes": ["all"]},
            {"name": "k", "expires": in_an_hour(), "role": "king"},
            *({"name": "k", "expires": edge} for edge in EDGES_OF_TIME),
        ):
            assert kind(await checked(world.admin.post("/me/keys", json=bad), 422)) == "invalid"
        nowhere = {"name": "k", "expires": in_an_hour(), "tenant": "nowhere"}
        await checked(world.admin.post("/me/keys", json=nowhere), 404)


class TestUsersAndTenants:
    async def test_users(self, world):
        new = {"name": "ann", "role": "operator", "password": PASSWORD}
        made = await checked(world.admin.post("/users", json=new), 201)
        assert "password" not in made
        assert kind(await checked(world.admin.post("/users", json=new), 409)) == "conflict"
        token, _ = await world.accounts.log_in(await world.accounts.users.get("ann"), "::1")
        ann = world.client(token)
        changed = await checked(world.admin.patch("/users/ann", json={"role": "viewer"}))
        assert changed["role"] == "viewer"
        assert (await checked(ann.get("/me")))["role"] == "viewer"
        await checked(world.admin.patch("/users/ann", json={"is_active": False}))
        await checked(ann.get("/me"), 401)
        names = [user["name"] for user in (await checked(world.admin.get("/users")))["items"]]
        assert names == ["admin", "ann", "root"]
        await checked(world.admin.delete(f"/users/{made['id']}"), 204)
        await checked(world.admin.get("/users/ann"), 404)
        for bad in ({"name": "a b"}, {"name": "x", "password": "short"}, {"naam": "x"}):
            await checked(world.admin.post("/users", json=bad), 422)

    async def test_the_last_administrator_stays(self, world):
        await checked(world.admin.delete("/users/admin"), 204)
        for answering in (
            world.admin.delete("/users/root"),
            world.admin.patch("/users/root", json={"role": None}),
        ):
            assert kind(await checked(answering, 409)) == "conflict"

    async def test_ones_own_password(self, world):
        ann = await world.user("ann", Role.VIEWER)
        new = {"old": PASSWORD, "new": "another good one"}
        await checked(ann.put("/me/password", json={**new, "old": "wrong"}), 403)
        await checked(ann.put("/me/password", json=new), 204)
        await checked(ann.get("/me"), 401)
        for password, status in ((PASSWORD, 401), ("another good one", 200)):
            body = {"name": "ann", "password": password}
            await checked(world.client().post("/login", json=body), status)

    async def test_a_tenants_administrator_sees_to_its_members(self, world):
        boss = await world.user("boss", None, a=Role.ADMIN)
        ann = await world.user("ann")
        await checked(ann.get("/switches"), 403)
        member = await checked(boss.put("/tenants/a/members/ann", json={"role": "operator"}))
        assert (member["user"], member["role"]) == ("ann", "operator")
        await checked(ann.get("/switches"))
        assert len((await checked(ann.get("/tenants/a/members")))["items"]) == 2
        for answering in (
            ann.put("/tenants/a/members/ann", json={"role": "admin"}),
            boss.put("/tenants/b/members/ann", json={"role": "viewer"}),
            boss.put("/tenants/a/quotas", json={}),
            boss.post("/tenants", json={"id": "c"}),
        ):
            await checked(answering, 403)
        await checked(boss.delete("/tenants/a/members/ann"), 204)
        await checked(ann.get("/switches"), 403)

    async def test_who_belongs_to_several_names_one(self, world):
        ann = await world.user("ann", None, a=Role.OPERATOR, b=Role.VIEWER)
        assert "a, b" in (await checked(ann.get("/switches"), 403))["detail"]
        me = await checked(ann.get("/me"))
        assert (me["tenants"], me["acting"]) == ({"a": "operator", "b": "viewer"}, None)
        acting = (await checked(ann.get("/me", headers={"ovn-tenant": "b"})))["acting"]
        assert acting == {"role": "viewer", "tenant": "b"}
        in_a, in_b = ({"ovn-tenant": tenant} for tenant in "ab")
        await checked(ann.post("/switches", json={"name": "mine"}, headers=in_a), 201)
        await checked(ann.post("/switches", json={"name": "mine"}, headers=in_b), 403)
        assert (await checked(ann.get("/switches/mine", headers=in_a)))["name"] == "mine"
        await checked(ann.get("/switches/mine", headers=in_b), 404)
        await checked(ann.get("/switches", headers={"ovn-tenant": "c"}), 403)

    async def test_a_tenant_has_no_more_than_its_quota(self, world):
        ann = await world.user("ann", None, b=Role.OPERATOR)
        for bad in ({"colours": 3}, {"switches": -1}, {"chassis": 1}, {"switches": "x"}):
            await checked(world.admin.put("/tenants/b/quotas", json=bad), 422)
        await checked(world.admin.put("/tenants/b/quotas", json={"switches": 2}))
        assert await checked(ann.get("/tenants/b/quotas")) == {"switches": 2}
        for number in range(2):
            await checked(ann.post("/switches", json={"name": f"q{number}"}), 201)
        problem = await checked(ann.post("/switches", json={"name": "q3"}), 403)
        assert kind(problem) == "quota"
        await checked(world.admin.put("/tenants/b/quotas", json={}))
        await checked(ann.post("/switches", json={"name": "q3"}), 201)

    async def test_a_tenant_goes_when_it_has_nothing(self, world):
        made = await checked(
            world.admin.post("/tenants", json={"id": "c", "description": "x"}), 201
        )
        assert made["id"] == "c"
        await checked(world.admin.post("/tenants", json={"id": "c"}), 409)
        await checked(world.admin.post("/tenants", json={"id": "C"}), 422)
        ann = await world.user("ann", None, c=Role.OPERATOR)
        await checked(ann.post("/switches", json={"name": "last"}), 201)
        assert kind(await checked(world.admin.delete("/tenants/c"), 409)) == "in-use"
        await checked(ann.delete("/switches/last"), 204)
        described = await checked(world.admin.patch("/tenants/c", json={"description": "y"}))
        assert described["description"] == "y"
        await checked(world.admin.delete("/tenants/c"), 204)
        await checked(ann.get("/switches"), 403)


class TestTheTrail:
    async def test_every_change_is_told_with_what_came_of_it(self, world):
        ann = await world.user("ann", None, a=Role.OPERATOR)
        given = {"x-request-id": "r-1"}
        row = await checked(ann.post("/switches", json={"name": "told"}, headers=given), 201)
        path = f"/switches/{row['_uuid']}"
        await checked(ann.patch(path, json={"other_config": {"k": "v"}}), 200)
        await checked(ann.patch(path, json={}, headers={"if-match": '"1"'}), 412)
        await checked(world.admin.patch(path, json={"other_config": {"k": "w"}}), 200)
        await checked(ann.delete(path), 204)
        async with asyncio.timeout(5):
            while len(found := await records(world.admin, resource="switches")) < 5:
                await asyncio.sleep(0.01)
        assert [(r["action"], r["result"], r["principal"], r["tenant"]) for r in found] == [
            ("delete", "done", "ann", "a"),
            ("change", "done", "root", "a"),
            ("change", "stale", "ann", "a"),
            ("change", "done", "ann", "a"),
            ("create", "done", "ann", "a"),
        ]
        first, last = found[-1], found[0]
        assert first["request_id"] == "r-1" and first["address"] == "127.0.0.1"
        assert first["before"] is None and first["after"]["name"] == "told"
        assert last["after"] is None and last["before"]["other_config"] == {"k": "w"}
        assert found[3]["before"]["other_config"] == {}
        assert found[3]["after"]["other_config"] == {"k": "v"}
        assert {record["target"] for record in found} == {row["_uuid"]}

    async def test_what_is_done_to_accounts_is_told_and_no_secrets(self, world):
        new = {"name": "ann", "password": PASSWORD}
        await checked(world.admin.post("/users", json=new), 201)
        await checked(world.admin.post("/users", json=new), 409)
        await checked(world.admin.put("/tenants/a/members/ann", json={"role": "viewer"}))
        await checked(world.admin.put("/tenants/a/quotas", json={"switches": 5}))
        key = {"name": "k", "expires": in_an_hour()}
        token = (await checked(world.admin.post("/me/keys", json=key), 201))["token"]
        found = await records(world.admin)
        assert [(r["resource"], r["action"], r["result"], r["tenant"]) for r in found] == [
            ("keys", "create", "done", None),
            ("quotas", "change", "done", "a"),
            ("members", "change", "done", "a"),
            ("users", "create", "conflict", None),
            ("users", "create", "done", None),
        ]
        assert found[1]["after"] == {"switches": 5}
        for secret in (PASSWORD, token, "argon2"):
            assert secret not in repr(found)

    async def test_it_is_read_in_pages_and_by_who_may(self, world):
        boss = await world.user("boss", None, a=Role.ADMIN)
        for number in range(7):
            await checked(boss.post("/address-sets", json={"name": f"s{number}"}), 201)
        await checked(world.admin.post("/address-sets", json={"name": "not theirs"}), 201)
        seen, before = [], {}
        while True:
            query = {"limit": 3, "resource": "address-sets", **before}
            page = await checked(boss.get("/audit", params=query))
            seen += page["items"]
            if page["next"] is None:
                break
            before = {"before": page["next"]}
        assert [r["after"]["name"] for r in seen] == [f"s{n}" for n in reversed(range(7))]
        (found,) = await records(world.admin, target=seen[0]["target"])
        assert await records(world.admin, since=found["at"]) == [
            r for r in await records(world.admin) if r["at"] >= found["at"]
        ]
        assert await records(boss, tenant="b") == await records(boss, tenant="a")
        edges = ({name: edge} for name in ("since", "until") for edge in EDGES_OF_TIME)
        for bad in ({"limit": 0}, {"limit": 1001}, {"colour": "red"}, {"since": "x"}, *edges):
            await checked(boss.get("/audit", params=bad), 422)

    async def test_nothing_is_changed_while_it_cannot_be_kept(self, world, monkeypatch):
        monkeypatch.setattr(type(world.accounts.database), "is_away", property(lambda _: True))
        for answering in (
            world.admin.post("/switches", json={"name": "untold"}),
            world.admin.post("/users", json={"name": "untold"}),
        ):
            problem = await checked(answering, 503)
            assert kind(problem) == "unavailable"
        await checked(world.admin.get("/switches/untold"), 404)

    async def test_who_may_not_write_is_told_and_cannot_fill_the_database(self, world):
        viewer = await world.user("viewer", Role.VIEWER, a=Role.OPERATOR)
        await checked(world.admin.post("/switches", json={"name": "told"}), 201)
        operation = {"method": "PATCH", "path": "/switches/told", "body": {}}
        bulk = {"operations": [{"method": "DELETE", "path": "/meters/m"}, operation]}
        await checked(viewer.post("/switches", json={}), 403)
        await checked(viewer.delete("/switches/told"), 403)
        await checked(viewer.post("/db/nb/ACL", json={}), 403)
        await checked(viewer.post("/transactions", json=bulk), 403)
        results = (await checked(viewer.post("/batch", json=bulk)))["results"]
        assert [result["status"] for result in results] == [403, 403]
        await checked(viewer.patch("/users/root", json={"is_active": False}), 403)
        # What is only read is no attempt at writing.
        await checked(viewer.get("/users"), 403)
        found = await records(world.admin, principal="viewer")
        assert [(r["action"], r["resource"], r["target"]) for r in reversed(found)] == [
            ("create", "switches", ""),
            ("delete", "switches", "told"),
            ("create", "ACL", ""),
            ("delete", "meters", "m"),
            ("delete", "meters", "m"),
            ("change", "switches", "told"),
            ("change", "users", "root"),
        ]
        assert {(r["result"], r["before"], r["after"]) for r in found} == {
            ("forbidden", None, None)
        }
        assert all(record["request_id"] and record["address"] for record in found)

        stranger, elsewhere = await world.user("stranger", None, a=Role.ADMIN), {"ovn-tenant": "b"}
        await checked(stranger.post("/routers", json={}, headers=elsewhere), 403)
        await checked(stranger.post("/trace", json={}, headers=elsewhere), 403)
        (one,) = await records(world.admin, principal="stranger")
        assert (one["resource"], one["result"], one["tenant"]) == ("routers", "forbidden", None)

        for _ in range(100):
            await checked(viewer.delete("/switches/told"), 403)
        assert len(await records(world.admin, principal="viewer")) == refusals.FEW
        inside = {"ovn-tenant": "a"}
        await checked(viewer.put("/tenants/a/quotas", json={}, headers=inside), 403)
        await world.node.refusals.close()
        many, one, *others = await records(world.admin, principal="viewer")
        assert (one["resource"], one["target"], one["tenant"]) == ("tenants", "a/quotas", "a")
        assert len(others) == refusals.FEW
        told = many["action"], many["result"], many["after"]
        assert told == ("several", "forbidden", {"refused": 100 + len(found) - refusals.FEW})


async def records(client, **query):
    return (await checked(client.get("/audit", params=query)))["items"]


async def test_an_answer_is_kept_with_its_idempotency_key(world):
    headers = {"idempotency-key": "k1"}
    first = await world.admin.post("/switches", json={"name": "once"}, headers=headers)
    again = await world.admin.post("/switches", json={"name": "once"}, headers=headers)
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert first.status_code == 201 and first.headers["etag"] == again.headers["etag"]
    other = await world.admin.post("/switches", json={"name": "other"}, headers=headers)
    assert other.status_code == 422
    ann = await world.user("ann", Role.OPERATOR)
    await checked(ann.post("/switches", json={"name": "hers"}, headers=headers), 201)
    headers |= {"ovn-tenant": "a"}
    await checked(ann.post("/switches", json={"name": "hers"}, headers=headers), 422)


class TestOidc:
    @pytest.fixture
    def provider(self):
        with OidcProvider() as provider:
            yield provider

    @pytest.fixture
    async def world(self, open_world, provider):
        return await open_world(
            oidc=OidcSettings(
                provider.issuer,
                CLIENT_ID,
                CLIENT_SECRET,
                roles={"eyes": Role.VIEWER},
                tenants={"team": ("a", Role.OPERATOR)},
                redirect_url=f"{BASE}/login/oidc/callback",
            )
        )

    async def test_a_browser_logs_in(self, world, provider):
        provider.claims |= {"groups": ["eyes", "team"]}
        browser = world.client()
        back = await visit(await browser.get("/login/oidc"))
        answer = await browser.get(back)
        assert answer.status_code == 302 and answer.headers["location"] == "/"
        me = await checked(browser.get("/me"))
        assert (me["name"], me["role"], me["tenants"]) == ("ann", "viewer", {"a": "operator"})
        await checked(browser.get(back), 401)

    async def test_nobody_comes_back_for_somebody_else(self, world, provider):
        mine, theirs = world.client(), world.client()
        back = await visit(await theirs.get("/login/oidc"))
        await mine.get("/login/oidc")
        await checked(mine.get(back), 401)
        for query in ("", "?state=x&code=y", "?code=y"):
            await checked(world.client().get(f"/login/oidc/callback{query}"), 401)

    async def test_a_token_of_the_providers_will_do(self, world, provider):
        provider.claims |= {"groups": ["eyes"]}
        await checked(world.client(provider.token()).get("/switches"))
        old = provider.token(exp=int(time.time()) - 100)
        problem = await checked(world.client(old).get("/switches"), 401)
        assert "expired" in problem["detail"]
        provider.claims = {"sub": "9", "preferred_username": "no groups"}
        problem = await checked(world.client(provider.token()).get("/switches"), 401)
        assert "letters" in problem["detail"]  # Such a name nobody can have here.
        provider.claims = {"sub": "9", "preferred_username": "groupless"}
        await checked(world.client(provider.token()).get("/switches"), 403)

    async def test_a_provider_that_is_down_is_no_failure_of_ours(self, world, provider):
        provider.is_down = True
        for answering in (
            world.client(provider.token()).get("/me"),
            world.client().get("/login/oidc"),
        ):
            assert kind(await checked(answering, 503)) == "unavailable"


async def visit(answer):
    """What the provider sends a browser back with."""
    assert answer.status_code == 302, answer.text
    async with httpx.AsyncClient() as outside:
        back = (await outside.get(answer.headers["location"])).headers["location"]
    parts = urlsplit(back)
    return f"{parts.path.removeprefix('/api/v1')}?{parts.query}"


async def test_without_a_provider_there_is_no_login_by_one(world):
    await checked(world.client().get("/login/oidc"), 404)


class TestCluster:
    @pytest.fixture
    async def two(self, server, tmp_path):
        """Two nodes."""
        memory = Memory()
        async with (
            platform(server, memory=memory, accounts=accounts_with(tmp_path, [])) as one,
            platform(server, memory=memory, name="b") as other,
        ):
            await one.accounts.prepare()
            world = World(one)
            world.other = other
            world.admin = await world.user("root", Role.ADMIN)
            async with asyncio.timeout(20):
                while len(one.node.membership.nodes) < 2 or not one.node.leadership.leader:
                    one.node.membership._hurry.set()
                    await asyncio.sleep(0.02)
            yield world

    async def test_nodes_leader_sessions_and_locks(self, two):
        admin, other = two.admin, two.other.node
        nodes = (await checked(admin.get("/cluster/nodes")))["items"]
        assert [(node["id"], node["status"]) for node in nodes] == [
            ("a", "active"),
            ("b", "active"),
        ]
        assert (await checked(admin.get("/cluster/nodes/b")))["version"] == "test"
        await checked(admin.get("/cluster/nodes/c"), 404)
        assert (await checked(admin.get("/cluster/leader")))["node"] in ("a", "b")
        moves = []
        other.sessions.open(Session("s", "b", "ann", "a", "::1", 1.0), moves.append)
        async with asyncio.timeout(5):
            while not (await checked(admin.get("/cluster/sessions")))["items"]:
                await asyncio.sleep(0.01)
        assert (await checked(admin.get("/cluster/sessions?node=a")))["items"] == []
        assert len((await checked(admin.get("/cluster/sessions?user=ann")))["items"]) == 1
        assert (await checked(admin.get("/cluster/sessions/s")))["node"] == "b"
        await checked(admin.get("/cluster/sessions/t"), 404)
        path = "/cluster/sessions/s/migrate"
        assert await checked(admin.post(path, json={}), 202) == {"to": "a"}
        await checked(admin.post(path, json={"to": "b"}), 404)
        async with asyncio.timeout(5):
            while moves != ["a"]:
                await asyncio.sleep(0.01)
        lock = await other.locks.acquire("x/y")
        (listed,) = (await checked(admin.get("/cluster/locks")))["items"]
        assert (listed["key"], listed["node"], listed["token"]) == ("x/y", "b", lock.token)
        await checked(admin.delete("/cluster/locks/x/y"), 204)
        await checked(admin.delete("/cluster/locks/x/y"), 404)
        assert (await records(admin, resource="locks"))[-1]["before"]["key"] == "x/y"

    async def test_a_node_drains(self, two):
        await checked(two.admin.post("/cluster/nodes/b/drain"), 202)
        await checked(two.admin.post("/cluster/nodes/c/drain"), 404)
        async with asyncio.timeout(5):
            while (await checked(two.admin.get("/cluster/nodes/b")))["status"] != "draining":
                two.node.node.membership._hurry.set()
                await asyncio.sleep(0.02)


async def test_browsers_are_told_what_not_to_do(world):
    for path, content in (
        ("/switches", "json"),
        ("/nothing", "json"),
        ("http://node/docs", "html"),
    ):
        answer = await world.admin.get(path)
        assert content in answer.headers["content-type"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        policy = answer.headers["content-security-policy"]
        assert ("'none'" if content == "json" else "'self'") in policy.split(";")[0]
        assert "strict-transport-security" not in answer.headers
    assert (await world.admin.get("/switches")).headers["cache-control"] == "no-store"
    answer = await world.admin.get("https://node/api/v1/switches")
    assert "strict-transport-security" in answer.headers


class TestTheProgram:
    """`ovncp api` with accounts."""

    def test_the_first_password_is_printed_once_and_is_good(self, server, tmp_path):
        options = [f"--config={tmp_path}/config.yaml"]
        (tmp_path / "config.yaml").write_text(
            f"auth: {{mode: users}}\ndatabase: {{url: 'sqlite:///{tmp_path}/a/accounts.db'}}\n"
        )
        with Node(server.remote, server.remote, *options) as node:
            assert node.client.get("/switches").status_code == 401
            line = node.process.stdout.readline().decode()
            password = line.split()[-1]
            assert line.startswith("The first user is admin")
            answer = node.client.get("/switches", auth=("admin", password))
            assert answer.status_code == 200
            assert password not in node.log
        with Node(server.remote, server.remote, *options) as node:
            assert node.client.get("/switches", auth=("admin", password)).status_code == 200
            node.process.terminate()
            assert password.encode() not in node.process.stdout.read()

    def test_a_node_that_others_reach_is_for_nobody_in_particular_only_on_purpose(self, server):
        command = [OVNCP, "api", "--host=0.0.0.0", "--port=0"]
        env = {"AUTH_MODE": "open", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=30)
        assert done.returncode == 1 and "auth.mode open" in done.stderr

    def test_a_port_that_cannot_be_had_is_told_and_who_has_it(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            command = [OVNCP, "api", f"--port={port}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 1 and done.stdout == ""
            assert f"port {port} is taken by " in done.stderr
            assert f"(process {os.getpid()}): stop that, or name another with --port" in done.stderr
        elsewhere = ServerSection(host="192.0.2.1", port=0)
        with pytest.raises(Refused, match=r"on 192\.0\.2\.1:0 \(Cannot assign requested address\)"):
            api_node.listen(elsewhere)
