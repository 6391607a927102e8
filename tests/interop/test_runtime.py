"""What an operator does with a running server, and what `--run`, `--monitor` and `--user` do.

Where the C server can do the same, both are asked and must agree.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.programs import KIND, NB_SCHEMA, SB_SCHEMA, wait_for
from servers import COMMANDS, Closed, Server, run

KINDS = (KIND, "c")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

SAME_ANSWERS = """
    ovsdb-server/list-remotes
    ovsdb-server/add-remote db:OVN_Northbound,NB_Global
    ovsdb-server/add-remote db:OVN_Northbound,nothing,connections
    ovsdb-server/add-remote db:OVN_Northbound,NB_Global,nothing
    ovsdb-server/add-remote db:OVN_Northbound,NB_Global,options
    ovsdb-server/add-remote ptcp:0:127.0.0.1
    ovsdb-server/add-remote ptcp:0:127.0.0.1
    ovsdb-server/list-remotes
    ovsdb-server/remove-remote db:OVN_Northbound,NB_Global,options
    ovsdb-server/remove-remote nothing
    ovsdb-server/add-db nb.db
    ovsdb-server/add-db ./nb.db
    ovsdb-server/add-db nb.ovsschema
    ovsdb-server/list-dbs
    ovsdb-server/get-db-storage-status _Server
    ovsdb-server/memory-trim-on-compaction off
    ovsdb-server/compact
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
    ovsdb-server/perf-counters-clear
    memory/show now
