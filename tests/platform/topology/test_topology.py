"""What the topology answers: counts, pages, neighbourhoods, of all or of a tenant; and drawings."""

import re
import shutil
import subprocess
from typing import Any

import orjson
import pytest

from ovncp.ovn import drawing
from ovncp.ovn.links import KINDS
from ovncp.ovn.tenancy import KEY
from ovncp.ovn.topology import Answer, View
from ovncp.ovn.values import Unresolved
from platform_network import Network


def owned(tenant: str) -> dict[str, Any]:
    """What makes a row a tenant's."""
    return {"external_ids": ["map", [[KEY, tenant]]]}


@pytest.fixture
def network() -> Network:
    """An edge router at two chassis, two tenants' routers behind it, each with two switches.

    phys -- outside -- edge == red -- red-1, red-2
                         `==== blue -- blue-1, blue-2
    """
    network = Network()
    outside, edge = network.switch("outside"), network.router("edge")
    options = ["map", [["network_name", "phys"]]]
    network.port(outside, "uplink", type="localnet", options=options)
    hosts = {name: network.chassis(name) for name in ("gw1", "gw2", "hv1")}
    network.join(outside, edge, "edge-outside")
    _place(network, "edge-outside-r", {"gw1": 20, "gw2": 10})
    network.bind("cr-edge-outside-r", hosts["gw2"])
    for tenant in ("red", "blue"):
        router = network.router(tenant, **owned(tenant))
        network.router_port(router, f"{tenant}-up", peer=f"{tenant}-down")
        network.router_port(edge, f"{tenant}-down", peer=f"{tenant}-up")
        for number in (1, 2):
            switch = network.switch(f"{tenant}-{number}", **owned(tenant))
            network.join(switch, router, f"{tenant}-{number}-join")
            network.port(switch, f"{tenant}-{number}-vm", up=True)
            network.bind(f"{tenant}-{number}-vm", hosts["hv1"])
    return network


def _place(network: Network, port: str, chassis: dict[str, int]) -> None:
    rows = [
        {
            "op": "insert",
            "table": "Gateway_Chassis",
            "uuid-name": f"g{place}",
            "row": {"name": f"{port}-{name}", "chassis_name": name, "priority": priority},
        }
        for place, (name, priority) in enumerate(chassis.items())
    ]
    uuids = ["set", [["named-uuid", f"g{place}"] for place in range(len(rows))]]
    where = [["name", "==", port]]
    place = {"op": "update", "table": "Logical_Router_Port", "where": where}
    network.transact("nb", *rows, {**place, "row": {"gateway_chassis": uuids}})


def names(answer: Answer) -> list[str]:
    return [node["name"] for node in answer.nodes]


def ends(answer: Answer, others: Answer | None = None) -> set[tuple[str, str, str]]:
    """The links by the names of their ends, one of which may be of an earlier page."""
    known = [*answer.nodes, *(others.nodes if others else ())]
    by_id = {node["id"]: node["name"] for node in known}
    return {(by_id[link["from"]], by_id[link["to"]], link["kind"]) for link in answer.links}


ALL_LINKS = {
    ("outside", "phys", "network"),
    ("outside", "edge", "router"),
    ("edge", "gw1", "gateway"),
    ("edge", "gw2", "gateway"),
    ("red", "edge", "peer"),
    ("edge", "blue", "peer"),
    *((f"{tenant}-{n}", tenant, "router") for tenant in ("red", "blue") for n in (1, 2)),
}


def test_all_of_it(network: Network) -> None:
    view = View(network.graph)
    answer = view.page(KINDS, None, 100)
    switches = ["blue-1", "blue-2", "outside", "red-1", "red-2"]
    assert names(answer) == ["phys", "gw1", "gw2", "blue", "edge", "red", *switches]
    assert ends(answer) == ALL_LINKS
    assert len(answer.links) == len(ALL_LINKS)
    assert answer.next is None
    by_name = {node["name"]: node for node in answer.nodes}
    assert by_name["red-1"]["n_ports"] == 2
    assert by_name["red-1"]["n_up"] == 1
    assert by_name["red-1"]["tenant"] == "red"
    assert by_name["edge"] | {"id": ""} == {
        "id": "",
        "kind": "router",
        "name": "edge",
        "tenant": None,
        "n_ports": 3,
    }
    assert by_name["gw2"] == {
        "id": "chassis:gw2",
        "kind": "chassis",
        "name": "gw2",
        "hostname": "gw2.example",
        "n_ports": 1,
    }
    gateway = next(link for link in answer.links if link["to"] == "chassis:gw1")
    assert (gateway["ports"], gateway["priority"]) == (("edge-outside-r",), 20)
    assert view.counts() == {
        "networks": 1,
        "gateways": 1,
        "chassis": 3,
        "routers": 3,
        "router_ports": 9,
        "switches": 5,
        "switch_ports": 10,
        "switch_ports_up": 4,
        "switch_port_types": {"localnet": 1, "router": 5, "": 4},
    }


@pytest.mark.parametrize("n_nodes", [1, 2, 3, 7])
def test_pages_have_everything_once_and_links_after_their_ends(
    network: Network, n_nodes: int
) -> None:
    view = View(network.graph)
    nodes: list[Any] = []
    links: list[Any] = []
    after = None
    while True:
        page = view.page(KINDS, after, n_nodes)
        nodes += page.nodes
        links += page.links
        ids = {node["id"] for node in nodes}
        assert all({link["from"], link["to"]} <= ids for link in page.links)
        assert len(page.nodes) == n_nodes or page.next is None
        after = page.next
        if after is None:
            break
    whole = view.page(KINDS, None, 100)
    assert nodes == list(whole.nodes)
    assert links == list(whole.links)


