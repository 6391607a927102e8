"""A tenant's members see and touch what is the tenant's, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection

from api_in_process import platform
from ovncp.api import app
from ovncp.api.audit import Record
from ovncp.api.platform import Platform
from ovncp.auth.principal import Principal, Role
from ovncp.cluster.memory import Memory
from ovncp.ovn import listing
from ovncp.ovn.resources import SOUTHBOUND
from ovncp.ovn.tenancy import KEY
from servers import Server


class Named:
    """Everybody is who they say they are: NAME, ROLE and tenant."""

    async def principal(self, connection: HTTPConnection) -> Principal:
        name, role, tenant = connection.headers["x-principal"].split(",")
        return Principal(name, name, Role[role], tenant or None)

    async def quotas(self, tenant: str) -> Mapping[str, int]:
        return {"switches": 3, "switch-ports": 4}


class Kept:
    """Keeps what was audited in a list."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def check(self) -> None:
        """Whatever is done can be kept."""

    async def record(self, records: Any) -> None:
        self.records += [
            replace(each, before=as_read(each.before), after=as_read(each.after))
            for each in records
        ]


def as_read(row: Any) -> Any:
    """A row as a client reads it."""
    return json.loads(json.dumps(row))


class Asker:
    """Asks as somebody."""

    def __init__(self, client: httpx.AsyncClient, name: str, role: str, tenant: str) -> None:
        self._client = client
        self._headers = {"x-principal": f"{name},{role},{tenant}"}

    async def status(self, method: str, path: str, body: Any = None) -> int:
        answer = await self._client.request(method, path, json=body, headers=self._headers)
        return answer.status_code

    async def __call__(self, method: str, path: str, body: Any = None, status: int = 0) -> Any:
        answer = await self._client.request(method, path, json=body, headers=self._headers)
        assert answer.status_code == (status or {"POST": 201, "DELETE": 204}.get(method, 200)), (
            answer.text
        )
        return answer.json() if answer.content else None


@pytest.fixture
async def node(server: Server) -> AsyncIterator[Platform]:
    async with platform(server) as node:
        node.access = Named()
        node.audit = Kept()
        yield node


@pytest.fixture
async def client(node: Platform) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app.make(node))
    async with httpx.AsyncClient(transport=transport, base_url="http://node/api/v1") as client:
        yield client


def names(page: Any) -> set[str]:
    return {row["name"] for row in page["items"]}


async def test_a_tenant_sees_its_own_alone(client: httpx.AsyncClient, server: Server) -> None:
    admin = Asker(client, "root", "ADMIN", "")
    red = Asker(client, "red", "OPERATOR", "red")
    blue = Asker(client, "blue", "OPERATOR", "blue")
    await admin("POST", "/switches", {"name": "nobody's", "ports": [{"name": "n1"}]})
    for ask, tenant in ((red, "red"), (blue, "blue")):
        row = await ask("POST", "/switches", {"name": "web", "external_ids": {"a": "b"}})
        assert row["external_ids"] == {"a": "b", KEY: tenant}
        await ask("POST", "/switches/web/ports", {"name": f"{tenant}-1"})
        await ask("POST", "/load-balancers", {"name": f"{tenant}-lb"})
    for ask, tenant, other in ((red, "red", "blue"), (blue, "blue", "red")):
        assert names(await ask("GET", "/switches")) == {"web"}
        assert names(await ask("GET", "/switch-ports")) == {f"{tenant}-1"}
        assert names(await ask("GET", "/switch-ports?name.like=*")) == {f"{tenant}-1"}
        assert (await ask("GET", "/switch-ports?count=true"))["count"] == 1
        assert names(await ask("GET", "/switches/web/ports")) == {f"{tenant}-1"}
        await ask("GET", f"/switch-ports/{other}-1", status=404)
        await ask("GET", "/switches/nobody's", status=404)
        await ask("GET", "/switches/nobody's/ports", status=404)
        await ask("PATCH", f"/switch-ports/{other}-1", {"tag": 1}, status=404)
        await ask("DELETE", f"/switch-ports/{other}-1", status=404)
        await ask("POST", "/switches/nobody's/ports", {"name": "x"}, status=404)
        await ask("PATCH", "/switches/web", {"load_balancer": [f"{other}-lb"]}, status=422)
        await ask("PATCH", "/switches/web", {"load_balancer": [f"{tenant}-lb"]})
        await ask("PATCH", "/switches/web", {"external_ids": {KEY: other}}, status=422)
        await ask("POST", "/switches", {"name": "y", "external_ids": {KEY: other}}, status=422)
        await ask("PATCH", "/switches/web", {"external_ids": []}, status=422)
        await ask("POST", "/load-balancer-groups", {"name": "g"}, status=422)
        await ask("POST", "/switches", {"name": "web"}, status=409)
        await ask("GET", f"/switches?load_balancer={other}-lb", status=422)
    assert len((await admin("GET", "/switches?name=web"))["items"]) == 2


