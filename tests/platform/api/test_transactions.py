"""Many writes in one request, what would be, and waiting for others to see it."""

from collections.abc import Iterator
from typing import Any

import pytest

from platform_node import Node, databases, names, northd
from servers import Server


def operations(*given: Any, **others: Any) -> dict[str, Any]:
    """The body of a request with operations: method, path, body, name."""
    members = ("method", "path", "body", "as")
    return {"operations": [dict(zip(members, one, strict=False)) for one in given], **others}


def a_network(name: str) -> dict[str, Any]:
    """A switch, a router and the two ports between them."""
    return operations(
        ("POST", "/switches", {"name": name}, "switch"),
        ("POST", "/routers", {"name": f"{name}-router"}, "router"),
        (
            "POST",
            "/routers/@router/ports",
            {"name": f"{name}-rp", "mac": "00:00:00:00:00:01", "networks": ["10.0.0.1/24"]},
        ),
        (
            "POST",
            "/switches/@switch/ports",
            {"name": f"{name}-sp", "type": "router", "options": {"router-port": f"{name}-rp"}},
            "port",
        ),
        ("POST", "/port-groups", {"name": f"{name}_pg", "ports": ["@port"]}, "group"),
        (
            "POST",
            "/port-groups/@group/acls",
            {"priority": 1, "direction": "to-lport", "match": "ip4", "action": "allow"},
        ),
    )


def test_rows_that_refer_to_each_other_are_made_together(node: Node) -> None:
    results = node.post("/transactions", a_network("all"), 200)["results"]
    assert [result["status"] for result in results] == [201] * 6
    switch, _, _, port, group, acl = (result["body"] for result in results)
    assert switch["ports"] == [port["_uuid"]] == group["ports"]
    assert group["acls"] == [acl["_uuid"]]
    assert results[3]["location"] == f"/api/v1/switch-ports/{port['_uuid']}"


def test_nothing_is_done_when_something_cannot_be(node: Node) -> None:
    body = a_network("nothing")
    body["operations"].append({"method": "PATCH", "path": "/switches/none", "body": {}})
    problem = node.post("/transactions", body, 404)
    assert problem["detail"].startswith("operations[6]: ")
    body["operations"][-1] = {"method": "POST", "path": "/acls", "body": {"priority": 1}}
    problem = node.post("/transactions", body, 422)
    assert problem["errors"][0]["field"].startswith("operations[6].body")
    body["operations"][-1] = {
        "method": "POST",
        "path": "/switches/@switch/ports",
        "body": {"name": "nothing-sp"},
    }
    node.post("/transactions", body, 409)  # which the database alone knows
    assert not [name for name in names(node.get("/switches")) if name == "nothing"]


def test_a_dry_run_tells_exactly_what_would_change(node: Node) -> None:
    node.post("/load-balancers", {"name": "dry-lb"})
    node.post("/switches", {"name": "dry", "ports": [{"name": "dry-1"}, {"name": "dry-2"}]})
    node.patch("/switches/dry", {"load_balancer": ["dry-lb"]})
    body = operations(
        ("PATCH", "/switches/dry", {"other_config": {"a": "b"}}),
        ("DELETE", "/switch-ports/dry-1"),
        ("DELETE", "/load-balancers/dry-lb"),
        ("POST", "/switches/dry/ports", {"name": "dry-3"}),
    )
    before = node.get("/switches/dry")
    changes = node.post("/transactions", {**body, "dry_run": True}, 200)["changes"]
    assert node.get("/switches/dry") == before
    by_table: dict[str, list[Any]] = {}
    for change in changes:
        by_table.setdefault(change["table"], []).append(change)
    (switch,) = by_table["Logical_Switch"]
    assert (
        set(switch["before"])
        == set(switch["after"])
        == {
            "ports",
            "other_config",
            "load_balancer",  # a weak reference, which the commit drops
        }
    )
    done = node.post("/transactions", body, 200)["results"]
    after = node.get("/switches/dry")
    assert after["load_balancer"] == switch["after"]["load_balancer"] == []
    assert after["other_config"] == switch["after"]["other_config"]
    assert len(switch["after"]["ports"]) == 2
    ports = by_table["Logical_Switch_Port"]
    assert sorted((p["before"] is None, p["after"] is None) for p in ports) == [
        (False, True),
        (True, False),
    ]
    assert [r["status"] for r in done] == [200, 204, 204, 201]


def test_a_dry_run_of_a_switch_tells_of_what_goes_with_it(node: Node) -> None:
    node.post("/switches", {"name": "tree", "ports": [{"name": "t1"}, {"name": "t2"}]})
    body = operations(("DELETE", "/switches/tree"), dry_run=True)
    changes = node.post("/transactions", body, 200)["changes"]
    assert sorted(c["table"] for c in changes) == ["Logical_Switch", *["Logical_Switch_Port"] * 2]
    assert node.post("/transactions", body, 200)["changes"] == changes


def test_a_dry_run_fails_as_the_transaction_would(node: Node) -> None:
    node.post("/switches", {"name": "fail", "ports": [{"name": "fail-1"}]})
    twice = operations(("POST", "/switches/fail/ports", {"name": "fail-1"}))
    for dry_run in (True, False):
        problem = node.post("/transactions", {**twice, "dry_run": dry_run}, 409)
        assert "identical values" in problem["detail"]


