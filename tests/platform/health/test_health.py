"""What probes are told, while what a node depends on goes away and comes back."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from api_in_process import platform
from engines import Postgres, PostgresStandby
from interop.programs import wait_for
from ovncp.api import app
from ovncp.auth.accounts import Accounts
from ovncp.auth.settings import AuthSettings, DatabaseSettings
from platform_figures import Figures
from platform_node import Node, databases
from redis_servers import RedisServer

NEEDED = {"northbound": True, "southbound": False, "redis": False, "database": True}


def ask(node: Node, probe: str) -> tuple[int, dict]:
    answer = httpx.get(f"{node.url}/health/{probe}", timeout=10)
    return answer.status_code, answer.json()


def down(node: Node) -> tuple[int, set[str]]:
    """The status of /health/ready, and what it says is down."""
    status, told = ask(node, "ready")
    dependencies = told["dependencies"]
    assert {name: each["needed"] for name, each in dependencies.items()} == NEEDED
    return status, {name for name, each in dependencies.items() if each["status"] == "down"}


@pytest.fixture(scope="module")
def postgres():
    with Postgres() as primary:
        primary.sql("CREATE DATABASE accounts ENCODING 'UTF8' TEMPLATE template0")
        with PostgresStandby(primary) as standby:
            yield primary, standby


def configuration(primary, standby) -> str:
    (host, port), (replica_host, replica_port) = (p.host.split(":") for p in (primary, standby))
    return f"""
auth: {{mode: users}}
database:
  primary: {{host: "{host}", port: {port}, database: accounts, user: ovncp}}
  replicas: [{{host: "{replica_host}", port: {replica_port}, database: accounts, user: ovncp}}]
ovn: {{connection_timeout: 200ms}}
"""


def test_a_node_is_ready_while_all_that_it_needs_is_there(postgres, tmp_path):
    primary, standby = postgres
    config = tmp_path / "config.yaml"
    config.write_text(configuration(primary, standby))
    with (
        RedisServer() as redis,
        databases("ovncp", start=False) as nb,
        databases("c") as sb,
        Node(
            nb.remote,
            sb.remote,
            f"--config={config}",
            env={"REDIS_URL": f"redis://{redis.address}", "NODE_ID": "n"},
        ) as node,
    ):
        assert ask(node, "live") == (200, {"status": "live", "node": "n", "dependencies": {}})
        assert ask(node, "startup")[0] == 503
        assert ask(node, "startup")[1]["status"] == "starting"
        assert down(node)[0] == 503
        nb.start()
        wait_for(lambda: ask(node, "startup")[0] == 200, "the start")
        assert ask(node, "startup")[1]["status"] == "started"
        wait_for(lambda: down(node) == (200, set()), "all of it")
        lag = "ovncp_database_replica_lag_seconds"

        def lag_s() -> float:
            return Figures.at(node.metrics_url).sum(lag, server="database replica 1")

        wait_for(lambda: lag_s() == 0, "the replica to have all there is")
        standby.sql("SELECT pg_wal_replay_pause()")
        primary.sql("CREATE TABLE t ()")
        wait_for(lambda: lag_s() > 0, "the replica to be behind")
        standby.sql("SELECT pg_wal_replay_resume()")

        redis.kill()
        assert down(node) == (200, {"redis"})
        redis.start()
        wait_for(lambda: down(node) == (200, set()), "Redis")
        with redis.paused():
            assert down(node) == (200, {"redis"})
        wait_for(lambda: down(node) == (200, set()), "Redis")

        sb.kill9()
        wait_for(lambda: down(node) == (200, {"southbound"}), "the end of the Southbound")
        sb.restart()
        nb.kill9()
        wait_for(lambda: down(node)[0] == 503, "the end of the Northbound")
        assert ask(node, "ready")[1]["status"] == "not ready"
        nb.restart()
        wait_for(lambda: down(node) == (200, set()), "both databases")

        standby.stop()
        wait_for(lambda: down(node) == (200, set()), "no matter")
        figures = Figures.at(node.metrics_url)
        assert lag in figures.names() and not list(figures.samples(lag))
        primary.stop()
        wait_for(lambda: down(node) == (503, {"database"}), "the end of the accounts")
        primary.start()
        wait_for(lambda: down(node) == (200, set()), "the accounts")


def test_a_node_that_drains_is_sent_no_more_requests(start):
    a, b = start("a"), start("b")
    wait_for(lambda: len(a.get("/cluster/nodes")["items"]) == 2, "the other node")
    b.post("/cluster/nodes/a/drain", {}, 202)
    wait_for(lambda: ask(a, "ready")[0] == 503, "the node to drain")
    told = ask(a, "ready")[1]
    assert told["status"] == "draining"
    assert told["dependencies"]["northbound"] == {"status": "up", "needed": True}
    assert (ask(a, "live")[0], ask(b, "ready")[0]) == (200, 200)
    draining = {"name": "ovncp_cluster_nodes_total", "status": "draining"}
    wait_for(lambda: Figures.at(b.metrics_url).sum(**draining) == 1, "the other node to hear of it")


async def test_probes_that_come_together_look_once(server, tmp_path):
    """Anybody may send them, and shall not use up the connections that others wait for."""
    settings = AuthSettings(DatabaseSettings(f"sqlite:///{tmp_path}/accounts.db"))
    async with platform(server, accounts=lambda node: Accounts(settings, node)) as node:
        await node.accounts.prepare()
        database, n_looks = node.accounts.database, 0
        check = database.check

        async def counted():
            nonlocal n_looks
            n_looks += 1
            await check()

        database.check = counted
        transport = httpx.ASGITransport(app.make(node))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            asked = (client.get("/health/ready") for _ in range(50))
            answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        assert n_looks < 10