async def test_a_tenant_names_its_own_alone_where_ovn_goes_by_names(
    client: httpx.AsyncClient,
) -> None:
    one = Asker(client, "one", "OPERATOR", "mine")
    other = Asker(client, "other", "OPERATOR", "others")
    admin = Asker(client, "root", "ADMIN", "")
    for ask, whose in ((one, "mine"), (other, "others")):
        port = {"name": f"{whose}-lrp", "mac": "00:00:00:00:00:01", "networks": ["10.0.0.1/24"]}
        await ask("POST", "/routers", {"name": "r", "ports": [port]})
        await ask("POST", "/switches", {"name": "s", "ports": [{"name": f"{whose}-lsp"}]})

    network = {"mac": "00:00:00:00:00:02", "networks": ["10.1.0.1/24"]}

    def rows(whose: str) -> list[tuple[str, str, dict[str, Any]]]:
        plug = {"type": "router", "options": {"router-port": f"{whose}-lrp"}}
        return [
            ("/switches/s/ports", "/switch-ports", plug),
            ("/switches/s/ports", "/switch-ports", {"parent_name": f"{whose}-lsp"}),
            ("/routers/r/ports", "/router-ports", {**network, "peer": f"{whose}-lrp"}),
        ]

    for number, (place, things, right) in enumerate(rows("mine")):
        row = await one("POST", place, {"name": f"plug-{number}", **right})
        await one("PATCH", f"{things}/{row['_uuid']}", right)
        for whose in ("others", "nobody"):
            _, _, wrong = rows(whose)[number]
            problem = await one("POST", place, {"name": "unplugged", **wrong}, status=422)
            assert problem["errors"][0]["rule"] == "reference"
            await one("PATCH", f"{things}/{row['_uuid']}", wrong, status=422)
            await admin("PATCH", f"{things}/{row['_uuid']}", wrong)
    port = {"name": "together", **network}
    plug = {"name": "plug", "type": "router", "options": {"router-port": "together"}}
    operations = [
        {"method": "POST", "path": "/routers/r/ports", "body": port},
        {"method": "POST", "path": "/switches/s/ports", "body": plug},
    ]
    await one("POST", "/transactions", {"operations": operations}, status=200)


async def test_a_tenant_is_not_told_of_others_by_the_way(client: httpx.AsyncClient) -> None:
    one = Asker(client, "one", "OPERATOR", "told")
    admin = Asker(client, "root", "ADMIN", "")
    switch = await one("POST", "/switches", {"name": "told", "ports": [{"name": "told-p"}]})
    (port,) = switch["ports"]
    await admin("POST", "/port-groups", {"name": "everybodys", "ports": ["told-p"]})
    delete = {"operations": [{"method": "DELETE", "path": f"/switch-ports/{port}"}]}
    for ask, n_groups in ((admin, 1), (one, 0)):
        found = await ask("POST", "/transactions", delete | {"dry_run": True}, status=200)
        tables = [change["table"] for change in found["changes"]]
        assert tables.count("Port_Group") == n_groups and "Logical_Switch_Port" in tables
    taken = await one("POST", "/address-sets", {"name": "taken"})
    problem = await admin("POST", "/address-sets", {"name": "taken"}, status=409)
    assert taken["_uuid"] in problem["detail"]
    other = Asker(client, "other", "OPERATOR", "others")
    problem = await other("POST", "/address-sets", {"name": "taken"}, status=409)
    assert "taken" in problem["detail"] and taken["_uuid"] not in problem["detail"]
    problem = await other("POST", "/switches", {"ports": [{"name": "told-p"}]}, status=409)
    assert port not in problem["detail"]


async def test_a_tenant_keeps_what_it_made(client: httpx.AsyncClient) -> None:
    """Or its quota would be no limit."""
    one = Asker(client, "one", "OPERATOR", "keeper")
    await one("POST", "/switches", {"name": "kept", "external_ids": {"a": "b"}})
    for ids in (None, [], {KEY: None}, {KEY: "other"}):
        await one("PATCH", "/switches/kept", {"external_ids": ids}, status=422)
    row = await one("PATCH", "/switches/kept", {"external_ids": {"a": None, "c": "d"}})
    assert row["external_ids"] == {"c": "d", KEY: "keeper"}


