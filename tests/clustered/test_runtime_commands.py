"""The runtime commands of clusters, beside those of a real cluster of C's servers."""

from __future__ import annotations

import re
import signal
import subprocess
import time

import pytest

from c_cluster import CCluster
from clustered.conftest import SCHEMA, Start, starting
from clustered.rows import PATIENCE_S, put, wait_until_seen
from engines import EtcdCluster
from servers import Server

FIRST = re.compile(r"^([A-Z][A-Za-z ]*):", re.M)


def status(server: Server) -> str:
    return server.appctl("cluster/status", "D")


def value(text: str, key: str) -> str:
    found = re.search(rf"^{key}: (.*)$", text, re.M)
    assert found, f"no {key} in:\n{text}"
    return found[1]


def servers_in(text: str) -> list[str]:
    """The lines after `Servers:`."""
    return [line.strip() for line in text.partition("Servers:\n")[2].splitlines()]


def refusal(server: Server, *command: str) -> tuple[int, str, str]:
    """The exit status and what goes to each channel; what is only ovs-appctl's own is left out."""
    done = subprocess.run(
        ["ovs-appctl", "-t", str(server.control), *command], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr.rpartition("ovs-appctl: ")[0]


def test_the_layout_is_that_of_c(start: Start) -> None:
    # So long that nobody is deposed, which would be told of.
    with CCluster(SCHEMA, election_timer_msec=10_000) as c:
        follower = next(member for member in c.running if member != c.wait_for_leader())
        theirs = c.appctl(follower, "cluster/status", "D")
    [one] = start(1)
    ours = status(one)
    keys = FIRST.findall(ours)
    assert [key for key in keys if not key.startswith("Engine")] == FIRST.findall(theirs)
    for text in (ours, theirs):
        lines = text.splitlines()
        assert re.fullmatch(r"[0-9a-f]{4}", lines[0])
        assert lines[10] == ""
        for key in ("Cluster ID", "Server ID"):
            short, full = value(text, key).split()
            assert full.strip("()").startswith(short)
        assert re.fullmatch(r"\[\d+, \d+\]", value(text, "Log"))
        [own] = [line for line in servers_in(text) if "(self)" in line]
        assert re.match(r"([0-9a-f]{4}) \(\1 at tcp:127\.0\.0\.1:\d+\) \(self\)", own)


def test_every_server_leads_and_knows_the_others(start: Start) -> None:
    servers = start(3)
    deadline = time.monotonic() + PATIENCE_S
    # Each shows itself in the first seconds.
    while len(servers_in(status(servers[0]))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    texts = [status(server) for server in servers]
    for server, text in zip(servers, texts, strict=True):
        assert value(text, "Status") == "cluster member"
        assert value(text, "Role") == "leader"
        assert value(text, "Leader") == value(text, "Vote") == "self"
        assert int(value(text, "Term")) >= 1
        assert value(text, "Address") == f"tcp:127.0.0.1:{server.port}"
        assert value(text, "Disconnections") == "0"
        lines = servers_in(text)
        assert len(lines) == 3
        for other in servers:
            assert any(f" at tcp:127.0.0.1:{other.port})" in line for line in lines)
    cids = {server.appctl("cluster/cid", "D") for server in servers}
    sids = {server.appctl("cluster/sid", "D") for server in servers}
    assert len(cids) == 1
    assert len(sids) == 3


def test_the_ids_are_those_of_the_server_database(start: Start) -> None:
    [one] = start(1)
    [result] = one.client().transact(
        "_Server", {"op": "select", "table": "Database", "where": [["name", "==", "D"]]}
    )
    [row] = result["rows"]
    assert row["cid"] == ["uuid", one.appctl("cluster/cid", "D").strip()]
    assert row["sid"] == ["uuid", one.appctl("cluster/sid", "D").strip()]


def test_a_server_that_stops_is_forgotten_at_once(start: Start) -> None:
    one, other = start(2)
    sid = other.appctl("cluster/sid", "D").strip()
    # Else it may not have shown itself yet.
    assert any(line.startswith(sid[:4]) for line in servers_in(status(other)))
    other.stop()
    assert not any(line.startswith(sid[:4]) for line in servers_in(status(one)))


def test_the_log_is_counted(start: Start) -> None:
    one, other = start(2, keep_s=0, keep_mb=0)
    client = one.client()
    for i in range(7):
        put(client, "k", str(i))
    wait_until_seen(other, "k", "6")
    for server in (one, other):
        assert value(status(server), "Log") == "[1, 8]"
        assert " raft-log:7 " in server.appctl("memory/show")
        assert value(status(server), "Entries not yet committed") == "0"
        assert value(status(server), "Entries not yet applied") == "0"
    one.appctl("ovsdb-server/compact", "D")
    for server in (one, other):
        assert value(status(server), "Log") == "[8, 8]"


COMMANDS = ["cluster/cid", "cluster/sid", "cluster/status", "cluster/leave"]
MORE = [*COMMANDS, "cluster/kick 1234", "cluster/change-election-timer 1000"]


def test_errors_are_those_of_c(start: Start) -> None:
    [one] = start(1)
    for command in MORE:
        name, *rest = command.split()
        assert refusal(one, name, "X", *rest) == (2, "", "unknown cluster\n")
    for name in COMMANDS:
        words = f'"{name}" command requires at least 1 arguments\n'
        assert refusal(one, name) == (2, "", words)
    assert refusal(one, "cluster/kick", "D", "zzzz") == (2, "", "unknown server\n")
    assert refusal(one, "cluster/sid", "_Server") == (2, "", "unknown cluster\n")


def test_what_has_no_meaning_here_says_what_to_do(start: Start) -> None:
    [one] = start(1)
    sid = one.appctl("cluster/sid", "D").strip()
    for text, command in {
        "ovsdb-server/remove-db D": ("cluster/leave", "D"),
        f"Stop it: process {one.pid} on ": ("cluster/kick", "D", sid[:4]),
        "the timer is its own": ("cluster/change-election-timer", "D", "2000"),
    }.items():
        code, output, error = refusal(one, *command)
        assert (code, output) == (2, "")
        assert text in error
    assert value(status(one), "Status") == "cluster member"


def test_storage_is_described(start: Start) -> None:
    [one] = start(1)
    first, second = one.appctl("ovsdb-server/get-db-storage-status", "D").splitlines()
    assert first == "status: ok"
    assert re.fullmatch(r"storage: \w+ [\d.]+, [\d.]+ MiB allocated, [\d.]+ MiB in use.*", second)


def test_metrics_tell_of_the_log_and_its_engine(start: Start) -> None:
    one, other = start(2)
    put(one.client(), "k", "v")
    wait_until_seen(other, "k", "v")
    one.appctl("cluster/status", "D")
    text = one.appctl("metrics/show")
    for name, number in {"connected": 1, "index": 1, "lag_entries": 0, "entries": 1}.items():
        assert f'ovncp_log_{name}{{database="D"}} {number}\n' in text
    assert re.search(r'^ovncp_engine_allocated_bytes\{database="D"\} [1-9]', text, re.M)
    assert "ovncp_log_entries_of_others_total 1\n" in other.appctl("metrics/show")


@pytest.mark.parametrize("engine", ["etcd"], indirect=True)
def test_the_members_of_etcd_are_shown(start: Start, etcd: EtcdCluster) -> None:
    [one] = start(1)
    text = status(one)
    assert value(text, "Engine leader") == f"n{etcd.wait_for_leader()}"
    assert value(text, "Connections") == "->n0 ->n1 ->n2"
    for i, host in enumerate(etcd.hosts):
        assert f"    n{i} at {host} " in text


def test_a_server_that_is_cut_off_says_so() -> None:
    with EtcdCluster() as etcd, starting(etcd) as start:
        one, other = start(2)
        status(one)
        for member in range(2):
            etcd.signal(member, signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE_S
        while "cut off" not in one.log:
            assert time.monotonic() < deadline, "nobody notices"
            time.sleep(0.1)
        text = status(one)
        assert value(text, "Status").startswith("disconnected from the cluster (cluster error")
        assert value(text, "Role") == "follower"
        assert value(text, "Leader") == "unknown"
        assert value(text, "Disconnections") == "1"
        first = one.appctl("ovsdb-server/get-db-storage-status", "D").splitlines()[0]
        assert first.startswith("status: cluster error: ")
        for member in range(2):
            etcd.signal(member, signal.SIGCONT)
        put_when_it_works(other)
        wait_until_seen(one, "k", "v")
        # Who read meanwhile may have read what was old, and is shown that for a second.
        deadline = time.monotonic() + PATIENCE_S
        while value(status(one), "Role") != "leader":
            assert time.monotonic() < deadline, "it does not lead again"
            time.sleep(0.1)


def put_when_it_works(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return put(server.client(), "k", "v")
        except AssertionError:
            assert time.monotonic() < deadline, "writes are not taken again"
            time.sleep(0.1)
