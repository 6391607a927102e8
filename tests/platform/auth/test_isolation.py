"""Each resource, row by row, by somebody of each kind: a tenant's members see and touch its alone.

A resource that is new has to be entered here, or the tests fail.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from everybody import ALL, GLOBAL, OF_A, V1, WRITERS, Everybody, everybody
from least_rows import LEAST
from ovncp.ovn.resources import BY_NAME, RESOURCES, SOUTHBOUND
from ovncp.ovn.tracer import Tracer
from platform_node import databases, northd
from servers import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

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
    # Of the Southbound: what was made of a tenant's row is held by it.
    "chassis": NEVER,
    "port-bindings": HELD,
    "datapaths": HELD,
    "logical-flows": HELD,
    "mac-bindings": HELD,
    "service-monitors": HELD,
    "igmp-groups": HELD,
}
NAMES_OF = {
    ("bfd", "logical_port"): "router-ports",
    ("static-mac-bindings", "logical_port"): "router-ports",
    ("forwarding-groups", "child_port"): "switch-ports",
}
"""Fields that OVN takes for names of rows, of which a tenant may name its own alone."""
STALE = '"00000000-0000-0000-0000-000000000000"'


@dataclass(frozen=True)
class Made:
    """A row, where it was made, and who sees it; `mark` is a text in it that no other has."""

    thing: str
    place: str
    fields: dict[str, Any]
    uuid: str
    seen_by: set[str]
    mark: str | None


@dataclass
class World:
    """Everybody, and rows of each kind: some of tenant a, some of nobody's."""

    them: Everybody
    server: Server
    rows: list[Made]


_numbers = itertools.count(1)


async def make(them: Everybody, who: str, thing: str) -> Made | int:
    """A row that `who` makes, or how that is refused."""
    resource, number = BY_NAME[thing], next(_numbers)
    place, fields = f"{V1}/{thing}", dict(LEAST[thing])
    if resource.parents:
        parent = resource.parents[0]
        holder = await make(them, who, parent.resource)
        assert isinstance(holder, Made)
        place = f"{V1}/{parent.resource}/{holder.uuid}/{parent.path}"
    for name in fields:
        if (thing, name) in NAMES_OF:
            named = await make(them, who, NAMES_OF[thing, name])
            assert isinstance(named, Made)
            value = named.fields["name"]
            fields[name] = [value] if type(fields[name]) is list else value
    columns = them.node.nb.rows[resource.table].table.columns
    mark = None
    if resource.order == "name":
        fields["name"] = mark = f"mark-{number}-{thing}"
    elif "external_ids" in columns:
        mark = f"mark-{number}-{thing}"
        fields["external_ids"] = {"mark": mark}
    if thing == "chassis-template-vars":
        fields["chassis"] = mark = f"mark-{number}"
    answer = await them.ask(who, "POST", place, fields)
    if answer.status_code != 201:
        return answer.status_code
    seen_by = GLOBAL | (OF_A if who == "a-operator" else set())
    return Made(thing, place, fields, answer.json()["_uuid"], seen_by, mark)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("accounts")
    with databases("ovncp") as server:
        async with everybody(server, folder) as them:
            rows = []
            for resource in RESOURCES:
                for who in ("a-operator", "admin") if not resource.is_read_only else ():
                    made = await make(them, who, resource.name)
                    if who == "a-operator" and THINGS[resource.name] == NEVER:
                        assert made == 422, resource.name
                    else:
                        assert isinstance(made, Made), (resource.name, made)
                        rows.append(made)
            yield World(them, server, rows)


async def test_there_is_an_entry_for_every_resource() -> None:
    assert [each.name for each in RESOURCES] == [name for name in THINGS if name in BY_NAME]