async def test_a_row_that_is_held_twice_is_listed_once(client: httpx.AsyncClient) -> None:
    red = Asker(client, "red", "OPERATOR", "red")
    for name in ("red_1", "red_2"):
        await red("POST", "/port-groups", {"name": name})
    acl = {"priority": 7, "direction": "to-lport", "match": "ip4", "action": "allow"}
    row = await red("POST", "/port-groups/red_1/acls", acl)
    await red("PATCH", "/port-groups/red_2", {"acls": {"add": [row["_uuid"]]}})
    page = await red("GET", "/acls?priority=7&count=true")
    assert ([each["_uuid"] for each in page["items"]], page["count"]) == ([row["_uuid"]], 1)


async def test_a_tenant_with_many_rows_pages_through_them(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many are not sorted for each page, but looked for in the order of the table."""
    monkeypatch.setattr(listing, "_FEW", 1)
    for number in range(5):
        for tenant in ("many", "others"):
            ask = Asker(client, tenant, "OPERATOR", tenant)
            await ask("POST", "/address-sets", {"name": f"a{number}_{tenant}"})
    many = Asker(client, "many", "OPERATOR", "many")
    found, cursor = [], ""
    while cursor is not None:
        page = await many("GET", f"/address-sets?limit=2&sort=-name,-_uuid{cursor}")
        found += [row["name"] for row in page["items"]]
        cursor = page["next"] and f"&cursor={page['next']}"
    assert found == [f"a{number}_many" for number in range(4, -1, -1)]
    assert (await many("GET", "/address-sets?count=true"))["count"] == 5


async def test_tables_as_they_are_are_not_for_tenants(client: httpx.AsyncClient) -> None:
    red = Asker(client, "red", "ADMIN", "red")
    for path in ("/db/nb/Logical_Switch", "/db/sb/Chassis", "/db/nb/Logical_Switch/web"):
        await red("GET", path, status=403)
    await red("POST", "/db/nb/Logical_Switch", {"name": "x"}, status=403)
    body = {"operations": [{"method": "POST", "path": "/db/nb/Logical_Switch", "body": {}}]}
    await red("POST", "/transactions", body, status=403)


async def test_the_southbound_shows_a_tenant_what_was_made_of_its_own(
    client: httpx.AsyncClient, server: Server, node: Platform
) -> None:
    red = Asker(client, "red", "OPERATOR", "red")
    admin = Asker(client, "root", "ADMIN", "")
    own = await red("POST", "/switches", {"name": "south"})
    other = await admin("POST", "/switches", {"name": "south-2"})
    inserts: list[Any] = []
    for number, switch in enumerate((own, other), 100):
        ids = [["logical-switch", switch["_uuid"]], ["name", f"dp-{number}"]]
        datapath = {"tunnel_key": number, "external_ids": ["map", ids]}
        name = f"d{number}"
        inserts.append(
            {"op": "insert", "table": "Datapath_Binding", "row": datapath, "uuid-name": name}
        )
        flow = {
            "logical_datapath": ["named-uuid", name],
            "pipeline": "ingress",
            "match": str(number),
        }
        inserts.append({"op": "insert", "table": "Logical_Flow", "row": flow})
    both = ["set", [["named-uuid", "d100"], ["named-uuid", "d101"]]]
    group = {"op": "insert", "table": "Logical_DP_Group", "row": {"datapaths": both}}
    shared = {"logical_dp_group": ["named-uuid", "g"], "pipeline": "ingress", "match": "both"}
    inserts += [
        {**group, "uuid-name": "g"},
        {"op": "insert", "table": "Logical_Flow", "row": shared},
        {"op": "insert", "table": "Encap", "row": {"type": "geneve"}, "uuid-name": "e"},
        {
            "op": "insert",
            "table": "Chassis",
            "row": {"name": "c", "encaps": ["named-uuid", "e"]},
        },
    ]
    server.client().transact(SOUTHBOUND, *inserts)
    while not (await admin("GET", "/chassis"))["items"]:
        await node.sb.changed()
    assert [row["tunnel_key"] for row in (await red("GET", "/datapaths"))["items"]] == [100]
    flows = (await red("GET", "/logical-flows"))["items"]
    assert {row["match"] for row in flows} == {"100", "both"}
    assert len((await admin("GET", "/logical-flows"))["items"]) == 3
    assert (await red("GET", "/chassis"))["items"] == []


async def test_roles_are_asked_for(client: httpx.AsyncClient) -> None:
    for tenant in ("", "green"):
        viewer = Asker(client, "v", "VIEWER", tenant)
        await viewer("GET", "/switches")
        await viewer("POST", "/switches", {"name": "x"}, status=403)
        await viewer("PATCH", "/switches/x", {}, status=403)
        await viewer("DELETE", "/switches/x", status=403)
        body = {"operations": [{"method": "POST", "path": "/switches", "body": {}}]}
        await viewer("POST", "/transactions", body, status=403)
        (result,) = (await viewer("POST", "/batch", body, status=200))["results"]
        assert result["status"] == 403
    operator = Asker(client, "o", "OPERATOR", "")
    await operator("GET", "/db/nb/NB_Global")
    await operator("POST", "/db/nb/Copp", {"name": "x"}, status=403)


async def test_a_tenant_has_no_more_than_it_may(client: httpx.AsyncClient) -> None:
    grey = Asker(client, "grey", "OPERATOR", "grey")
    for number in range(3):
        await grey("POST", "/switches", {"name": f"grey-{number}"})
    problem = await grey("POST", "/switches", {"name": "grey-3"}, status=403)
    assert problem["type"] == "urn:ovncp:problem:quota"
    swap = [
        {"method": "DELETE", "path": "/switches/grey-0"},
        {"method": "POST", "path": "/switches", "body": {"name": "grey-3"}},
    ]
    await grey("POST", "/transactions", {"operations": swap}, status=200)
    await grey("DELETE", "/switches/grey-3")
    ports = [
        {"method": "POST", "path": "/switches/grey-1/ports", "body": {"name": f"grey-p{n}"}}
        for n in range(5)
    ]
    for dry_run in (False, True):
        body = {"operations": ports, "dry_run": dry_run}
        problem = await grey("POST", "/transactions", body, status=403)
        assert problem["type"] == "urn:ovncp:problem:quota"
    within = [{"name": f"grey-p{n}"} for n in range(5)]
    await grey("POST", "/switches", {"name": "grey-4", "ports": within}, status=403)
    await grey("PATCH", "/switches/grey-1", {"ports": {"add": within}}, status=403)
    await grey("POST", "/switches", {"name": "grey-4", "ports": within[:2]})
    await grey("POST", "/transactions", {"operations": ports[:2]}, status=409)
    await grey("POST", "/transactions", {"operations": ports[2:4]}, status=200)
    await grey("POST", "/switches/grey-1/ports", {"name": "grey-p4"}, status=403)


async def test_a_quota_holds_for_many_who_come_at_once_to_any_node(server: Server) -> None:
    memory = Memory()
    async with AsyncExitStack() as stack:
        askers = []
        for name in "ab":
            node = await stack.enter_async_context(platform(server, memory=memory, name=name))
            node.access = Named()
            transport = httpx.ASGITransport(app.make(node))
            client = httpx.AsyncClient(transport=transport, base_url="http://node/api/v1")
            askers.append(Asker(await stack.enter_async_context(client), "x", "OPERATOR", "many"))

        async def make(number: int) -> int:
            ask = askers[number % 2]
            return await ask.status("POST", "/switches", {"name": f"many-{number}"})

        for _ in range(3):
            found = await asyncio.gather(*(make(number) for number in range(20)))
            made = [number for number, status in enumerate(found) if status == 201]
            assert len(made) == 3 and set(found) == {201, 403}
            for number in made:
                await askers[0]("DELETE", f"/switches/many-{number}")


async def test_every_write_is_audited(client: httpx.AsyncClient, node: Platform) -> None:
    admin = Asker(client, "root", "ADMIN", "")
    audit = node.audit
    assert isinstance(audit, Kept)
    made = await admin("POST", "/switches", {"name": "audited"})
    await admin("PATCH", "/switches/audited", {"other_config": {"a": "b"}})
    await admin("POST", "/switches", {"name": "audited"}, status=409)
    await admin("DELETE", "/switches/audited")
    await admin("DELETE", "/switches/audited", status=404)
    created, changed, refused, deleted, missing = audit.records
    assert (created.action, created.resource, created.uuid) == ("create", "switches", made["_uuid"])
    assert created.before is None and created.after == made
    assert changed.before == made and changed.after is not None
    assert changed.after["other_config"] == {"a": "b"}
    assert deleted.before == changed.after and deleted.after is None
    assert [r.result for r in audit.records] == ["done", "done", "conflict", "done", "not-found"]
    assert (refused.after, missing.uuid) == (None, "audited")
    assert created.principal.name == "root" and len({r.request_id for r in audit.records}) == 5
    audit.records.clear()
    blue = Asker(client, "blue", "OPERATOR", "azure")
    for number in range(3):
        await blue("POST", "/switches", {"name": f"azure-{number}"})
    await blue("POST", "/switches", {"name": "azure-3"}, status=403)
    await admin("DELETE", "/switches/azure-0")
    *_, refused, deleted = audit.records
    assert (refused.result, refused.principal.name) == ("quota", "blue")
    assert (deleted.result, deleted.principal.name, deleted.tenant) == ("done", "root", "azure")
