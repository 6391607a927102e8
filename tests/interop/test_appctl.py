"""Each runtime command by the real `ovs-appctl`: it answers, and does, what it does on C."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import free_port
from interop.programs import KIND, NB_SCHEMA, VTEP_SCHEMA, said, wait_for
from servers import Closed, Server

KINDS = (KIND, "c")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

SAME_ANSWERS = """
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
    ovsdb-server/list-remotes
    ovsdb-server/add-remote db:OVN_Northbound,NB_Global
    ovsdb-server/add-remote db:OVN_Northbound,nothing,connections
    ovsdb-server/add-remote db:OVN_Northbound,NB_Global,nothing
    ovsdb-server/add-remote db:OVN_Northbound,NB_Global,options
    ovsdb-server/list-remotes
    ovsdb-server/remove-remote db:OVN_Northbound,NB_Global,options
    ovsdb-server/remove-remote nothing
    ovsdb-server/add-db nb.db
    ovsdb-server/add-db ./nb.db
    ovsdb-server/add-db nb.ovsschema
    ovsdb-server/list-dbs
    ovsdb-server/get-db-storage-status _Server
    ovsdb-server/memory-trim-on-compaction off
    ovsdb-server/tlog-list
    ovsdb-server/tlog-set OVN_Northbound:ACL ON
    ovsdb-server/tlog-set OVN_Northbound::QoS on
    ovsdb-server/tlog-list
    ovsdb-server/tlog-set OVN_Northbound on
    ovsdb-server/tlog-set OVN_Northbound:ACL maybe
    ovsdb-server/tlog-set nothing:ACL on
    ovsdb-server/tlog-set a:b:c off
    ovsdb-server/sync-status
    ovsdb-server/get-active-ovsdb-server
    ovsdb-server/connect-active-ovsdb-server
    ovsdb-server/disconnect-active-ovsdb-server
    ovsdb-server/get-sync-exclude-tables
    memory/show now
    ovsdb-server/add-db relay:Other
    ovsdb-server/add-db relay:_Other:unix:nothing.sock
    ovsdb-server/add-db relay:Other:unix:nothing.sock
    ovsdb-server/list-dbs
    ovsdb-server/get-db-storage-status Other
    ovsdb-server/remove-db Other
    ovsdb-server/list-dbs
    exit now