def test_a_tenant_has_its_own_part(network: Network) -> None:
    view = View(network.graph, "red")
    answer = view.page(KINDS, None, 100)
    assert names(answer) == ["red", "red-1", "red-2"]
    assert ends(answer) == {("red-1", "red", "router"), ("red-2", "red", "router")}
    assert names(view.page(KINDS, view.page(KINDS, None, 2).next, 100)) == ["red-2"]
    counts = view.counts()
    assert (counts["switches"], counts["switch_ports"], counts["switch_ports_up"]) == (2, 4, 2)
    assert set(names(view.around(view.find("red"), 5, KINDS, 100))) == {"red", "red-1", "red-2"}
    for hidden in ("blue", "edge", "phys", "gw1", "blue-1-vm"):
        with pytest.raises(Unresolved):
            view.find(hidden)
    told = View(network.graph, "red", 10).page(("switch",), None, 1).nodes[0]
    assert all("chassis" not in port for port in told["ports"])


def test_ports_are_told_when_they_are_asked_for(network: Network) -> None:
    view = View(network.graph, None, 1)
    switch = next(n for n in view.page(KINDS, None, 100).nodes if n["name"] == "red-1")
    assert len(switch["ports"]) == 1
    view = View(network.graph, None, 10)
    by_name = {
        port["name"]: port
        for node in view.page(KINDS, None, 100).nodes
        for port in node.get("ports", ())
    }
    assert by_name["red-1-vm"]["chassis"] == "hv1"
    assert by_name["red-1-vm"]["up"] is True
    assert by_name["edge-outside-r"]["chassis"] == "gw2"
    assert by_name["red-up"]["peer"] == "red-down"


@pytest.mark.parametrize(
    "start, n_steps, found",
    [
        ("phys", 0, ["phys"]),
        ("phys", 1, ["phys", "outside"]),
        ("phys", 2, ["phys", "outside", "edge"]),
        ("gw1", 1, ["gw1", "edge"]),
        ("red-2-vm", 2, ["red-2", "red", "edge", "red-1"]),
        ("switch:red-2", 1, ["red-2", "red"]),
        ("edge", 1, ["edge", "gw1", "gw2", "red", "blue", "outside"]),
    ],
)
def test_what_is_around(network: Network, start: str, n_steps: int, found: list[str]) -> None:
    view = View(network.graph)
    answer = view.around(view.find(start), n_steps, KINDS, 100)
    assert names(answer)[0] == found[0]
    assert set(names(answer)) == set(found)
    between = {link for link in ALL_LINKS if {link[0], link[1]} <= set(found)}
    assert ends(answer) == between
    assert not answer.is_cut


def test_a_part_that_is_too_large_is_cut(network: Network) -> None:
    view = View(network.graph)
    answer = view.around(view.find("edge"), 5, KINDS, 4)
    assert len(answer.nodes) == 4
    assert answer.is_cut
    assert not view.around(view.find("edge"), 5, KINDS, 11).is_cut
    routers = view.around(view.find("edge"), 5, ("router",), 100)
    assert sorted(names(routers)) == ["blue", "edge", "red"]


def test_names_that_stand_for_several(network: Network) -> None:
    one, other = network.switch("twice"), network.switch("twice")
    network.router("outside")
    view = View(network.graph)
    with pytest.raises(Unresolved, match=f"switch:{min(one, other)}, switch:{max(one, other)}"):
        view.find("twice")
    assert view.find(one).key == one
    with pytest.raises(Unresolved, match=r"router:.*switch:"):
        view.find("outside")
    assert view.find("router:outside").kind == "router"
    with pytest.raises(Unresolved):
        view.find("chassis:outside")


def test_graphviz_reads_the_drawing(network: Network) -> None:
    network.switch('a "quoted\\ one" \n <b>')
    network.switch("")
    answer = View(network.graph).page(KINDS, None, 100)
    dot = shutil.which("dot")
    assert dot is not None
    text = drawing.graphviz(answer)
    done = subprocess.run([dot, "-Tjson0"], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    drawn = orjson.loads(done.stdout)
    assert {each["name"] for each in drawn["objects"]} == {node["id"] for node in answer.nodes}
    assert len(drawn["edges"]) == len(answer.links)


def test_mermaid(network: Network) -> None:
    network.switch('a "quoted" [one] #1; end')
    answer = View(network.graph).page(KINDS, None, 100)
    head, *lines = drawing.mermaid(answer).splitlines()
    assert head == "flowchart LR"
    # What the grammar of flowcharts has for a node, and for a link with a text.
    node = re.compile(r'  n\d+(\["|\[\["|\{\{"|\(\[")[^"]*("\]|"\]\]|"\}\}|"\]\))')
    link = re.compile(r'  n\d+ ---(\|"[^"]*"\|)? n\d+')
    assert sum(bool(node.fullmatch(line)) for line in lines) == len(answer.nodes)
    assert sum(bool(link.fullmatch(line)) for line in lines) == len(answer.links)
    assert len(lines) == len(answer.nodes) + len(answer.links)
    assert '"a #34;quoted#34; #91;one#93; #35;1#59; end"' in drawing.mermaid(answer)


def test_cytoscape(network: Network) -> None:
    answer = View(network.graph).page(KINDS, None, 100)
    elements = orjson.loads(drawing.cytoscape(answer))["elements"]
    ids = {element["data"]["id"] for element in elements["nodes"]}
    assert ids == {node["id"] for node in answer.nodes}
    edges = [element["data"] for element in elements["edges"]]
    assert len({edge["id"] for edge in edges}) == len(answer.links)
    assert all({edge["source"], edge["target"]} <= ids for edge in edges)
