"""Every figure that is promised, after the event that moves it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess

import httpx
import pytest
from websockets.sync.client import connect

from api_in_process import platform
from interop.programs import wait_for
from ovncp.api import metrics
from ovncp.auth.principal import Principal, Role
from ovncp.cluster.memory import Memory
from platform_figures import Figures
from servers import OVNCP


@pytest.fixture(scope="module")
def nodes(start):
    """Nodes a and b, which know each other and who leads."""
    nodes = start("a"), start("b")
    for node in nodes:
        wait_for(lambda node=node: of(node).sum(NODES, status="active") == 2, "both nodes")
        wait_for(lambda node=node: of(node).sum("ovncp_cluster_leader") == 1, "a leader")
    return nodes


NODES = "ovncp_cluster_nodes_total"
BREAKER = "ovncp_breaker_state"


def of(node):
    return Figures.at(node.metrics_url)


@contextlib.contextmanager
def listening(node):
    """A client of events: its connection, and its session's id."""
    request = httpx.Request("GET", node.url)
    next(node.client.auth.sync_auth_flow(request))
    headers = {"authorization": request.headers["authorization"]}
    url = node.url.replace("http", "ws") + "/ws?resources=switches"
    with connect(url, additional_headers=headers) as socket:
        hello = json.loads(socket.recv(10))
        assert hello["type"] == "hello"
        assert json.loads(socket.recv(10))["type"] == "subscribed"
        yield socket, hello["session"]


def test_who_is_there_and_who_leads(nodes):
    leaders = []
    for node in nodes:
        figures = of(node)
        assert figures.sum("ovncp_build_info") == 1
        assert figures.sum(NODES) == figures.sum("ovncp_cluster_node_info") == 2
        about = {"node_id": "b", "hostname": "host-b", "ip": "127.0.0.1"}
        assert figures.sum("ovncp_cluster_node_info", **about) == 1
        leaders += [s.labels["node_id"] for s in figures.samples("ovncp_cluster_leader")]
    assert leaders in (["a", "a"], ["b", "b"])
    assert sum(of(node).sum("ovncp_cluster_leaderships_total") for node in nodes) == 1


def test_the_port_of_the_api_has_them_too_for_those_who_may(nodes):
    a, _ = nodes
    answer = a.client.get(f"{a.url}/metrics")
    assert answer.status_code == 200
    assert Figures(answer.text).names() == of(a).names()
    assert httpx.get(f"{a.url}/metrics").status_code == 401


def test_what_the_node_depends_on(nodes):
    figures = of(nodes[0])
    for dependency in ("redis", "database"):
        labels = [s.labels for s in figures.samples(BREAKER)]
        assert {"dependency": dependency} in labels
    assert figures.sum(BREAKER) == 0
    assert figures.sum("ovncp_redis_connections_max") == 10
    assert 0 <= figures.sum("ovncp_redis_connections_in_use") <= 10
    assert figures.sum("ovncp_database_connections_max", server="database") == 25
    assert 0 <= figures.sum("ovncp_database_connections_in_use", server="database") <= 25
    assert figures.sum("ovncp_audit_records_waiting") == 0
    for database in ("OVN_Northbound", "OVN_Southbound"):
        assert figures.sum("ovncp_replica_connected", database=database) == 1
        assert 0 <= figures.sum("ovncp_replica_lag_seconds", database=database) < 30


def test_requests_and_what_they_write(nodes):
    a, _ = nodes
    before = of(a)
    a.post("/switches", {"name": "s"})
    a.get("/switches/s")
    a.get("/switches/none/ports", 404)
    a.client.get(f"{a.url}/nothing")
    a.client.request("PROPFIND", "/switches")
    after = of(a)

    def grown(name, **labels):
        return after.sum(name, **labels) - before.sum(name, **labels)

    requests, seconds = "ovncp_http_requests_total", "ovncp_http_request_duration_seconds"
    asked = [
        ("POST", "/api/v1/switches", "201"),
        ("GET", "/api/v1/switches/{row}", "200"),
        ("GET", "/api/v1/switches/{parent}/ports", "404"),
        ("GET", "unmatched", "404"),
    ]
    for method, route, status in asked:
        assert grown(requests, method=method, route=route, status=status) == 1
        assert grown(f"{seconds}_count", method=method, route=route) == 1
        assert grown(f"{seconds}_sum", method=method, route=route) > 0
        assert grown(f"{seconds}_bucket", method=method, route=route, le="+Inf") == 1
    assert grown(requests, method="other") == 1
    assert grown("ovncp_batch_size_count") == grown("ovncp_batch_size_sum") == 1
    assert grown("ovncp_replica_rows", database="OVN_Northbound") == 1
    assert "/api/v1/switches/none" in a.log and "/api/v1/switches/s" not in a.log


