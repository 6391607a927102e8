"""The topology over HTTP, of a network that real programs made."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from platform_node import Node, databases
from servers import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Both databases, with a router between three switches."""
    with databases("ovncp") as server:
        client = server.client()
        operations: list[dict[str, Any]] = []
        for number in range(3):
            port = {"name": f"s{number}-r", "type": "router"}
            port["options"] = ["map", [["router-port", f"r-s{number}"]]]
            operations += [
                _insert("Logical_Switch_Port", f"p{number}", port),
                _insert("Logical_Switch", f"s{number}", _holding(f"s{number}", f"p{number}")),
                _insert("Logical_Router_Port", f"r{number}", _router_port(f"r-s{number}")),
            ]
        router = {"name": "r", "ports": ["set", [["named-uuid", f"r{n}"] for n in range(3)]]}
        client.transact("OVN_Northbound", *operations, _insert("Logical_Router", "r", router))
        yield server


def _insert(table: str, name: str, row: Any) -> dict[str, Any]:
    return {"op": "insert", "table": table, "uuid-name": name, "row": row}


def _holding(name: str, port: str) -> dict[str, Any]:
    return {"name": name, "ports": ["named-uuid", port]}


def _router_port(name: str) -> dict[str, Any]:
    return {"name": name, "mac": "00:00:00:00:00:01", "networks": "10.0.0.1/24"}


@pytest.fixture(scope="module")
def node(server: Server) -> Iterator[Node]:
    with Node(server.remote, server.remote) as node:
        yield node


def names(answer: Any) -> list[str]:
    return [each["name"] for each in answer["nodes"]]


def test_pages_by_cursor_and_by_link(node: Node) -> None:
    whole = node.get("/topology")
    assert names(whole) == ["r", "s0", "s1", "s2"]
    assert whole["next"] is None
    assert len(whole["links"]) == 3
    assert whole["counts"]["switch_port_types"] == {"router": 3}
    page = node.client.get("/topology", params={"limit": 2})
    assert names(page.json()) == ["r", "s0"]
    assert float(page.headers["OVN-Age"]) >= 0
    rest = node.get("/topology", limit=2, cursor=page.json()["next"])
    assert names(rest) == ["s1", "s2"]
    linked = httpx.get(str(page.url.join(page.links["next"]["url"])))
    assert linked.json() == rest


def test_changes_are_in_the_next_answer(node: Node) -> None:
    made = node.post("/switches", {"name": "fresh"})
    port = {"name": "fresh-net", "type": "localnet", "options": {"network_name": "outer"}}
    node.post("/switches/fresh/ports", port)
    around = node.get("/topology", around="fresh")
    assert names(around) == ["fresh", "outer"]
    assert around["links"][0]["ports"] == ["fresh-net"]
    node.delete(f"/switches/{made['_uuid']}")
    node.get("/topology", 404, around="fresh")
    assert node.get("/topology")["counts"]["networks"] == 0


def test_what_is_asked_for(node: Node) -> None:
    counts = node.get("/topology", detail="counts")
    assert (counts["nodes"], counts["counts"]["switches"]) == ([], 3)
    assert names(node.get("/topology", kinds=["router"])) == ["r"]
    assert names(node.get("/topology", around="s1", steps=2, kinds=["switch"])) == ["s1"]
    cut = node.get("/topology", around="s1", steps=2, limit=2)
    assert (names(cut), cut["cut"]) == (["s1", "r"], True)
    told = node.get("/topology", detail="ports", ports=1, kinds=["router"])["nodes"][0]
    assert (told["n_ports"], len(told["ports"])) == (3, 1)
    assert names(node.get("/topology", tenant="nobody")) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"detail": "all"},
        {"kinds": "gateway"},
        {"cursor": "x"},
        {"cursor": "WzFd"},
        {"cursor": "MQ=="},
        {"unknown": 1},
        {"format": "svg"},
    ],
)
def test_what_cannot_be_asked_for(node: Node, wrong: dict[str, Any]) -> None:
    problem = node.get("/topology", 422, **wrong)
    assert problem["type"] == "urn:ovncp:problem:invalid"
    assert next(iter(wrong)) in problem["errors"][0]["field"]


@pytest.mark.parametrize(
    "form, media_type, beginning",
    [
        ("graphviz", "text/vnd.graphviz", "graph topology {"),
        ("mermaid", "text/vnd.mermaid", "flowchart LR"),
        ("cytoscape", "application/json", '{"elements":'),
    ],
)
def test_forms(node: Node, form: str, media_type: str, beginning: str) -> None:
    answer = node.client.get("/topology", params={"format": form})
    assert answer.headers["content-type"].partition(";")[0] == media_type
    assert answer.text.startswith(beginning)