"""


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    databases = [("nb", NB_SCHEMA), ("vtep", VTEP_SCHEMA)]
    with Server(KIND, databases) as ours, Server("c", databases) as theirs:
        yield ours, theirs


def test_the_commands_answer_as_on_the_c_server(pair: tuple[Server, Server]) -> None:
    for server in pair:
        (server.directory / "nb.ovsschema").write_text("{}")
    different = []
    for line in filter(None, map(str.strip, SAME_ANSWERS.splitlines())):
        ours, theirs = (said(server, *line.split()) for server in pair)
        if ours != theirs:
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


@pytest.mark.parametrize(
    "command",
    [
        "ovsdb-server/set-active-ovsdb-server tcp:127.0.0.1:1",
        "ovsdb-server/set-sync-exclude-tables OVN_Northbound:ACL",
    ],
)
def test_what_comes_later_is_refused_in_so_many_words(command: str) -> None:
    with Server(KIND, [("nb", NB_SCHEMA)]) as server:
        assert "not supported yet" in said(server, *command.split())


def figures(server: Server) -> dict[str, int]:
    return {name: int(n) for name, n in re.findall(r"([\w-]+):(\d+)", said(server, "memory/show"))}


def test_the_figures_of_memory_are_those_of_the_c_server(pair: tuple[Server, Server]) -> None:
    def both(*names: str) -> list[dict[str, int | None]]:
        return [{name: figures(server).get(name) for name in names} for server in pair]

    assert both("atoms", "cells")[0] == both("atoms", "cells")[1]
    for server in pair:
        client = server.client()
        group = {"op": "insert", "table": "Port_Group", "row": {"name": "g"}}
        switch = {"name": "s", "external_ids": ["map", [["a", "b"], ["c", "d"]]]}
        client.transact(
            "OVN_Northbound",
            group,
            *[
                {
                    "op": "insert",
                    "table": "Logical_Switch_Port",
                    "uuid-name": f"p{n}",
                    "row": {"name": f"p{n}", "addresses": ["set", ["1", "2", "3"]]},
                }
                for n in range(3)
            ],
            {
                "op": "insert",
                "table": "Logical_Switch",
                "row": switch | {"ports": ["set", [["named-uuid", f"p{n}"] for n in range(3)]]},
            },
            {
                "op": "update",
                "table": "Port_Group",
                "where": [],
                "row": {"ports": ["set", [["named-uuid", f"p{n}"] for n in range(3)]]},
            },
        )
        for number in range(2):
            client.request("monitor_cond", ["OVN_Northbound", number, {"Logical_Switch": [{}]}])
        client.request("monitor", ["OVN_Northbound", 2, {"Logical_Switch_Port": {}}])
        client.start("transact", ["OVN_Northbound", {"op": "wait", "table": "ACL", "where": [],
                                  "columns": ["name"], "until": "!=", "rows": []}])  # fmt: skip
        client.sync()
    names = ("atoms", "cells", "monitors", "n-weak-refs", "sessions", "triggers")
    ours, theirs = both(*names)
    assert ours == theirs
    assert ours["n-weak-refs"] == 3
    assert ours["monitors"] == 2


def tlog(server: Server) -> list[tuple[str, frozenset[str]]]:
    """The logged changes: what happened, and the columns in any order."""
    lines = re.findall(r"\|transaction\|INFO\|(table:[^,]*,op:[^,]*),(.*)", server.log)
    return [
        (head, frozenset(re.findall(r"(?:^|,)(\w+:(?:\{.*?\}|\[.*?\]|[^,]*))", UUID.sub("U", row))))
        for head, row in lines
    ]


def test_changes_of_chosen_tables_are_logged(pair: tuple[Server, Server]) -> None:
    for server in pair:
        client = server.client()
        server.appctl("ovsdb-server/tlog-set", "OVN_Northbound:Logical_Switch", "on")
        switch = {"op": "insert", "table": "Logical_Switch", "row": {"name": "a b"}}
        group = {"op": "insert", "table": "Port_Group", "row": {"name": "g"}}
        update = {"op": "update", "table": "Logical_Switch", "where": []}
        client.transact("OVN_Northbound", switch, group)
        ids = {"external_ids": ["map", [["k", "v"], ["l", "w w"]]]}
        client.transact("OVN_Northbound", update | {"row": ids})
        client.transact("OVN_Northbound", update | {"row": {"name": "a b"}})
        client.transact("OVN_Northbound", {"op": "delete", "table": "Logical_Switch", "where": []})
        server.appctl("ovsdb-server/tlog-set", "OVN_Northbound:Logical_Switch", "off")
        client.transact("OVN_Northbound", switch)
        assert server.stop() == 0
    ours, theirs = map(tlog, pair)
    assert ours == theirs
    assert [head.partition("op:")[2] for head, _ in ours] == ["inserted", "updated", "deleted"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_monitor_cond_clients_come_back_to_the_old_method(kind: str) -> None:
    with Server(kind, [("nb", NB_SCHEMA)]) as server:
        client = server.client()
        client.request("echo", [])
        server.appctl("ovsdb-server/disable-monitor-cond")
        with pytest.raises(Closed):
            client.wait_until(lambda: False, "the end")
        client = server.client()
        monitor = ["OVN_Northbound", 1, {"ACL": {}}]
        assert client.request("monitor_cond", monitor)["error"] == "unknown method"
        assert client.request("monitor", monitor)["error"] is None


def test_a_pushed_clock_ends_a_wait() -> None:
    with Server(KIND, [("nb", NB_SCHEMA)]) as server:
        client = server.client()
        wait: dict[str, Any] = {"op": "wait", "table": "ACL", "where": [], "columns": ["name"]}
        wait |= {"until": "!=", "rows": [], "timeout": 600_000}
        request = client.start("transact", ["OVN_Northbound", wait])
        client.sync()
        assert said(server, "time/warp", "300000", "10000") == "warped\n[0]"
        client.sync()
        assert client.replies == {}
        server.appctl("time/stop")
        server.appctl("time/warp", "310000")
        assert client.reply(request)["result"][0]["error"] == "timed out"
        assert "invalid MSECS" in said(server, "time/warp", "0")


def test_a_failed_compaction_is_told() -> None:
    with Server(KIND, [("nb", NB_SCHEMA)]) as server:
        Path(f"{server.files['nb']}.tmp").mkdir()
        answer = said(server, "ovsdb-server/compact", "OVN_Northbound")
        assert answer.startswith("I/O error")
        assert answer.endswith("[2]")
        server.client().transact("OVN_Northbound", {"op": "comment", "comment": "still here"})


def test_a_log_that_grew_lots_is_compacted_in_time() -> None:
    with Server(KIND, [("nb", NB_SCHEMA)]) as server:
        client = server.client()
        group = {"op": "insert", "table": "Port_Group", "row": {"name": "g"}}
        client.transact("OVN_Northbound", group)
        for number in range(110):
            ids = {"external_ids": ["map", [["text", f"{number}" * 50_000]]]}
            update = {"op": "update", "table": "Port_Group", "where": [], "row": ids}
            client.transact("OVN_Northbound", update)
        assert server.files["nb"].stat().st_size > 10 << 20
        server.appctl("time/warp", str(9 * 60_000))
        client.sync()
        assert server.files["nb"].stat().st_size > 10 << 20
        server.appctl("time/warp", str(11 * 60_000))
        wait_for(lambda: server.files["nb"].stat().st_size < 1 << 20, "the compaction")


def test_an_address_that_is_taken_is_tried_again() -> None:
    port = free_port()
    with Server(KIND, [("nb", NB_SCHEMA)]) as server, socket.create_server(("", port)) as other:
        assert said(server, "ovsdb-server/add-remote", f"ptcp:{port}") == "[0]"
        wait_for(lambda: f"ptcp:{port}: listen failed: Address already" in server.log, "a word")
        other.close()
        server.appctl("time/warp", "10000")
        wait_for(lambda: connects(port), "the listener")


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
                 "the file to shrink")  # fmt: skip
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