def next_told(socket):
    """The kind of the next message, but for those that come with time."""
    while (kind := json.loads(socket.recv(60))["type"]) == "position":
        continue
    return kind


def test_events_and_those_who_are_told_them(nodes):
    a, b = nodes
    appended, read = "ovncp_events_appended_total", "ovncp_events_read_total"
    before = [of(node) for node in nodes]
    with listening(a) as (socket, session):
        wait_for(lambda: of(b).sum("ovncp_sessions_total") == 1, "the session at the other node")
        figures = of(a)
        assert figures.sum("ovncp_sessions_active") == figures.sum("ovncp_sessions_total") == 1
        assert figures.sum("ovncp_event_clients", transport="websocket") == 1
        assert of(b).sum("ovncp_sessions_active") == 0
        b.post("/switches", {"name": "told"})
        assert next_told(socket) == "events"
        after = [of(node) for node in nodes]
        n_appended = [
            new.sum(appended) - old.sum(appended) for old, new in zip(before, after, strict=True)
        ]
        assert sorted(n_appended)[0] == 0 and sorted(n_appended)[1] >= 1
        assert after[0].sum(read) > before[0].sum(read)
        assert after[0].sum("ovncp_event_delay_seconds_count") >= 1
        assert after[0].sum("ovncp_event_gaps_total") == 0
        assert after[0].sum("ovncp_event_clients_missed_total") == 0
        assert "ovncp_events_pending" in after[0].names()

        a.post(f"/cluster/sessions/{session}/migrate", {"to": "b"}, 202)
        assert next_told(socket) == "move"
        moved = {"from": "a", "to": "b"}
        wait_for(lambda: of(a).sum("ovncp_session_migrations_total", **moved) == 1, "it moved")
    wait_for(lambda: of(a).sum("ovncp_sessions_active") == 0, "the end of the session")


def test_what_is_forgotten_by_all_nodes(nodes):
    a, b = nodes
    told = "ovncp_cache_invalidation_events_total"
    n_before = of(b).sum(told)
    ann = a.post("/users", {"name": "ann", "role": "viewer", "password": "long enough for it"})
    a.patch(f"/users/{ann['id']}", {"role": "operator"})
    wait_for(lambda: of(b).sum(told) > n_before, "the other node to be told")
    figures = of(b)
    assert figures.sum("ovncp_cache_invalidation_latency_seconds_count") == figures.sum(told)


async def figures_in(node):
    return Figures(await metrics.text(node))


async def test_locks_and_the_cache(server):
    """In the process of the test, as no request of the interface needs them."""
    async with platform(server, memory=Memory()) as node:
        held = "ovncp_distributed_locks_held"
        async with node.node.locks.hold("x"):
            figures = await figures_in(node)
            assert figures.sum("ovncp_distributed_locks_acquired_total") == figures.sum(held) == 1
            assert figures.sum("ovncp_distributed_lock_wait_seconds_count") == 1
        lease = await node.node.locks.acquire("y", ttl_s=0.3)
        await node.node.locks.remove("y")
        await lease.lost()
        figures = await figures_in(node)
        assert figures.sum(held) == 0
        assert figures.sum("ovncp_distributed_locks_lost_total") == 1

        async def value():
            return b"1"

        cache = node.node.cache
        while not cache.is_usable:
            await asyncio.sleep(0.01)
        for _ in range(2):
            await cache.fetch(None, "switch:1", 60, value)
        figures = await figures_in(node)
        assert figures.sum("ovncp_cache_hits_total", where="node") == 1
        assert figures.sum("ovncp_cache_misses_total") == 1
        assert figures.sum("ovncp_cache_entries") == 1


async def test_events_without_a_websocket(server):
    somebody = Principal("1", "ann", Role.ADMIN)
    async with platform(server) as node:
        with node.audience.session(somebody, "::1", "sse"):
            figures = await figures_in(node)
            assert figures.sum("ovncp_event_clients", transport="sse") == 1


def test_a_port_that_is_taken_is_said(nodes):
    port = nodes[0].metrics_url.rpartition(":")[2].partition("/")[0]
    command = [OVNCP, "api", "--port=0", f"--metrics-port={port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    said = f"ovncp api: server.metrics_port: 127.0.0.1:{port}: Address already in use\n"
    assert done.returncode == 1 and done.stderr.endswith(said)
