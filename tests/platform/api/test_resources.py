"""Resources over HTTP: made, read, changed, deleted, and what is said of what cannot be."""

import itertools
from uuid import UUID

import pytest

from least_rows import LEAST
from ovncp.ovn.resources import BY_NAME, NORTHBOUND, RESOURCES
from platform_node import Node, names
from servers import Server


@pytest.fixture
def switch(node: Node, request: pytest.FixtureRequest) -> str:
    """The name of a new switch."""
    name = str(request.node.name)
    node.post("/switches", {"name": name})
    return name


def test_a_switch_from_its_beginning_to_its_end(node: Node, server: Server) -> None:
    made = node.client.post("/switches", json={"name": "web", "external_ids": {"a": "b"}})
    assert made.status_code == 201
    row = made.json()
    assert (row["name"], row["external_ids"], row["ports"]) == ("web", {"a": "b"}, [])
    assert made.headers["location"] == f"/api/v1/switches/{row['_uuid']}"
    assert made.headers["etag"] == f'"{row["_version"]}"'
    assert node.get("/switches/web") == node.get(f"/switches/{row['_uuid']}") == row
    select = {"op": "select", "table": "Logical_Switch", "where": [["name", "==", "web"]]}
    (stored,) = server.client().transact(NORTHBOUND, select)[0]["rows"]
    assert stored["_uuid"] == ["uuid", row["_uuid"]]
    changed = node.patch("/switches/web", {"external_ids": {"a": None, "c": "d"}})
    assert changed["external_ids"] == {"c": "d"}
    assert changed["_version"] != row["_version"]
    node.delete("/switches/web")
    node.get("/switches/web", 404)
    assert "web" not in names(node.get("/switches"))


def test_what_another_client_of_the_database_does_is_seen(node: Node, server: Server) -> None:
    insert = {"op": "insert", "table": "Logical_Switch", "row": {"name": "elsewhere"}}
    server.client().transact(NORTHBOUND, insert)
    node.post("/switches", {"name": "barrier"})  # the server tells us of both in order
    assert {"elsewhere", "barrier"} <= set(names(node.get("/switches")))


def test_ports_belong_to_a_switch(node: Node, switch: str) -> None:
    port = node.post(f"/switches/{switch}/ports", {"name": f"{switch}-1", "tag": 7})
    assert node.get(f"/switches/{switch}")["ports"] == [port["_uuid"]]
    assert names(node.get(f"/switches/{switch}/ports")) == [f"{switch}-1"]
    assert node.get(f"/switches/{switch}/ports/{switch}-1") == port
    assert node.get(f"/switch-ports/{switch}-1") == port
    node.post("/switches", {"name": f"{switch}-other"})
    node.get(f"/switches/{switch}-other/ports/{switch}-1", 404)
    node.delete(f"/switches/{switch}-other/ports/{switch}-1", 404)
    node.delete(f"/switches/{switch}/ports/{switch}-1")
    node.get(f"/switch-ports/{switch}-1", 404)
    assert node.get(f"/switches/{switch}")["ports"] == []


_numbers = itertools.count()


def make(node: Node, name: str) -> tuple[str, dict[str, object]]:
    """A new row of a resource, and where it was made."""
    resource = BY_NAME[name]
    place = f"/{name}"
    if resource.parents:
        parent = resource.parents[0]
        place = f"/{parent.resource}/{make(node, parent.resource)[1]['_uuid']}/{parent.path}"
    fields = dict(LEAST[name])
    if resource.order == "name":
        fields["name"] = f"{name}-{next(_numbers)}"
    return place, node.post(place, fields)


