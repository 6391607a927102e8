"""Packets through a network that a real ovn-northd made, traced by the real ovn-trace."""

from collections.abc import Iterator
from typing import Any

import pytest

from platform_node import Node, databases, northd

PACKET = {
    "inport": "web1",
    "eth.src": "00:00:00:00:01:01",
    "eth.dst": "00:00:00:00:ff:01",
    "ip4.src": "10.0.1.11",
    "ip4.dst": "10.0.2.11",
    "ip.ttl": 64,
    "tcp": True,
    "tcp.dst": 80,
}


def a_switch(name: str, number: int) -> list[dict[str, Any]]:
    """A switch with one host, connected to the router `gw`."""
    mac, network = f"00:00:00:00:{number:02}:01", f"10.0.{number}"
    ports = [
        {"name": f"{name}1", "addresses": [f"{mac} {network}.11"]},
        {
            "name": f"{name}-gw",
            "type": "router",
            "addresses": ["router"],
            "options": {"router-port": f"gw-{name}"},
        },
    ]
    gateway = {"mac": f"00:00:00:00:ff:{number:02}", "networks": [f"{network}.1/24"]}
    return [
        {"method": "POST", "path": "/switches", "body": {"name": name, "ports": ports}},
        {"method": "POST", "path": "/routers/@gw/ports", "body": {"name": f"gw-{name}", **gateway}},
    ]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node before a network of two switches, where packets to port 22 are dropped."""
    acl = {"direction": "to-lport", "priority": 9, "match": "tcp.dst == 22", "action": "drop"}
    operations = [
        {"method": "POST", "path": "/routers", "body": {"name": "gw"}, "as": "gw"},
        *a_switch("web", 1),
        *a_switch("app", 2),
        {"method": "POST", "path": "/switches/app/acls", "body": acl},
    ]
    operations[3]["as"] = "app"
    operations[5]["path"] = "/switches/@app/acls"
    with (
        databases("ovncp") as server,
        northd(server),
        Node(server.remote, server.remote) as node,
    ):
        body = {"operations": operations, "wait": "sb"}
        assert node.post("/transactions", body, 200)["caught_up"]
        yield node


def test_a_packet_is_told_from_its_fields(node: Node) -> None:
    traced = node.post("/trace", {"packet": PACKET}, 200)
    assert traced["outputs"] == ["app1"]
    kinds = [(part["kind"], part["datapath_name"]) for part in traced["sections"]]
    ways = [way for way in kinds if way[0] in ("ingress", "egress")]
    assert ways == [(kind, name) for name in ("web", "gw", "app") for kind in ("ingress", "egress")]
    first = traced["sections"][0]
    assert (first["inport"], first["depth"]) == ("web1", 0)
    step = first["steps"][0]
    assert (step["table"], step["name"]) == (0, "ls_in_check_port_sec")
    flows = node.get(f"/logical-flows?datapath=web&table_id=0&match={step['match']}")["items"]
    assert any(flow["_uuid"].startswith(step["flow"]) for flow in flows)
    assert 'ingress(dp="' in traced["text"] and traced["flow"].startswith("tcp,")


def test_a_packet_is_told_from_an_expression(node: Node) -> None:
    terms = [f'inport == "{PACKET["inport"]}"', "tcp"]
    terms += [f"{name} == {PACKET[name]}" for name in PACKET if "." in name]
    expression = " && ".join(terms)
    traced = node.post("/trace", {"microflow": expression, "datapath": "web"}, 200)
    assert traced["outputs"] == ["app1"]


def test_a_packet_that_is_dropped_comes_out_nowhere(node: Node) -> None:
    body = {"packet": {**PACKET, "tcp.dst": 22}, "ct": ["trk,new"] * 2}
    traced = node.post("/trace", body, 200)
    assert traced["outputs"] == []
    last = traced["sections"][-1]["steps"][-1]
    assert last["name"] == "ls_out_acl" and "tcp.dst == 22" in last["match"]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"packet": {"inport": "nowhere"}}, "packet", 'unknown port "nowhere"'),
        ({"microflow": "inport == "}, "microflow", "parsing"),
        ({"microflow": "tcp", "datapath": "nowhere"}, "microflow", "nowhere"),
        ({"microflow": "tcp", "datapath": "--help"}, "microflow", "--help"),
    ],
)
def test_what_cannot_be_traced_is_said(
    node: Node, body: dict[str, Any], field: str, said: str
) -> None:
    problem = node.post("/trace", body, 422)
    (error,) = problem["errors"]
    assert (error["field"], error["rule"]) == (field, "trace")
    assert said in error["detail"]


@pytest.mark.parametrize(
    "body",
    [{}, {"microflow": "tcp", "packet": PACKET}, {"packet": {}}, {"microflow": "a\nb"}],
)
def test_one_packet_is_wanted(node: Node, body: dict[str, Any]) -> None:
    assert node.post("/trace", body, 422)["errors"]