async def all_pages(them: Everybody, who: str, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = await them.get(who, f"{path}&cursor={cursor}" if cursor else path)
        found += page["items"]
        cursor = page["next"]
    return found


@pytest.mark.parametrize("who", sorted(ALL))
async def test_rows_are_seen_by_those_whose_they_are(world: World, who: str) -> None:
    them = world.them
    listed = {
        thing: {row["_uuid"] for row in (await them.get(who, f"/{thing}?limit=1000"))["items"]}
        for thing in {made.thing for made in world.rows}
    }
    wrong = []
    for made in world.rows:
        sees, path = who in made.seen_by, f"/{made.thing}"
        answers = {
            "read": (await them.ask(who, "GET", f"{V1}{path}/{made.uuid}")).status_code == 200,
            "listed": made.uuid in listed[made.thing],
            "counted": (await them.get(who, f"{path}?_uuid={made.uuid}&count=true"))["count"] == 1,
        }
        if made.mark is not None:
            found = await them.get(who, f"{path}?q={made.mark}&count=true&fields=_uuid")
            answers |= {"searched": bool(found["items"]), "search counted": found["count"] == 1}
        if made.place != f"{V1}{path}":
            within = await them.ask(who, "GET", made.place)
            answers["place"] = within.status_code == 200
            answers["in place"] = (
                await them.ask(who, "GET", f"{made.place}/{made.uuid}")
            ).status_code == 200
        wrong += [(made.thing, how) for how, answer in answers.items() if answer != sees]
    assert wrong == []
    pages = await all_pages(them, who, "/switches?limit=2&sort=-name")
    assert {row["_uuid"] for row in pages} == listed["switches"]


@pytest.mark.parametrize("who", sorted(ALL))
async def test_rows_are_touched_by_those_whose_they_are(world: World, who: str) -> None:
    """Each way to write to a row gets as far as its version, which is never the right one."""
    them, wrong, all_expected, operations = world.them, [], [], []
    for made in world.rows:
        expected = 403 if who not in WRITERS else 412 if who in made.seen_by else 404
        paths = {f"/{made.thing}/{made.uuid}", f"{made.place.removeprefix(V1)}/{made.uuid}"}
        for path, (method, body) in itertools.product(paths, (("PATCH", {}), ("DELETE", None))):
            answer = await them.ask(who, method, f"{V1}{path}", body, if_match=STALE)
            operation = {"method": method, "path": path, "if_match": STALE}
            operation |= {"body": {}} if body is not None else {}
            operations.append(operation)
            all_expected.append(expected)
            bulk = {"operations": [operation]}
            found = {
                "itself": answer.status_code,
                "transaction": (
                    await them.ask(who, "POST", f"{V1}/transactions", bulk)
                ).status_code,
            }
            wrong += [(method, path, how) for how, status in found.items() if status != expected]
    assert wrong == []
    # Each of a batch has its own answer.
    batch = (await them.ask(who, "POST", f"{V1}/batch", {"operations": operations})).json()
    assert [result["status"] for result in batch["results"]] == all_expected


@pytest.mark.parametrize("who", sorted(ALL))
async def test_rows_are_made_within_ones_own(world: World, who: str) -> None:
    them, wrong = world.them, []
    for made in world.rows:
        if BY_NAME[made.thing].parents:
            operation = {"method": "POST", "path": made.place.removeprefix(V1), "body": {}}
            operation["body"] = {n: v for n, v in made.fields.items() if n != "name"}
            bulk = {"operations": [operation], "dry_run": True}
            answer = await them.ask(who, "POST", f"{V1}/transactions", bulk)
            may = who in WRITERS and who in made.seen_by
            if answer.status_code not in ((200,) if may else (403, 404, 422)):
                wrong.append((made.thing, answer.text))
    assert wrong == []


@pytest.mark.parametrize("who", sorted(ALL))
async def test_the_trail_tells_of_ones_own(world: World, who: str) -> None:
    if who not in ("admin", "a-admin", "b-admin"):
        return  # The others are turned away, as the matrix has it.
    found: list[dict[str, Any]] = []
    before = ""
    while before is not None:
        query = f"&before={before}" if before else ""
        page = await world.them.get(who, f"/audit?limit=1000{query}")
        found += page["items"]
        before = page["next"]
    told = {record["target"] for record in found if record["result"] == "done"}
    assert [m.thing for m in world.rows if (m.uuid in told) != (who in m.seen_by)] == []
    tenants = {record["tenant"] for record in found}
    assert who == "admin" or tenants <= {who[0]}


@pytest.mark.parametrize("who", sorted(ALL))
async def test_the_topology_shows_ones_own(world: World, who: str) -> None:
    them = world.them
    shown = {node["id"] for node in (await them.get(who, "/topology?limit=5000"))["nodes"]}
    seen = {m.uuid for m in world.rows if m.thing in ("switches", "routers") and who in m.seen_by}
    others = {m.uuid for m in world.rows} - {m.uuid for m in world.rows if who in m.seen_by}
    assert seen <= shown and not others & shown
    for made in world.rows:
        if made.thing in ("switches", "routers", "switch-ports", "router-ports"):
            for text in (made.uuid, made.mark):
                answer = await them.ask(who, "GET", f"{V1}/topology?around={text}&detail=ports")
                assert answer.status_code == (200 if who in made.seen_by else 404), text
    for form in ("graphviz", "mermaid", "cytoscape"):
        answer = await them.ask(who, "GET", f"{V1}/topology?format={form}&detail=ports&limit=5000")
        assert not [uuid for uuid in others if uuid in answer.text]
    counts = (await them.get(who, "/topology?detail=counts"))["counts"]
    n_switches = (await them.get(who, "/switches?count=true&limit=1"))["count"]
    assert str(n_switches) in str(counts)
    for tenant in "ab":
        answer = await them.ask(who, "GET", f"{V1}/topology?tenant={tenant}")
        is_theirs = who in GLOBAL or who.startswith(tenant)
        assert answer.status_code == (200 if is_theirs else 403)
    if who in OF_A:
        assert seen


async def test_events_are_told_to_those_whose_they_are(world: World) -> None:
    them = world.them
    listening = {
        (who, kind): them.listen(who, kind, query)
        for who in ALL
        for kind, query in (("websocket", "resources=switches"), ("sse", "patterns=switches:*"))
    }
    for each in listening.values():
        await each.subscribed()
    makers = ("a-operator", "admin", "b-admin")
    for turn in range(2):
        for who in makers:
            body = {"name": f"event-{turn}-{who}", "ports": []}
            await them.ask(who, "POST", f"{V1}/switches", body)
    for (who, kind), each in listening.items():
        seen = makers if who in GLOBAL else makers[:1] if who in OF_A else makers[2:]
        heard = [event["name"] for event in await each.events(f"event-1-{seen[-1]}")]
        assert heard == [f"event-{turn}-{maker}" for turn in range(2) for maker in seen], (
            who,
            kind,
        )
        await each.close()
    for who in OF_A:
        answer = them.listen(who, "sse", "tenants=b")
        assert await answer.status() == 403
        await answer.close()


def of_the_southbound(switch: str, port: str, key: int) -> list[dict[str, Any]]:
    """What might be made of a switch: the names of a row's tables here, in their order."""
    datapath = ["named-uuid", "datapath"]
    ids = ["map", [["logical-switch", switch]]]
    on_port = {"datapath": datapath, "logical_port": port}
    monitored = {"logical_port": port, "ip": f"10.0.0.{key}", "port": key, "protocol": "tcp"}
    rows = {
        "Datapath_Binding": {"tunnel_key": key, "external_ids": ids},
        "Port_Binding": {**on_port, "tunnel_key": 1},
        "Logical_Flow": {"logical_datapath": datapath, "pipeline": "ingress", "match": port},
        "MAC_Binding": {**on_port, "ip": f"10.0.0.{key}"},
        "Service_Monitor": monitored,
        "IGMP_Group": {"address": "224.0.0.9", "datapath": datapath, "chassis": ["set", []]},
    }
    return [
        {"op": "insert", "table": table, "row": row, "uuid-name": "datapath"}
        if table == "Datapath_Binding"
        else {"op": "insert", "table": table, "row": row}
        for table, row in rows.items()
    ]


async def test_the_southbound_is_for_those_whose_network_it_is(world: World) -> None:
    them, client = world.them, world.server.client()
    encap = {"type": "geneve", "ip": "10.0.0.1", "chassis_name": "hv"}
    chassis = {"name": "hv", "encaps": ["named-uuid", "encap"]}
    client.transact(
        SOUTHBOUND,
        {"op": "insert", "table": "Encap", "row": encap, "uuid-name": "encap"},
        {"op": "insert", "table": "Chassis", "row": chassis},
    )
    rows: dict[str, set[str]] = {}
    for key, who in ((71, "a-operator"), (72, "admin")):
        made = await make(them, who, "switch-ports")
        assert isinstance(made, Made)
        switch = made.place.split("/")[-2]
        results = client.transact(SOUTHBOUND, *of_the_southbound(switch, made.fields["name"], key))
        rows |= {result["uuid"][1]: made.seen_by for result in results}
    while len(them.node.sb.rows["IGMP_Group"]) < 2:
        await them.node.sb.changed()
    for who in sorted(ALL):
        found: dict[str, int] = {}
        for resource in (each for each in RESOURCES if each.is_read_only):
            page = await them.get(who, f"/{resource.name}?count=true")
            uuids = {row["_uuid"] for row in page["items"]}
            found[resource.name] = page["count"]
            if resource.name == "chassis":
                assert len(uuids) == (who in GLOBAL), who
                continue
            expected = {uuid for uuid in rows if who in rows[uuid]}
            assert uuids <= expected and len(uuids) == page["count"], (who, resource.name)
            assert len(uuids) == len(expected) / 6, (who, resource.name)
            for uuid in uuids:
                await them.get(who, f"/{resource.name}/{uuid}")
            for uuid in rows.keys() - expected:
                answer = await them.ask(who, "GET", f"{V1}/{resource.name}/{uuid}")
                assert answer.status_code == 404


async def test_a_trace_shows_ones_own_part_of_the_way(tmp_path: Any) -> None:
    """By the real ovn-trace, of what the real ovn-northd makes."""
    with databases("c") as server, northd(server):
        async with everybody(server, tmp_path) as them:
            them.node.tracer = Tracer([server.remote], [], 2, 10.0)
            await check_traces(them)


async def check_traces(them: Everybody) -> None:
    for who, name in (("a-operator", "a"), ("admin", "n")):
        ports = [
            {"name": f"port-{name}-{n}", "addresses": [f"00:00:00:00:00:0{n} 10.0.0.{n}"]}
            for n in (1, 2)
        ]
        body = {"name": name, "ports": ports}
        answer = await them.ask(who, "POST", f"{V1}/switches?wait=sb", body)
        assert answer.status_code == 201, answer.text
    for who in sorted(ALL):
        for name, seen_by in (("a", GLOBAL | OF_A), ("n", GLOBAL)):
            packet = {
                "inport": f"port-{name}-1",
                "eth.src": "00:00:00:00:00:01",
                "eth.dst": "00:00:00:00:00:02",
            }
            answer = await them.ask(who, "POST", f"{V1}/trace", {"packet": packet})
            if who not in seen_by:
                assert answer.status_code == 422, (who, name)
                assert f"port-{name}-2" not in answer.text
                continue
            traced = answer.json()
            assert traced["outputs"] == [f"port-{name}-2"], (who, name, traced)
            assert (traced["text"] is None) == (who in OF_A)