@pytest.mark.parametrize("name", [r.name for r in RESOURCES if not r.is_read_only])
def test_each_resource_is_made_read_changed_and_deleted(node: Node, name: str) -> None:
    place, row = make(node, name)
    path = f"/{name}/{row['_uuid']}"
    assert node.get(path) == row
    assert row["_uuid"] in names(node.get(place, limit=1000), "_uuid")
    assert row["_uuid"] in names(node.get(f"/{name}", limit=1000), "_uuid")
    if "external_ids" in row:
        assert node.patch(path, {"external_ids": {"k": "v"}})["external_ids"] == {"k": "v"}
    if BY_NAME[name].parents:
        node.post(f"/{name}", LEAST[name], 422)
    node.delete(path)
    node.get(path, 404)


def test_a_change_goes_by_the_version_that_is_asked_for(node: Node, switch: str) -> None:
    path = f"/switches/{switch}"
    first = node.client.get(path).headers["etag"]
    assert node.client.get(path, headers={"if-none-match": first}).status_code == 304
    node.patch(path, {"other_config": {"a": "1"}}, If_Match=first)
    problem = node.patch(path, {"other_config": {"a": "2"}}, 412, If_Match=first)
    assert problem["type"] == "urn:ovncp:problem:stale"
    node.delete(path, 412, If_Match=first)
    node.delete(path, If_Match=node.client.get(path).headers["etag"])


def test_a_change_goes_by_one_of_several_versions(node: Node, switch: str) -> None:
    path, none = f"/switches/{switch}", f'"{UUID(int=1)}"'
    first = node.client.get(path).headers["etag"]
    node.patch(path, {"other_config": {"a": "1"}}, If_Match=f"{none}, {first}")
    second = node.client.get(path).headers["etag"]
    node.patch(path, {"other_config": {"a": "2"}}, If_Match=f'"x,",{first} ,, {second},')
    node.patch(path, {"other_config": {"a": "3"}}, 412, If_Match=f"{first}, {second}")
    lines = [("if-match", none), ("if-match", node.client.get(path).headers["etag"])]
    assert node.client.patch(path, json={}, headers=lines).status_code == 200
    last = node.client.get(path).headers["etag"]
    # By strong comparison a weak tag is none that a row has.
    node.patch(path, {"other_config": {"a": "4"}}, 412, If_Match=f"W/{last}")
    for bad in ("", "x", f"{last} {last}", f"{last}, x", f"*, {last}", last[:-1]):
        node.patch(path, {"other_config": {"a": "5"}}, 400, If_Match=bad)
    assert node.get(path)["other_config"] == {"a": "2"}
    several = {"if-none-match": f"{none}, W/{last}"}
    assert node.client.get(path, headers=several).status_code == 304
    operation = {"method": "PATCH", "path": path, "body": {}, "if_match": f"{first}, {last}"}
    node.post("/transactions", {"operations": [operation]}, 200)
    (result,) = node.post("/batch", {"operations": [operation]}, 200)["results"]
    assert result["status"] == 200
    node.patch(path, {"other_config": {"a": None}}, If_Match="*")
    node.delete(path, If_Match="*")
    node.patch(path, {}, 404, If_Match="*")


def test_a_version_is_the_databases_however_late_it_is_seen_here(
    node: Node, server: Server, switch: str
) -> None:
    path = f"/switches/{switch}"
    client = server.client()
    where = [["name", "==", switch]]
    for number in range(30):
        before = node.client.get(path).headers["etag"]
        config = ["map", [["n", f"{number}"]]]
        row = {"other_config": config}
        update = {"op": "update", "table": "Logical_Switch", "where": where, "row": row}
        client.transact(NORTHBOUND, update)
        select = {"op": "select", "table": "Logical_Switch", "where": where}
        (found,) = client.transact(NORTHBOUND, select | {"columns": ["_version"]})[0]["rows"]
        now = f'"{found["_version"][1]}"'
        tags = now if number % 2 else f"{before}, {now}"
        node.patch(path, {"other_config": {"n": "seen"}}, If_Match=tags)