"""


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    databases = [("nb", NB_SCHEMA), ("sb", SB_SCHEMA)]
    with Server(KIND, databases) as ours, Server("c", databases) as theirs:
        yield ours, theirs


def said(server: Server, *command: str) -> str:
    done = subprocess.run(
        ["ovs-appctl", "--timeout=10", "-t", str(server.control), *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return re.sub(r"/tmp/ovsdb-\w+", "DIR", f"{done.stdout}{done.stderr}[{done.returncode}]")


def test_the_commands_answer_as_on_the_c_server(pair: tuple[Server, Server]) -> None:
    for server in pair:
        (server.directory / "nb.ovsschema").write_text("{}")
    different = []
    for line in filter(None, map(str.strip, SAME_ANSWERS.splitlines())):
        ours, theirs = (said(server, *line.split()) for server in pair)
        if ours != theirs:
            different.append((line, ours, theirs))
    assert different == []


@pytest.mark.parametrize(
    "command",
    [
        "ovsdb-server/set-active-ovsdb-server tcp:127.0.0.1:1",
        "ovsdb-server/set-sync-exclude-tables OVN_Northbound:ACL",
        "ovsdb-server/add-db relay:Other:tcp:127.0.0.1:1",
        "ovsdb-server/set-relay-source-probe-interval 1000",
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
        wait |= {"until": "!=", "rows": [], "timeout": 30_000}
        request = client.start("transact", ["OVN_Northbound", wait])
        client.sync()
        assert said(server, "time/warp", "29000", "1000") == "warped\n[0]"
        client.sync()
        assert client.replies == {}
        server.appctl("time/stop")
        server.appctl("time/warp", "2000")
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
        wait_for(lambda: server.files["nb"].stat().st_size < 1 << 20, "the compaction", 5)


def test_an_address_that_is_taken_is_tried_again() -> None:
    with Server(KIND, [("nb", NB_SCHEMA)]) as server, socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        assert said(server, "ovsdb-server/add-remote", f"ptcp:{port}") == "[0]"
        wait_for(lambda: f"ptcp:{port}: listen failed: Address already" in server.log, "a word")
        other.close()
        server.appctl("time/warp", "10000")
        wait_for(lambda: connects(port), "the listener", 5)


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --run


@pytest.fixture
def files() -> Iterator[list[Server]]:
    servers = [Server(kind, [("nb", NB_SCHEMA)], start=False) for kind in KINDS]
    yield servers
    for server in servers:
        server.close()


@pytest.mark.parametrize("command", ["exit 0", "exit 3", "kill -9 $$", "echo hello; no-such-thing"])
def test_run_serves_a_command_and_ends_with_it(files: list[Server], command: str) -> None:
    ours, theirs = (run_command(server, command) for server in files)
    assert ours == theirs


def test_a_command_finds_the_server(files: list[Server]) -> None:
    for server in files:
        status, output = run_command(
            server, f"ovsdb-client --timeout=5 list-dbs unix:{server.directory}/it.sock"
        )
        assert (status, "OVN_Northbound" in output) == (0, True)


def run_command(server: Server, command: str) -> tuple[int, str]:
    done = subprocess.run(
        [
            *COMMANDS[server.kind], f"--remote=punix:{server.directory}/it.sock",
            f"--run={command}", "-vconsole:off", str(server.files["nb"]),
        ],
        env=server.env, capture_output=True, text=True, check=False, timeout=10,
    )  # fmt: skip
    return done.returncode, re.sub(r"sh: \d+: ", "", done.stdout + done.stderr)


# --monitor and --user


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_monitored_server_comes_back_with_what_it_was_told(kind: str) -> None:
    with Server(kind, [("nb", NB_SCHEMA)], options=["--monitor"]) as server:
        sb = server.create("sb", SB_SCHEMA)
        server.client().transact(
            "OVN_Northbound", {"op": "insert", "table": "Port_Group", "row": {"name": "kept"}}
        )
        server.appctl("ovsdb-server/add-db", str(sb))
        server.appctl("ovsdb-server/add-remote", "punix:other.sock")
        (child,) = children(server.pid)
        os.kill(child, signal.SIGSEGV)
        wait_for(lambda: children(server.pid) not in ([], [child]), "another child")
        wait_for(lambda: "other.sock" in said(server, "ovsdb-server/list-remotes"), "its answer")
        assert "OVN_Southbound" in said(server, "ovsdb-server/list-dbs")
        select = {"op": "select", "table": "Port_Group", "where": [], "columns": ["name"]}
        wait_for(server._listens, "the listener")
        (result,) = server.client().transact("OVN_Northbound", select)
        assert result["rows"] == [{"name": "kept"}]
        server.appctl("exit")
        assert server.process is not None
        assert server.process.wait(5) == 0


def test_another_user_serves() -> None:
    server = Server(KIND, [("nb", NB_SCHEMA)], options=["--user=nobody"], start=False)
    with server:
        server.directory.chmod(0o777)
        server.files["nb"].chmod(0o666)
        lock = server.directory / ".nb.db.~lock~"
        if lock.exists():
            lock.unlink()
        server.start()
        status = Path(f"/proc/{server.pid}/status").read_text()
        (uid,) = re.findall(r"^Uid:\s+(\d+)", status, re.MULTILINE)
        assert uid == run("id", "-u", "nobody").strip()
        server.client().request("list_dbs", [])


# --config-file


class Configured:
    """A server that is told what to serve by a file."""

    def __init__(self, configuration: Any) -> None:
        self.server = Server(KIND, [("nb", NB_SCHEMA), ("sb", SB_SCHEMA)], start=False)
        self.path = self.server.directory / "config.json"
        self.write(configuration)

    def __enter__(self) -> Configured:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def write(self, configuration: Any) -> None:
        self.path.write_text(json.dumps(configuration))

    def command(self, *options: str) -> list[str]:
        return [
            *COMMANDS[KIND], f"--config-file={self.path}", f"--unixctl={self.server.control}",
            f"--log-file={self.server.log_path}", "-vconsole:off", *options,
        ]  # fmt: skip

    def start(self) -> None:
        self.server.process = subprocess.Popen(
            self.command(), env=self.server.env, cwd=self.server.directory
        )
        wait_for(self.server.control.exists, "the control socket", 5)

    def refusal(self, *options: str) -> str:
        done = subprocess.run(
            self.command(*options), env=self.server.env, cwd=self.server.directory,
            capture_output=True, text=True, check=False, timeout=10,
        )  # fmt: skip
        assert done.returncode == 1
        return done.stderr


BOTH = {
    "remotes": {"punix:db.sock": None, "ptcp:0:127.0.0.1": {"read-only": True}},
    "databases": {"nb.db": None, "sb.db": {"service-model": "standalone"}},
}
ONE = {
    "remotes": {"punix:db.sock": {}, "punix:two.sock": {}},
    "databases": {"nb.db": {}},
}


def test_a_file_says_what_to_serve_and_may_be_read_again() -> None:
    with Configured(BOTH) as configured:
        configured.start()
        server = configured.server
        names = server.client().request("list_dbs", [])["result"]
        assert sorted(names) == ["OVN_Northbound", "OVN_Southbound", "_Server"]
        insert = {"op": "insert", "table": "Port_Group", "row": {}}
        (refusal,) = server.client(tcp=True).transact("OVN_Northbound", insert)
        assert refusal["error"] == "not allowed"
        staying = server.client()
        staying.request("set_db_change_aware", [True])

        configured.write(ONE)
        assert said(server, "ovsdb-server/reload") == "[0]"
        staying.sync()
        assert sorted(staying.request("list_dbs", [])["result"]) == ["OVN_Northbound", "_Server"]
        remotes = said(server, "ovsdb-server/list-remotes")
        assert remotes == "punix:db.sock\npunix:two.sock\n[0]"
        assert (server.directory / "two.sock").exists()

        configured.write(BOTH)
        assert said(server, "ovsdb-server/reload") == "[0]"
        assert "OVN_Southbound" in said(server, "ovsdb-server/list-dbs")
        assert not (server.directory / "two.sock").exists()


def test_a_mistake_in_the_file_changes_nothing() -> None:
    with Configured(BOTH) as configured:
        configured.start()
        server = configured.server
        before = said(server, "ovsdb-server/list-remotes")
        for mistake in ({"databases": []}, {"remote": {}}, {"databases": {"x": {"model": 1}}}):
            configured.write(mistake)
            answer = said(server, "ovsdb-server/reload")
            assert answer.startswith("Configuration failed.  See the log file for details.")
        assert said(server, "ovsdb-server/list-remotes") == before
        assert "unknown member 'model'; there are: service-model" in server.log
        configured.write(ONE | {"databases": {"nb.db": None, "nothing.db": None}})
        assert "Configuration failed." in said(server, "ovsdb-server/reload")
        assert "failed to open database 'nothing.db': I/O error" in server.log
        assert "two.sock" in said(server, "ovsdb-server/list-remotes")


@pytest.mark.parametrize(
    "command",
    [
        "add-remote punix:x", "remove-remote punix:db.sock", "add-db x.db",
        "remove-db OVN_Northbound", "set-active-ovsdb-server tcp:1.2.3.4:1",
        "connect-active-ovsdb-server", "disconnect-active-ovsdb-server",
        "set-active-ovsdb-server-probe-interval 1", "set-relay-source-probe-interval 1",
        "set-sync-exclude-tables a:b",
    ],
)  # fmt: skip
def test_with_a_file_commands_that_would_differ_from_it_are_refused(command: str) -> None:
    with Configured(BOTH) as configured:
        configured.start()
        answer = said(configured.server, *f"ovsdb-server/{command}".split())
        assert answer.startswith("Update the DIR/config.json and use ovsdb-server/reload instead")


def test_reload_without_a_file_is_refused() -> None:
    with Server(KIND, [("nb", NB_SCHEMA)]) as server:
        answer = said(server, "ovsdb-server/reload")
        assert answer.startswith("Configuration file was not specified on command line")


def test_a_file_excludes_the_options_that_it_stands_for() -> None:
    with Configured(BOTH) as configured:
        refusal = configured.refusal("--remote=punix:x")
        assert "--config-file is mutually exclusive with --remote" in refusal
        refusal = configured.refusal("nb.db")
        assert "Databases should be specified in a config file" in refusal


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ({"databases": {"nb.db": {"service-model": "relay"}}}, "not supported yet"),
        ({"databases": {"nb.db": {"service-model": "active-backup"}}}, "not supported yet"),
        ({"databases": {"nothing.db": {}}}, "nothing.db: open failed (No such file or directory)"),
        ({"colour": "blue"}, "there are: remotes, databases"),
    ],
)
def test_a_file_that_cannot_be_served_ends_the_start(configuration: Any, words: str) -> None:
    with Configured(configuration) as configured:
        assert words in configured.refusal()
