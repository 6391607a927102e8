"""`make client`: a Python client made of the description, and used on real databases."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from platform_node import Node, databases, northd

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with (
        databases("ovncp") as server,
        northd(server),
        Node(server.remote, server.remote) as node,
    ):
        yield node


@pytest.fixture(scope="module")
def made(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a client that `node` is described by, from where it can be imported."""
    folder = tmp_path_factory.mktemp("client") / "client"
    # What it is made with is installed already, with all that the tests need.
    command = ["make", "--old-file=.venv/client.stamp", "client"]
    command += [f"CLIENT_URL={node.url}", f"CLIENT_DIR={folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


def function(part: str, name: str) -> Any:
    """An operation, as the client has it: `sync` and the like."""
    return import_module(f"ovncp_client.api.{part}.{name}")


@pytest.fixture
def models(made: Path) -> Any:
    return import_module("ovncp_client.models")


@pytest.fixture
def client(node: Node, made: Path) -> Iterator[Any]:
    with import_module("ovncp_client").Client(base_url=node.url, timeout=60) as client:
        yield client


def test_rows_are_made_read_changed_and_deleted(client: Any, models: Any) -> None:
    new = models.NewSwitch(name="web", external_ids=models.Texts.from_dict({"a": "b"}))
    made = function("switches", "create_switches").sync(client=client, body=new)
    assert isinstance(made, models.Switch)
    assert (made.name, made.external_ids.to_dict(), made.copp) == ("web", {"a": "b"}, None)
    read = function("switches", "read_switches").sync_detailed("web", client=client)
    assert read.parsed == made
    change = models.ChangeOfSwitch(
        external_ids=models.ChangeOfTexts.from_dict({"a": None, "c": "d"}),
        dns_records=models.ChangeOfElements(add=[]),
    )
    change_switch = function("switches", "change_switches")
    tag = read.headers["etag"]
    changed = change_switch.sync("web", client=client, body=change, if_match=tag, wait="sb")
    assert isinstance(changed, models.Switch) and changed.external_ids.to_dict() == {"c": "d"}
    stale = change_switch.sync_detailed("web", client=client, body=change, if_match=tag)
    assert stale.status_code == 412
    assert isinstance(stale.parsed, models.ProblemDetails)
    assert stale.parsed.type_ == "urn:ovncp:problem:stale"
    gone = function("switches", "delete_switches").sync_detailed("web", client=client)
    assert (gone.status_code, gone.parsed) == (204, None)


def test_lists_are_read_page_by_page(client: Any, models: Any) -> None:
    function("switches", "create_switches").sync(client=client, body=models.NewSwitch(name="many"))
    create_port = function("switch_ports", "create_switch_ports_of_switches")
    for number in range(5):
        port = models.NewSwitchPort(name=f"p{number}", addresses=["dynamic"], tag=None)
        assert isinstance(create_port.sync("many", client=client, body=port), models.SwitchPort)
    ports = function("switch_ports", "list_switch_ports_of_switches")
    names, more = [], {}
    while True:
        page = ports.sync("many", client=client, limit=2, sort="-name", count=True, **more)
        assert isinstance(page, models.PageOfSwitchPorts) and page.count == 5
        names += [port.name for port in page.items]
        if page.next_ is None:
            break
        more = {"cursor": page.next_}
    assert names == ["p4", "p3", "p2", "p1", "p0"]


def test_many_writes_are_done_at_once(client: Any, models: Any) -> None:
    operations = [
        models.NamedOperation(
            method="POST", path="/routers", body=models.Row.from_dict({"name": "gw"}), as_="gw"
        ),
        models.NamedOperation(
            method="POST",
            path="/routers/@gw/ports",
            body=models.Row.from_dict(
                {"name": "gw1", "mac": "00:00:00:00:ff:01", "networks": ["10.0.0.1/24"]}
            ),
        ),
    ]
    transactions = function("many_writes", "transactions")
    dry = models.Transaction(operations=operations, dry_run=True)
    told = transactions.sync(client=client, body=dry)
    assert {(each.table, each.before) for each in told.changes} == {
        ("Logical_Router", None),
        ("Logical_Router_Port", None),
    }
    done = transactions.sync(
        client=client, body=models.Transaction(operations=operations, wait="sb")
    )
    assert [each.status for each in done.results] == [201, 201] and done.caught_up
    again = transactions.sync(client=client, body=models.Transaction(operations=operations))
    assert again.type_ == "urn:ovncp:problem:conflict" and again.detail.startswith("operations[0]")
    deletions = [models.Operation(method="DELETE", path=f"/routers/{n}") for n in ("gw", "none")]
    batch = function("many_writes", "batch").sync(
        client=client, body=models.Batch(operations=deletions)
    )
    assert [each.status for each in batch.results] == [204, 404]
    assert isinstance(batch.results[1].problem, models.ProblemDetails)


def test_what_is_wrong_is_told_field_by_field(client: Any, models: Any) -> None:
    function("switches", "create_switches").sync(client=client, body=models.NewSwitch(name="s"))
    port = models.NewSwitchPort(name="wrong", tag=5000)
    create_port = function("switch_ports", "create_switch_ports_of_switches")
    problem = create_port.sync("s", client=client, body=port)
    assert isinstance(problem, models.ProblemDetails) and problem.status == 422
    assert [(wrong.field, wrong.rule) for wrong in problem.errors] == [("tag", "maximum")]


def test_nodes_and_the_graph_have_types_and_asyncio_does_too(client: Any, models: Any) -> None:
    async def ask() -> tuple[Any, Any]:
        nodes = await function("cluster", "list_nodes").asyncio(client=client)
        return nodes, await function("topology", "topology").asyncio(client=client)

    nodes, graph = asyncio.run(ask())
    (one,) = nodes.items
    assert isinstance(one, models.ClusterNode) and one.status == "active"
    assert isinstance(graph, models.Topology)
    # This node has no accounts, which is a problem like any other.
    problem = function("users", "list_users").sync(client=client)
    assert isinstance(problem, models.ProblemDetails) and problem.status == 404


def test_the_example_of_the_document_runs(made: Path, node: Node, capsys) -> None:
    text = (ROOT / "docs/platform.md").read_text()
    section = text.partition("## A client in Python")[2].partition("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(example.replace("http://127.0.0.1:8080", node.url), {})
    assert "db" in capsys.readouterr().out