def test_a_version_that_changes_on_the_way_is_noticed(
    node: Node, server: Server, switch: str
) -> None:
    """The condition is the database's: what is here may be old."""
    path = f"/switches/{switch}"
    client = server.client()
    for round_ in range(20):
        tag = node.client.get(path).headers["etag"]
        mutation = ["other_config", "insert", ["map", [[f"theirs-{round_}", ""]]]]
        where = [["name", "==", switch]]
        client.start(
            "transact",
            [
                NORTHBOUND,
                {
                    "op": "mutate",
                    "table": "Logical_Switch",
                    "where": where,
                    "mutations": [mutation],
                },
            ],
        )
        fields = {"other_config": {f"ours-{round_}": ""}}
        answer = node.client.patch(path, json=fields, headers={"if-match": tag})
        client.sync(NORTHBOUND)
        assert answer.status_code in (200, 412)
        written = f"ours-{round_}" in node.get(path)["other_config"]
        assert written == (answer.status_code == 200)


def test_sets_and_maps_are_changed_element_by_element(node: Node) -> None:
    node.post("/address-sets", {"name": "hosts", "addresses": ["10.0.0.1", "10.0.0.2"]})
    change = {"add": ["10.0.0.3", "10.0.0.1"], "remove": ["10.0.0.2"]}
    changed = node.patch("/address-sets/hosts", {"addresses": change})
    assert changed["addresses"] == ["10.0.0.1", "10.0.0.3"]
    changed = node.patch("/address-sets/hosts", {"addresses": ["10.9.9.9"]})
    assert changed["addresses"] == ["10.9.9.9"]
    problem = node.patch("/address-sets/hosts", {"addresses": {"put": ["x"]}}, 422)
    assert problem["errors"][0]["field"] == "addresses"


def test_rows_refer_to_others_by_uuid_or_name(node: Node, switch: str) -> None:
    balancer = node.post(
        "/load-balancers", {"name": "front", "vips": {"1.1.1.1:80": "10.0.0.1:80"}}
    )
    changed = node.patch(f"/switches/{switch}", {"load_balancer": ["front"]})
    assert changed["load_balancer"] == [balancer["_uuid"]]
    problem = node.patch(f"/switches/{switch}", {"load_balancer": ["back"]}, 422)
    assert problem["errors"] == [
        {
            "field": "load_balancer[0]",
            "rule": "reference",
            "detail": "Load_Balancer has no row 'back'",
        }
    ]
    node.post("/load-balancer-groups", {"name": "all", "load_balancer": ["front"]})
    node.patch(f"/switches/{switch}", {"load_balancer_group": ["all"]})
    problem = node.delete("/load-balancer-groups/all", 409)
    assert problem["type"] == "urn:ovncp:problem:in-use"


def test_a_name_that_several_rows_have_names_none(node: Node, server: Server) -> None:
    insert = {"op": "insert", "table": "Logical_Switch", "row": {"name": "twin"}}
    server.client().transact(NORTHBOUND, insert, insert)
    node.post("/switches", {"name": "after the twins"})
    assert "2 rows" in node.get("/switches/twin", 404)["detail"]
    node.post("/switches", {"name": "twin"}, 409)


def test_names_may_have_any_character(node: Node) -> None:
    name = "Service_ns/web:80?#%2F é"
    row = node.post("/load-balancers", {"name": name})
    quoted = "Service_ns%2Fweb:80%3F%23%252F%20%C3%A9"
    assert node.get(f"/load-balancers/{quoted}") == row
    node.post(f"/load-balancers/{quoted}/health-checks", {"vip": "1.1.1.1:80"})
    assert len(node.get(f"/load-balancers/{quoted}/health-checks")["items"]) == 1


