"""Each runtime command by the real `ovs-appctl`, with the answers that the C server gives."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from interop.programs import KIND, NB_SCHEMA, VTEP_SCHEMA, wait_for
from servers import Server

COMMANDS = """
    version
    ovsdb-server/list-dbs
    ovsdb-server/list-remotes
    ovsdb-server/add-remote ptcp:0:127.0.0.1
    ovsdb-server/add-remote nonsense:1
    ovsdb-server/add-remote db:nothing,a,b
    ovsdb-server/add-remote db:OVN_Northbound,NB_Global,connections
    ovsdb-server/list-remotes
    ovsdb-server/remove-remote ptcp:0:127.0.0.1
    ovsdb-server/remove-remote ptcp:0:127.0.0.1
    ovsdb-server/remove-db hardware_vtep
    ovsdb-server/remove-db hardware_vtep
    ovsdb-server/remove-db _Server
    ovsdb-server/list-dbs
    ovsdb-server/add-db vtep.db
    ovsdb-server/add-db vtep.db
    ovsdb-server/add-db nothing.db
    ovsdb-server/list-dbs
    ovsdb-server/get-db-storage-status OVN_Northbound
    ovsdb-server/get-db-storage-status nothing
    ovsdb-server/compact
    ovsdb-server/compact OVN_Northbound
    ovsdb-server/compact nothing
    ovsdb-server/compact _Server
    ovsdb-server/reconnect
    ovsdb-server/disable-monitor-cond
    ovsdb-server/memory-trim-on-compaction on
    ovsdb-server/memory-trim-on-compaction perhaps
    ovsdb-server/perf-counters-clear
    ovsdb-server/tlog-set OVN_Northbound:NB_Global on
    ovsdb-server/tlog-set OVN_Northbound:nothing on
    ovsdb-server/tlog-set OVN_Northbound:NB_Global off
    coverage/read-counter nothing
    vlog/set jsonrpc:file:dbg
    vlog/set nothing:file:dbg
    vlog/set nonsense:::
    vlog/reopen
    ovsdb-server/no-such-command
    ovsdb-server/add-remote
    ovsdb-server/add-db a b
    exit now
"""


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    databases = [("nb", NB_SCHEMA), ("vtep", VTEP_SCHEMA)]
    with Server(KIND, databases) as ours, Server("c", databases) as theirs:
        yield ours, theirs


def said(server: Server, *command: str) -> str:
    done = subprocess.run(
        ["ovs-appctl", "--timeout=10", "-t", str(server.control), *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    text = f"{done.stdout}{done.stderr}[{done.returncode}]"
    return re.sub(r"/tmp/ovsdb-\w+", "DIR", text)


def test_the_commands_answer_as_on_the_c_server(pair: tuple[Server, Server]) -> None:
    different = []
    for line in filter(None, map(str.strip, COMMANDS.splitlines())):
        ours, theirs = (said(server, *line.split()) for server in pair)
        if line != "version" and ours != theirs:
            different.append((line, ours, theirs))
    assert different == []


NAMED = """
    exit ovsdb-server/compact ovsdb-server/reconnect ovsdb-server/add-remote
    ovsdb-server/remove-remote ovsdb-server/list-remotes ovsdb-server/add-db ovsdb-server/remove-db
    ovsdb-server/list-dbs ovsdb-server/get-db-storage-status ovsdb-server/disable-monitor-cond
    ovsdb-server/memory-trim-on-compaction ovsdb-server/perf-counters-show
    ovsdb-server/perf-counters-clear ovsdb-server/reload ovsdb-server/tlog-set memory/show
    coverage/show coverage/read-counter vlog/list vlog/set vlog/reopen version list-commands
"""


def test_list_commands_names_them_all(pair: tuple[Server, Server]) -> None:
    listed = {line.split()[0] for line in said(pair[0], "list-commands").splitlines()[1:-1]}
    assert set(NAMED.split()) - listed == (set() if KIND == "ovncp" else {"ovsdb-server/reload"})


def test_memory_show_reports_real_figures(pair: tuple[Server, Server]) -> None:
    def figures(server: Server) -> dict[str, int]:
        return {k: int(v) for k, v in re.findall(r"([\w-]+):(\d+)", said(server, "memory/show"))}

    empty = figures(pair[0])
    client = pair[0].client()
    rows = [{"op": "insert", "table": "Logical_Switch", "row": {"name": f"s{n}"}} for n in range(9)]
    client.transact("OVN_Northbound", *rows)
    client.request("monitor_cond", ["OVN_Northbound", 1, {"Logical_Switch": [{}]}])
    full = figures(pair[0])
    assert full["cells"] > empty["cells"] and full["monitors"] == 1 and full["sessions"] == 1
    names = {"atoms", "cells", "monitors", "sessions", "txn-history", "txn-history-atoms"}
    assert names - {"atoms", "txn-history-atoms"} <= full.keys() | {"txn-history"}


def test_coverage_and_performance_counters_count(pair: tuple[Server, Server]) -> None:
    client = pair[0].client()
    client.transact("OVN_Northbound", {"op": "comment", "comment": "counted"})
    assert said(pair[0], "coverage/show").startswith("Event coverage, avg rate over last:")
    assert said(pair[0], "ovsdb-server/perf-counters-show").endswith("[0]")


def test_a_compacted_file_is_smaller_and_complete(pair: tuple[Server, Server]) -> None:
    for server in pair:
        client = server.client()
        switch = {"op": "insert", "table": "Logical_Switch", "row": {"name": "web"}}
        client.transact("OVN_Northbound", switch)
        update = {"op": "update", "table": "Logical_Switch", "where": []}
        for number in range(200):
            row = {"external_ids": ["map", [["number", str(number)]]]}
            client.transact("OVN_Northbound", update | {"row": row})
        before = server.files["nb"].stat().st_size
        said(server, "ovsdb-server/compact", "OVN_Northbound")
        wait_for(lambda server=server, before=before: server.files["nb"].stat().st_size < before,
                 "the file to shrink", 5)  # fmt: skip
        server.kill9()
        server.restart()
        columns = {"columns": ["name", "external_ids"], "where": []}
        (result,) = server.client().transact(
            "OVN_Northbound", {"op": "select", "table": "Logical_Switch"} | columns
        )
        assert result["rows"] == [{"name": "web", "external_ids": ["map", [["number", "199"]]]}]


def test_exit_ends_the_server_after_its_answer(pair: tuple[Server, Server]) -> None:
    for server in pair:
        assert server.stop() == 0
        assert not server.control.exists()
