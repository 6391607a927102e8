"""What a node does when what it depends on goes away, and comes back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from api_in_process import platform
from c_cluster import CCluster
from interop.programs import wait_for
from ovncp.ovn.resources import NORTHBOUND
from ovncp.ovn.session import SessionLost
from platform_node import SCHEMAS, Node, databases, names


@pytest.mark.parametrize("kind", ["c", "ovncp"])
def test_what_is_known_is_served_and_writes_wait_for_the_server(kind: str) -> None:
    with databases(kind) as server, Node(server.remote, server.remote) as node:
        node.post("/switches", {"name": "before"})
        server.kill9()
        time.sleep(0.2)
        answer = node.client.get("/switches/before")
        assert answer.status_code == 200
        assert float(answer.headers["ovn-age"]) >= 0.1
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(node.post, "/switches", {"name": "meanwhile"})
            time.sleep(0.2)
            assert not waiting.done()
            server.restart()
            assert waiting.result()["name"] == "meanwhile"
        assert names(node.get("/switches")) == ["before", "meanwhile"]
        node.post("/switches", {"name": "after"})


@pytest.mark.parametrize("kind", ["c", "ovncp"])
def test_no_acknowledged_write_is_lost_when_the_server_is_killed(kind: str) -> None:
    """What is made again with its key is there once, whatever had become of it."""
    acknowledged: list[str] = []
    with databases(kind) as server, Node(server.remote, server.remote) as node:
        node.post("/switches", {"name": "s"})
        stopping = threading.Event()

        def write(writer: int) -> None:
            with httpx.Client(base_url=node.client.base_url, timeout=30) as client:
                number = 0
                while not stopping.is_set():
                    name = f"p{writer}-{number}"
                    headers = {"idempotency-key": name}
                    body = {"name": name}
                    while True:
                        answer = client.post("/switches/s/ports", json=body, headers=headers)
                        if answer.status_code == 201:
                            acknowledged.append(name)
                            break
                        assert answer.status_code in (409, 503), answer.text
                        kind = answer.json()["type"].rpartition(":")[2]
                        assert kind in ("outcome-unknown", "key-in-use"), answer.text
                    number += 1

        with ThreadPoolExecutor() as pool:
            writers = [pool.submit(write, number) for number in range(4)]
            try:
                for n_written in (10, 20):
                    wait_for(lambda: len(acknowledged) > n_written, "some writes")  # noqa: B023
                    server.kill9()
                    server.start()
                wait_for(lambda: len(acknowledged) > 30, "writes after all that")
            finally:
                stopping.set()
            for each in writers:
                each.result()
        ports = [row["name"] for row in _all(node, "/switches/s/ports")]
        assert sorted(ports) == sorted(acknowledged)


def _all(node: Node, path: str) -> list[dict[str, str]]:
    rows, cursor = [], ""
    while True:
        page = node.get(f"{path}?limit=1000{cursor}")
        rows += page["items"]
        if page["next"] is None:
            return rows
        cursor = f"&cursor={page['next']}"


def test_the_leader_of_a_cluster_is_followed_wherever_it_is() -> None:
    with (
        CCluster(SCHEMAS[NORTHBOUND]) as cluster,
        databases("c") as other,
        Node(cluster.remote, other.remote) as node,
    ):
        node.post("/switches", {"name": "before"})
        leader = cluster.wait_for_leader()
        cluster.kill(leader)
        row = node.post("/switches", {"name": "after"})
        assert node.get("/switches/after") == row
        tag = node.client.get("/switches/after").headers["etag"]
        node.patch("/switches/after", {"other_config": {"a": "b"}}, If_Match=tag)
        assert names(node.get("/switches")) == ["after", "before"]


@pytest.mark.parametrize("kind", ["c", "ovncp"])
def test_a_schema_that_changes_is_followed(kind: str, tmp_path: Path) -> None:
    """A newer OVN's columns and tables are there without a release of ours."""
    newer = json.loads(Path(SCHEMAS[NORTHBOUND]).read_text())
    newer["version"] = "99.0.0"
    newer["tables"]["Logical_Switch"]["columns"]["colour"] = {
        "type": {"key": {"type": "string", "enum": ["set", ["red", "blue"]]}, "min": 0, "max": 1}
    }
    newer["tables"]["Fancy"] = {
        "columns": {"name": {"type": "string"}, "size": {"type": "integer"}},
        "isRoot": True,
    }
    path = tmp_path / "newer.ovsschema"
    path.write_text(json.dumps(newer))
    with databases(kind) as server, Node(server.remote, server.remote) as node:
        node.post("/switches", {"name": "old"})
        problem = node.post("/switches", {"name": "x", "colour": "red"}, 422)
        assert problem["errors"][0]["rule"] == "additionalProperties"
        subprocess.run(["ovsdb-client", "convert", server.remote, str(path)], check=True)
        wait_for(lambda: "colour" in node.get("/switches/old"), "the new schema")
        node.post("/switches", {"name": "new", "colour": "red"})
        assert names(node.get("/switches?colour=red")) == ["new"]
        assert node.post("/switches", {"name": "y", "colour": "grey"}, 422)
        assert node.post("/db/nb/Fancy", {"name": "f", "size": 3})["size"] == 3
        description = node.client.get(f"{node.url}/openapi.json").json()
        assert "colour" in description["components"]["schemas"]["NewSwitches"]["properties"]


def test_a_node_that_was_never_in_reach_of_a_database_says_so(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("ovn:\n  connection_timeout: 200ms\n")
    with (
        databases("ovncp", start=False) as server,
        Node(server.remote, server.remote, f"--config={config}") as node,
    ):
        traced = node.post("/trace", {"microflow": "ip"}, 503)
        for problem in (node.get("/switches", 503), node.get("/topology", 503), traced):
            assert problem["type"] == "urn:ovncp:problem:database-unreachable"
        server.start()
        wait_for(lambda: node.client.get("/switches").status_code == 200, "the database")


async def test_a_database_that_stays_away_is_not_waited_for_by_everybody() -> None:
    with databases("ovncp") as server:
        async with platform(server, patience=0.2) as node:
            breaker = node.nb.breaker
            assert breaker in node.node.breakers
            server.kill9()
            while node.nb.is_live:
                await node.nb.changed()
            for number in range(3):
                assert breaker.state == "closed", number
                with pytest.raises(SessionLost):
                    await node.nb.live()
            assert breaker.state == "open"
            waiting = asyncio.create_task(node.nb.live())
            await asyncio.sleep(0)
            assert waiting.done() and isinstance(waiting.exception(), SessionLost)
            server.start()
            async with asyncio.timeout(20):
                while not node.nb.is_live:
                    await node.nb.changed()
                await node.nb.live()
                while breaker.state != "closed":
                    await node.nb.live()
                    await asyncio.sleep(0.01)
