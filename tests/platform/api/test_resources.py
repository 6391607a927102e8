"""Resources over HTTP: made, read, changed, deleted, and what is said of what cannot be."""

import pytest

from platform_node import Node, names
from servers import Server


@pytest.fixture
def switch(node: Node, request: pytest.FixtureRequest) -> str:
    """The name of a new switch."""
    name = request.node.name
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
    (stored,) = server.client().transact(
        "OVN_Northbound",
        {"op": "select", "table": "Logical_Switch", "where": [["name", "==", "web"]]},
    )[0]["rows"]
    assert stored["_uuid"] == ["uuid", row["_uuid"]]
    changed = node.patch("/switches/web", {"external_ids": {"a": None, "c": "d"}})
    assert changed["external_ids"] == {"c": "d"}
    assert changed["_version"] != row["_version"]
    node.delete("/switches/web")
    node.get("/switches/web", 404)
    assert "web" not in names(node.get("/switches"))


def test_what_another_client_of_the_database_does_is_seen(node: Node, server: Server) -> None:
    client = server.client()
    insert = {"op": "insert", "table": "Logical_Switch", "row": {"name": "elsewhere"}}
    client.transact("OVN_Northbound", insert)
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
