"""Events say all that changed: a copy that is made of nothing else is the same as the original."""

import random
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from ovncp.ovn import change_events
from ovncp.ovn.change_events import Told
from ovncp.ovn.draft import Draft
from ovncp.ovn.tenancy import View
from ovncp.ovsdb.row import Change
from platform_network import Network, Walk


def told(network: Network, name: str, changes: Sequence[Change]) -> list[Told]:
    """The events for what a transaction changed."""
    database = network.databases[name].name
    rows = network.rows[name]
    found = (
        change_events.of_change(database, rows[c.table.name], c, frozenset(), 1.5) for c in changes
    )
    return [each for each in found if each is not None]


def bodies(network: Network, name: str, changes: Sequence[Change]) -> list[dict[str, Any]]:
    return [orjson.loads(each.body) for each in told(network, name, changes)]


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def seen(network: Network) -> list[dict[str, Any]]:
    """The events of all that happens to the network."""
    seen: list[dict[str, Any]] = []
    network.listeners.append(lambda name, changes: seen.extend(bodies(network, name, changes)))
    return seen


class Copy:
    """A network that is made by doing each event as a request would, which knows no more."""

    def __init__(self, original: Network) -> None:
        self.network = Network()
        self.types: set[str] = set()
        self._original = original
        self._view = View(self.network.replica("nb"), self.network.replica("sb"), None)
        original.listeners.append(self.replay)

    def replay(self, name: str, changes: Sequence[Change]) -> None:
        draft = Draft(self.network.replica(name), self._view)
        for event in sorted(bodies(self._original, name, changes), key=_creations_first):
            is_root = self.network.rows[name][event["table"]].table.schema.is_root
            _do(draft, event, is_root)
            self.types.add(event["type"])
        self.network.transact(name, *draft.operations)


def test_a_copy_made_of_events() -> None:
    for seed in range(4):
        walk = Walk(seed)
        copy = Copy(walk.network)
        for number in range(120):
            walk.step()
            if number % 10 == 0:
                assert _content(copy.network) == _content(walk.network)
        assert _content(copy.network) == _content(walk.network)
        assert copy.types == {"insert", "update", "delete"}


def _creations_first(event: dict[str, Any]) -> int:
    return ["insert", "update", "delete"].index(event["type"])


def _do(draft: Draft, event: dict[str, Any], is_root: bool) -> None:
    table, uuid = event["table"], event["uuid"]
    if event["type"] == "insert":
        row = {name: value for name, value in event["row"].items() if name[0] != "_"}
        draft.insert(table, uuid, row)
    elif event["type"] == "update":
        changes = {name: value for name, value in event["changes"].items() if name[0] != "_"}
        draft.change(table, uuid, changes)
    elif is_root:
        draft.delete(table, uuid)  # others go when nothing holds them any more


def _content(network: Network) -> dict[str, Any]:
    """All rows, without their versions."""
    return {
        f"{name}/{table}": {uuid: row.values[2:] for uuid, row in rows.table.rows.items()}
        for name, tables in network.rows.items()
        for table, rows in tables.items()
    }


def test_what_an_event_says(network: Network, seen: list[dict[str, Any]]) -> None:
    switch = network.switch("web", external_ids=["map", [["a", "1"], ["b", "2"]]])
    ids = ["map", [["a", "1"], ["c", "3"]]]
    network.change("nb", "Logical_Switch", switch, external_ids=ids, copp=["set", []])
    port = network.port(switch, "web-1", tag=7)
    network.delete("nb", "Logical_Switch", switch)
    made, changed, *gains, gone, gone_too = seen
    about = {
        "database": "nb",
        "table": "Logical_Switch",
        "resource": "switches",
        "uuid": switch,
        "name": "web",
        "at": 1.5,
    }
    assert made.pop("row")["external_ids"] == {"a": "1", "b": "2"}
    assert made == {"type": "insert", **about}
    assert changed["type"] == "update"
    assert changed["changes"].pop("_version")
    assert changed["changes"] == {"external_ids": {"b": None, "c": "3"}}
    by_type = {each["type"]: each for each in gains}
    assert by_type["update"]["changes"]["ports"] == {"add": [port], "remove": []}
    assert by_type["insert"]["row"]["tag"] == 7
    assert by_type["insert"]["resource"] == "switch-ports"
    assert {(each["type"], each["name"]) for each in (gone, gone_too)} == {
        ("delete", "web"),
        ("delete", "web-1"),
    }


def test_an_event_is_as_small_as_the_change(network: Network, seen: list[dict[str, Any]]) -> None:
    switch = network.switch("large")
    ports = [
        {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": f"p{n}"} for n in range(500)
    ]
    where = [["_uuid", "==", ["uuid", switch]]]
    all_ports = ["set", [["named-uuid", f"p{number}"] for number in range(500)]]
    network.transact(
        "nb",
        *({**port, "row": {"name": f"p{number}"}} for number, port in enumerate(ports)),
        {"op": "update", "table": "Logical_Switch", "where": where, "row": {"ports": all_ports}},
    )
    seen.clear()
    network.port(switch, "one-more")
    assert all(len(orjson.dumps(event)) < 1000 for event in seen)


def test_what_is_not_told(network: Network, seen: list[dict[str, Any]]) -> None:
    flow = {"pipeline": "ingress", "table_id": 0, "priority": 0, "match": "1", "actions": "next;"}
    insert = {"op": "insert", "table": "Logical_Flow", "row": flow}
    network.transact("sb", insert)
    assert seen == []
    switch = network.switch("same")
    seen.clear()
    network.change("nb", "Logical_Switch", switch, name="same")
    assert seen == []


def test_a_version_is_the_same_wherever_the_change_is_seen() -> None:
    """Two servers of a cluster give rows different `_version`s; a node follows either."""
    random.seed(1)
    seen: list[list[tuple[str, str]]] = []
    uuids = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"]
    for _ in range(2):
        network, found = Network(), []

        def note(
            name: str, changes: Sequence[Change], network: Network = network, found: Any = found
        ) -> None:
            found += [(each.row, each.version) for each in told(network, name, changes)]

        network.listeners.append(note)
        for uuid in uuids:
            row = {"name": uuid[:4], "other_config": ["map", [["b", "2"], ["a", "1"]]]}
            network.transact(
                "nb", {"op": "insert", "table": "Logical_Switch", "uuid": uuid, "row": row}
            )
        network.change("nb", "Logical_Switch", uuids[0], name="other")
        network.delete("nb", "Logical_Switch", uuids[1])
        seen.append(found)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 4
    assert len({row for row, _ in seen[0]}) == 2
