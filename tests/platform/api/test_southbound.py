"""What is read of the Southbound: chassis, port bindings, flows and so on."""

import time
from typing import Any

import pytest

from ovncp.ovn.resources import RESOURCES, SOUTHBOUND
from platform_node import Node, names
from servers import Server


def row(table: str, fields: dict[str, Any], name: str = "") -> dict[str, Any]:
    """An insertion, of a row that others refer to by a name."""
    insert: dict[str, Any] = {"op": "insert", "table": table, "row": fields}
    return insert | ({"uuid-name": name} if name else {})


def ref(*rows: str) -> list[Any]:
    """A set of such rows."""
    return ["set", [["named-uuid", name] for name in rows]]


@pytest.fixture(scope="module", autouse=True)
def southbound(server: Server, node: Node) -> None:
    """Two chassis, two datapaths that share flows, and a port."""
    ingress = {"match": "ip4", "actions": "next;", "pipeline": "ingress"}
    of_port = {"datapath": ["named-uuid", "web"], "chassis": ref("c1")}
    milliseconds = int(time.time() * 1000)
    ids = {name: ["map", [["name", name]]] for name in ("web", "app")}
    server.client().transact(
        SOUTHBOUND,
        row("SB_Global", {"nb_cfg": 7}),
        row("Encap", {"type": "geneve", "ip": "192.0.2.1", "chassis_name": "c1"}, "e1"),
        row("Encap", {"type": "vxlan", "ip": "192.0.2.2", "chassis_name": "c2"}, "e2"),
        row("Chassis", {"name": "c1", "hostname": "host-1", "encaps": ref("e1")}, "c1"),
        row("Chassis", {"name": "c2", "hostname": "host-2", "encaps": ref("e2")}),
        row("Chassis_Private", {"name": "c1", "nb_cfg": 5, "nb_cfg_timestamp": milliseconds}),
        row("Datapath_Binding", {"tunnel_key": 1, "external_ids": ids["web"]}, "web"),
        row("Datapath_Binding", {"tunnel_key": 2, "external_ids": ids["app"]}, "app"),
        row("Logical_DP_Group", {"datapaths": ref("web", "app")}, "both"),
        row("Logical_Flow", ingress | {"logical_datapath": ref("web"), "table_id": 3}),
        row("Logical_Flow", ingress | {"logical_datapath": ref("app"), "pipeline": "egress"}),
        row("Logical_Flow", ingress | {"logical_dp_group": ref("both")}),
        row("Port_Binding", {"logical_port": "p", "tunnel_key": 1, **of_port}),
    )
    server.client().sync(SOUTHBOUND)
    deadline = time.monotonic() + 5
    while not node.get("/port-bindings")["items"]:
        assert time.monotonic() < deadline


def test_a_chassis_tells_how_it_is_reached_and_how_far_it_is(node: Node) -> None:
    one = node.get("/chassis/host-1")
    assert one["encapsulations"] == [{"type": "geneve", "ip": "192.0.2.1", "options": {}}]
    assert (one["nb_cfg_seen"], one["nb_cfg_behind"]) == (5, 2)
    assert 0 <= one["nb_cfg_age_seconds"] < 60
    # What it tells may be other while the row is the same.
    answer = node.client.get("/chassis/host-1", headers={"if-none-match": "*"})
    assert answer.status_code == 200 and "etag" not in answer.headers
    two = node.get("/chassis/c2?fields=name,nb_cfg_seen,nb_cfg_age_seconds")
    assert two == {"name": "c2", "nb_cfg_seen": None, "nb_cfg_age_seconds": None}
    assert names(node.get("/chassis")) == ["c1", "c2"]


def test_flows_are_those_of_a_datapath_its_groups_included(node: Node) -> None:
    def found(query: str) -> int:
        return len(node.get(f"/logical-flows?{query}")["items"])

    assert found("datapath=web") == 2
    assert found("datapath=app") == 2
    assert found("datapath=web&pipeline=ingress") == 2
    assert found("datapath=app&pipeline=egress") == 1
    assert found("datapath=web&table_id=3") == 1
    assert found("q=ip4") == 3
    assert found("q=ip6") == 0
    (datapath,) = node.get("/datapaths?external_ids.name=web")["items"]
    assert found(f"datapath={datapath['_uuid']}") == 2
    assert node.get("/logical-flows?datapath=none", 422)["errors"][0]["rule"] == "reference"


def test_rows_are_found_by_what_they_refer_to(node: Node) -> None:
    assert names(node.get("/port-bindings?datapath=web"), "logical_port") == ["p"]
    assert node.get("/port-bindings?datapath=app")["items"] == []
    assert names(node.get("/port-bindings?chassis=host-1"), "logical_port") == ["p"]
    assert node.get("/port-bindings/p")["tunnel_key"] == 1


@pytest.mark.parametrize("name", [r.name for r in RESOURCES if r.database == SOUTHBOUND])
def test_the_southbound_is_for_reading(node: Node, name: str) -> None:
    assert "items" in node.get(f"/{name}")
    assert node.client.post(f"/{name}", json={}).status_code == 405
    assert node.client.patch(f"/{name}/x", json={}).status_code == 405
    assert node.client.delete(f"/{name}/x").status_code == 405
