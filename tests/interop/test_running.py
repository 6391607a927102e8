"""What `--run`, `--monitor` and `--user` do, as on the C server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.programs import KIND, NB_SCHEMA, SB_SCHEMA, said, wait_for
from servers import COMMANDS, Server, run

KINDS = (KIND, "c")


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
            server, f"ovsdb-client --timeout=50 list-dbs unix:{server.directory}/it.sock"
        )
        assert (status, "OVN_Northbound" in output) == (0, True)


def run_command(server: Server, command: str) -> tuple[int, str]:
    done = subprocess.run(
        [
            *COMMANDS[server.kind], f"--remote=punix:{server.directory}/it.sock",
            f"--run={command}", "-vconsole:off", str(server.files["nb"]),
        ],
        env=server.env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, re.sub(r"sh: \d+: ", "", done.stdout + done.stderr)


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
        assert server.process.wait(60) == 0


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