def test_writes_of_a_batch_have_nothing_to_do_with_each_other(node: Node) -> None:
    ports = [("POST", "/switches/batch/ports", {"name": f"batch-{n % 40}"}) for n in range(50)]
    node.post("/switches", {"name": "batch"})
    results = node.post(
        "/batch",
        operations(*ports, ("POST", "/nothing", {}), ("DELETE", "/switches/none")),
        200,
    )["results"]
    assert [result["status"] for result in results] == [201] * 40 + [409] * 10 + [404, 404]
    assert results[45]["problem"]["type"] == "urn:ovncp:problem:conflict"
    assert len(node.get("/switches/batch/ports")["items"]) == 40


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"operations": []},
        {"operations": [{"method": "GET", "path": "/switches"}]},
        {"operations": [{"method": "POST", "path": "/switches", "nothing": 1}]},
        {"operations": [{"method": "POST", "path": "/switches", "body": 3}]},
        {"operations": [{"method": "POST"}]},
        {"operations": [{"method": "POST", "path": "/switches", "as": "@x"}]},
        {"operations": [{"method": "DELETE", "path": "/switches/@unknown"}], "wait": "x"},
    ],
)
def test_a_body_that_makes_no_sense_is_refused(node: Node, body: Any) -> None:
    problem = node.post("/transactions", body, 422)
    assert problem["errors"] and problem["type"] == "urn:ovncp:problem:invalid"


# What is made again


def test_a_request_that_is_made_again_is_done_once(node: Node) -> None:
    first = node.client.post("/switches", json={"name": "once"}, headers={"idempotency-key": "k1"})
    again = node.client.post("/switches", json={"name": "once"}, headers={"idempotency-key": "k1"})
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert first.headers["location"] == again.headers["location"]
    problem = node.post("/switches", {"name": "other"}, 422, Idempotency_Key="k1")
    assert problem["type"] == "urn:ovncp:problem:rejected"
    node.post("/switches", {"name": "once"}, 409, Idempotency_Key="k2")


def test_a_key_is_free_again_when_nothing_was_done(node: Node) -> None:
    node.post("/switches/late/ports", {"name": "late-1"}, 404, Idempotency_Key="k3")
    node.post("/switches", {"name": "late"})
    node.post("/switches/late/ports", {"name": "late-1"}, Idempotency_Key="k3")


def test_what_was_done_by_a_node_that_is_gone_is_not_done_again(server: Server) -> None:
    """The answer is lost with the node, and all that it knew."""
    bodies = [
        ("/switches", {"name": "gone", "ports": [{"name": "gone-1"}]}, 201),
        ("/transactions", a_network("lost"), 200),
    ]
    results = []
    for _ in range(2):
        with Node(server.remote, server.remote) as one:
            results.append(
                [one.post(path, body, s, Idempotency_Key=path) for path, body, s in bodies]
            )
            ports = [one.get(f"/switches/{name}/ports")["items"] for name in ("gone", "lost")]
            assert [len(found) for found in ports] == [1, 1]
    assert results[0] == results[1]


# Waiting


@pytest.fixture(scope="module", params=["c", "ovncp"])
def alive(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node in front of databases between which a real ovn-northd works."""
    with (
        databases(request.param) as server,
        northd(server),
        Node(server.remote, server.remote) as node,
    ):
        yield node


def test_an_answer_comes_when_the_southbound_has_it(alive: Node) -> None:
    answer = alive.client.post("/switches?wait=sb&timeout=20", json={"name": "southbound"})
    assert (answer.status_code, answer.headers["ovn-caught-up"]) == (201, "true")
    body = operations(("POST", "/switches/southbound/ports", {"name": "sp"}), wait="sb")
    assert alive.post("/transactions", body, 200)["caught_up"] is True
    assert "sp" in names(alive.get("/port-bindings"), "logical_port")
    body = operations(("DELETE", "/switch-ports/sp"), wait="hv")
    assert alive.post("/transactions", body, 200)["caught_up"] is True
    assert "sp" not in names(alive.get("/port-bindings"), "logical_port")


def test_who_has_waited_in_vain_is_told_so(node: Node) -> None:
    """Nobody follows these databases; that there is no row to count with is said too."""
    assert "NB_Global" in node.post("/switches?wait=sb", {"name": "uncounted"}, 409)["detail"]
    node.get("/switches/uncounted", 404)
    node.post("/db/nb/NB_Global", {})
    answer = node.client.post("/switches?wait=sb&timeout=0.1", json={"name": "alone"})
    assert (answer.status_code, answer.headers["ovn-caught-up"]) == (202, "false")
    body = operations(("POST", "/switches", {"name": "alone-2"}), wait="hv", timeout=0.1)
    assert node.post("/transactions", body, 202)["caught_up"] is False
    for query in ("wait=x", "timeout=x", "timeout=-1", "timeout=1e9"):
        node.post(f"/switches?{query}", {"name": "never"}, 422)
    node.get("/switches/never", 404)