def test_what_is_wrong_with_a_field_is_said_of_each(node: Node, switch: str) -> None:
    fields = {"nam": "x", "tag": 5000, "addresses": "a", "up": "yes", "options": {"a": 1}}
    problem = node.post(f"/switches/{switch}/ports", fields, 422)
    assert {error["field"]: error["rule"] for error in problem["errors"]} == {
        "nam": "additionalProperties",
        "tag": "maximum",
        "addresses": "type",
        "up": "type",
        "options.a": "type",
    }
    problem = node.post(f"/switches/{switch}/acls", {"direction": "up", "match": "a\0b"}, 422)
    assert {error["field"]: error["rule"] for error in problem["errors"]} == {
        "direction": "enum",
        "match": "pattern",
        "action": "required",
    }
    problem = node.patch(f"/switches/{switch}", {"_uuid": switch}, 422)
    assert problem["errors"][0]["rule"] == "readOnly"


def test_what_cannot_be_asked_for_is_refused(node: Node) -> None:
    for path in (
        "/nothing",
        "/switches/a/b/c/d",
        "/db/xb/T",
        "/db/nb/T",
        "/db/nb",
        "/switches/x/nat",
    ):
        assert node.get(path, 404)["status"] == 404
    assert node.client.put("/switches", json={}).status_code == 405
    assert node.client.post("/chassis", json={}).status_code == 405
    assert node.client.post("/switches/web", json={}).status_code == 405
    assert node.client.patch("/switches", json={}).status_code == 405
    assert node.client.post("/switches", content=b"{").status_code == 400
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert node.client.post("/switches", content=b"{}", headers=form).status_code == 415
    assert node.client.post("/switches", json=[]).status_code == 422
    assert node.client.post("/switches?x=1", json={}).status_code == 422
    assert node.client.post("/switches", content=b" " * (17 << 20)).status_code == 413


def test_what_a_path_is_for_is_said(node: Node, switch: str) -> None:
    for method, path, allowed in (
        ("POST", f"/switches/{switch}", "GET, HEAD, PATCH, DELETE"),
        ("DELETE", "/switches", "GET, HEAD, POST"),
        ("PATCH", "/chassis/x", "GET, HEAD"),
        ("PUT", "/switches", "DELETE, GET, HEAD, PATCH, POST"),
    ):
        answer = node.client.request(method, path, json={})
        assert answer.status_code == 405
        allow = answer.headers["allow"].split(", ")
        assert sorted(allow) == sorted(allowed.split(", "))
    problem = node.get("/nothing", 404)
    assert problem["detail"] == "there is nothing at /api/v1/nothing"
    problem = node.post("/switches", {"name": "matched"}, 400, If_Match='"x"')
    assert "If-Match" in problem["detail"]
    node.get("/switches/matched", 404)


def test_heads_are_those_of_the_answers(node: Node, switch: str) -> None:
    for path in ("/switches?limit=1", f"/switches/{switch}"):
        head, answer = node.client.head(path), node.client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "content-type", "etag", "link"):
            assert head.headers.get(name) == answer.headers.get(name)


def test_a_request_is_told_by_its_id(node: Node) -> None:
    answer = node.client.get("/switches/none", headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine-1"
    assert answer.headers["content-type"] == "application/problem+json"
    answer = node.client.get("/switches/none", headers={"x-request-id": "not decent"})
    assert answer.headers["x-request-id"] not in ("", "not decent")


def test_every_table_is_there_as_it_is(node: Node, server: Server) -> None:
    row = node.post("/db/nb/Logical_Switch", {"name": "raw"})
    assert node.get("/db/nb/Logical_Switch/raw") == node.get("/switches/raw") == row
    node.patch(f"/db/nb/Logical_Switch/{row['_uuid']}", {"other_config": {"a": "b"}})
    node.delete("/db/nb/Logical_Switch/raw")
    client = server.client()
    for short, database in (("nb", NORTHBOUND), ("sb", "OVN_Southbound")):
        for table in client.request("get_schema", [database])["result"]["tables"]:
            assert "items" in node.get(f"/db/{short}/{table}")
    assert node.client.post("/db/sb/Chassis", json={"name": "x"}).status_code == 405
