"""`--config-file`: what to serve stands in a file, which may be read again."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from interop.programs import KIND, NB_SCHEMA, SB_SCHEMA, said
from servers import COMMANDS, Server, run


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
        self.server.wait_until_it_listens()

    def refusal(self, *options: str) -> str:
        done = subprocess.run(
            self.command(*options), env=self.server.env, cwd=self.server.directory,
            capture_output=True, text=True, check=False, timeout=60,
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


SELECT_GROUPS = {"op": "select", "table": "Port_Group", "where": [], "columns": ["name"]}


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


def test_a_relay_is_pointed_at_another_source_by_a_file() -> None:
    def relaying(source: Server) -> dict[str, Any]:
        database = {"service-model": "relay", "source": {source.remote: {"inactivity-probe": 0}}}
        return {"remotes": {"punix:db.sock": None}, "databases": {"OVN_Northbound": database}}

    sources = [Server(KIND, [("nb", NB_SCHEMA)]) for _ in range(2)]
    with sources[0], sources[1], Configured(relaying(sources[0])) as configured:
        configured.start()
        server = configured.server
        wait = (
            "ovsdb-client",
            "--timeout=60",
            "wait",
            server.remote,
            "OVN_Northbound",
            "connected",
        )
        run(*wait)
        client = server.client()
        client.request("set_db_change_aware", [True])
        client.request(
            "monitor_cond", ["OVN_Northbound", "m", {"Port_Group": {"columns": ["name"]}}]
        )
        configured.write(relaying(sources[1]))
        assert said(server, "ovsdb-server/reload") == "[0]"
        insert = {"op": "insert", "table": "Port_Group", "row": {"name": "there"}}
        client.transact("OVN_Northbound", insert)
        assert "there" in str(client.notification())
        assert "there" in str(sources[1].client().transact("OVN_Northbound", SELECT_GROUPS))
        assert "there" not in str(sources[0].client().transact("OVN_Northbound", SELECT_GROUPS))


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
        ({"databases": {"OVN_Northbound": {"service-model": "relay"}}}, "must have one member"),
        ({"databases": {"nb.db": {"service-model": "active-backup"}}}, "not supported yet"),
        ({"databases": {"nothing.db": {}}}, "nothing.db: open failed (No such file or directory)"),
        ({"colour": "blue"}, "there are: remotes, databases"),
    ],
)
def test_a_file_that_cannot_be_served_ends_the_start(configuration: Any, words: str) -> None:
    with Configured(configuration) as configured:
        assert words in configured.refusal()
