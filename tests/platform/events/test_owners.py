"""Whose a changed row is: so that a tenant is told of its own rows, of their end too."""

from collections.abc import Sequence
from typing import Any

import pytest

from ovncp.ovn.owners import Owners
from ovncp.ovn.tenancy import KEY
from ovncp.ovsdb.row import Change
from platform_network import Network

RED, BLUE, NOBODY = frozenset(["red"]), frozenset(["blue"]), frozenset()


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def seen(network: Network) -> list[tuple[str, str, frozenset[str]]]:
    """What happened to rows of which table, and whose they are."""
    nb, sb = network.replica("nb"), network.replica("sb")
    owners, seen = Owners(nb, sb), []

    def note(name: str, changes: Sequence[Change]) -> None:
        found = owners.of(nb if name == "nb" else sb, changes)
        for change, tenants in zip(changes, found, strict=True):
            seen.append((_kind(change), change.table.name, tenants))

    network.listeners.append(note)
    return seen


def _kind(change: Change) -> str:
    return "insert" if change.old is None else "delete" if change.new is None else "update"


def owned(tenant: str) -> dict[str, Any]:
    return {"external_ids": ["map", [[KEY, tenant]]]}


def datapath(network: Network, name: str, key: int, **origin: str) -> str:
    """A datapath, made of a row of the Northbound, with a port on it."""
    ids = {"name": name, **{key.replace("_", "-"): value for key, value in origin.items()}}
    row = {"tunnel_key": key, "external_ids": ["map", list(map(list, ids.items()))]}
    port = {"logical_port": f"{name}-p", "tunnel_key": 1, "datapath": ["named-uuid", "d"]}
    results = network.transact(
        "sb",
        {"op": "insert", "table": "Datapath_Binding", "uuid-name": "d", "row": row},
        {"op": "insert", "table": "Port_Binding", "row": port},
    )
    return results[0]["uuid"][1]


def test_rows_and_what_they_hold(network: Network, seen: list[Any]) -> None:
    switch = network.switch("s", **owned("red"))
    port = network.port(switch, "p")
    network.change("nb", "Logical_Switch_Port", port, tag=5)
    network.change("nb", "Logical_Switch", switch, ports=["set", []])
    assert sorted(seen) == sorted(
        [
            ("insert", "Logical_Switch", RED),
            ("insert", "Logical_Switch_Port", RED),
            ("update", "Logical_Switch", RED),
            ("update", "Logical_Switch_Port", RED),
            ("update", "Logical_Switch", RED),
            ("delete", "Logical_Switch_Port", RED),
        ]
    )


def test_a_row_that_ends_with_all_that_it_holds(network: Network, seen: list[Any]) -> None:
    router = network.router("r", **owned("red"))
    port = network.router_port(router, "p")
    gateway = {"name": "p-gw", "chassis_name": "gw", "priority": 1}
    where = [["_uuid", "==", ["uuid", port]]]
    network.transact(
        "nb",
        {"op": "insert", "table": "Gateway_Chassis", "uuid-name": "g", "row": gateway},
        {
            "op": "update",
            "table": "Logical_Router_Port",
            "where": where,
            "row": {"gateway_chassis": ["named-uuid", "g"]},
        },
    )
    seen.clear()
    network.delete("nb", "Logical_Router", router)
    assert sorted(seen) == [
        ("delete", "Gateway_Chassis", RED),
        ("delete", "Logical_Router", RED),
        ("delete", "Logical_Router_Port", RED),
    ]


def test_rows_that_are_nobodys_or_change_hands(network: Network, seen: list[Any]) -> None:
    switch = network.switch("s")
    network.port(switch, "p")
    assert {tenants for _, _, tenants in seen} == {NOBODY}
    network.change("nb", "Logical_Switch", switch, **owned("blue"))
    assert seen[-1][2] == BLUE
    seen.clear()
    network.delete("nb", "Logical_Switch", switch)
    assert {tenants for _, _, tenants in seen} == {BLUE}


def test_a_port_that_moves_is_whose_it_is_now(network: Network, seen: list[Any]) -> None:
    red, blue = network.switch("r", **owned("red")), network.switch("b", **owned("blue"))
    port = network.port(red, "p")
    seen.clear()
    moves = [("delete", red), ("insert", blue)]
    network.transact(
        "nb",
        *(
            {
                "op": "mutate",
                "table": "Logical_Switch",
                "where": [["_uuid", "==", ["uuid", switch]]],
                "mutations": [["ports", mutator, ["set", [["uuid", port]]]]],
            }
            for mutator, switch in moves
        ),
        {
            "op": "update",
            "table": "Logical_Switch_Port",
            "where": [["_uuid", "==", ["uuid", port]]],
            "row": {"tag": 5},
        },
    )
    assert sorted(seen) == sorted(
        [
            ("update", "Logical_Switch", RED),
            ("update", "Logical_Switch", BLUE),
            ("update", "Logical_Switch_Port", BLUE),
        ]
    )


def test_the_southbound(network: Network, seen: list[Any]) -> None:
    """ovn-northd deletes what it made of a row after that row is gone."""
    switch = network.switch("s", **owned("red"))
    found = datapath(network, "s", 1, logical_switch=switch)
    datapath(network, "elsewhere", 2)
    made = seen[1:]
    assert sorted(made) == sorted(
        [
            ("insert", "Datapath_Binding", RED),
            ("insert", "Port_Binding", RED),
            ("insert", "Datapath_Binding", NOBODY),
            ("insert", "Port_Binding", NOBODY),
        ]
    )
    network.delete("nb", "Logical_Switch", switch)
    seen.clear()
    where = [["datapath", "==", ["uuid", found]]]
    network.transact(
        "sb",
        {"op": "delete", "table": "Port_Binding", "where": where},
        {
            "op": "delete",
            "table": "Datapath_Binding",
            "where": [["_uuid", "==", ["uuid", found]]],
        },
    )
    assert sorted(seen) == [("delete", "Datapath_Binding", RED), ("delete", "Port_Binding", RED)]
