"""What the command line says is taken, or refused, as the C server does it: status and words."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.programs import KIND, NB_SCHEMA, wait_for
from servers import COMMANDS, Server, run

REFUSED = """
    nb.db --nonsense
    nb.db --remote
    nb.db -q
    nb.db -vnonsense
    nb.db -vconsole:nonsense
    nb.db -vconsole:dbg:info
    nb.db -vPATTERN
    nb.db -vPATTERN:nowhere:%m
    nb.db -vFACILITY:nowhere
    nb.db --log-file=/no/where
    nb.db --log-file=
    nb.db --unixctl=/no/where
    nb.db --unixctl=
    nb.db --pidfile=/no/where
    nb.db --pidfile=
    nb.db --user=nobody-at-all
    nb.db --user=:no-group-at-all
    nb.db --syslog-method
    nb.db --syslog-method=nonsense
    nothing.db
    /
    nothing.db --detach --pidfile
    nothing.db --detach --pidfile --monitor
    nb.db --disable-file-column-diff=yes
    -- --nonsense
    text.db
    empty.db
"""


@pytest.fixture(scope="module")
def places() -> Iterator[list[Server]]:
    """A directory for each kind of server, with a database and what is none."""
    servers = [Server(kind, [("nb", NB_SCHEMA)], start=False) for kind in (KIND, "c")]
    for server in servers:
        (server.directory / "text.db").write_text("no database\n")
        (server.directory / "empty.db").touch()
    yield servers
    for server in servers:
        server.close()


def refusal(server: Server, options: str) -> tuple[int, str]:
    """The exit status and the last line of the complaint."""
    done = subprocess.run(
        [*COMMANDS[server.kind], "--remote=punix:it.sock", *shlex.split(options)],
        env=server.env, cwd=server.directory, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    complaint = (done.stderr.strip().splitlines() or [""])[-1]
    complaint = re.sub(r"^\S+Z\|\d+\|", "", complaint)
    return done.returncode, complaint.replace(str(server.directory), "DIR")


@pytest.mark.parametrize("options", [*filter(None, map(str.strip, REFUSED.splitlines()))])
def test_what_is_refused(places: list[Server], options: str) -> None:
    ours, theirs = (refusal(server, options) for server in places)
    assert ours == theirs
    assert ours[0] == 1
    for server in places:
        left = {path.name for path in server.directory.iterdir()}
        assert {name for name in left if "~lock~" not in name} == {"nb.db", "text.db", "empty.db"}


@pytest.mark.parametrize("kind", [KIND, "c"])
def test_a_daemon_may_be_started_with_nothing_open(kind: str) -> None:
    with Server(kind, [("nb", NB_SCHEMA)], start=False) as server:
        pidfile = server.directory / "it.pid"
        command = [*server.command, "--detach", f"--pidfile={pidfile}"]
        closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
        assert subprocess.run(closing, env=server.env, check=False).returncode == 0
        assert "OVN_Northbound" in run("ovsdb-client", "list-dbs", server.remote)
        pid = pidfile.read_text().strip()
        standard = {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)}
        assert standard == {"/dev/null"}
        server.appctl("exit")
        wait_for(lambda: not pidfile.exists(), "the end")


@pytest.mark.parametrize("kind", [KIND, "c"])
def test_a_signal_that_is_to_be_ignored_is(kind: str) -> None:
    """As `nohup` wants it."""
    with Server(kind, [("nb", NB_SCHEMA)], start=False) as server:
        ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *server.command]
        server.process = subprocess.Popen(ignoring, env=server.env, cwd=server.directory)
        server.wait_until_it_listens()
        client = server.client()
        client.sync()
        server.process.send_signal(signal.SIGHUP)
        client.sync()
        assert server.signal(signal.SIGTERM) == -signal.SIGTERM


def test_a_log_is_never_written_to_a_database() -> None:
    """As it would be, were a database what is open as the standard error."""
    with Server(KIND, [("nb", NB_SCHEMA)], options=["-v"], start=False) as server:
        before = server.files["nb"].read_bytes()
        closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *server.command, "--run=true"]
        assert subprocess.run(closing, env=server.env, check=False).returncode == 0
        assert server.files["nb"].read_bytes() == before


TLS_MISTAKES = {
    "-p no.pem -c no.pem -C no.pem": "No such file or directory",
    "-p nb.db -c nb.db -C nb.db": "private key .*nb.db",
}


@pytest.mark.parametrize("options", TLS_MISTAKES)
def test_tls_files_that_cannot_be_used_are_told_of_at_once(options: str) -> None:
    for kind, words in ((KIND, TLS_MISTAKES[options]), ("c", "")):
        with Server(kind, [("nb", NB_SCHEMA)], options=options.split()) as server:
            pattern = rf"\|stream_ssl\|ERR\|.*{words}"
            wait_for(lambda server=server, p=pattern: re.search(p, server.log), "a word")


@pytest.mark.parametrize("kind", [KIND, "c"])
def test_tls_files_that_are_yet_to_be_named_are_no_mistake(kind: str) -> None:
    """As ovs-ctl and ovn-ctl start every server, whether it is ever to use TLS or not."""
    names = ("private-key", "certificate", "ca-cert")
    column = "db:OVN_Northbound,SSL,{}"
    options = [f"--{name}={column.format(name.replace('-', '_'))}" for name in names]
    with Server(kind, [("nb", NB_SCHEMA)], options=options) as server:
        server.client().sync()
        assert "ERR" not in server.log
        ssl = {"private_key": "no.pem", "certificate": "no.pem", "ca_cert": "no.pem"}
        server.client().transact(
            "OVN_Northbound",
            {"op": "insert", "table": "SSL", "row": ssl, "uuid-name": "s"},
            {"op": "insert", "table": "NB_Global", "row": {"ssl": ["named-uuid", "s"]}},
        )
        wait_for(lambda: "|stream_ssl|ERR|" in server.log, "a word on the files")


def test_a_storage_engine_out_of_reach_is_told_of_without_the_password(tmp_path: Path) -> None:
    location = "postgresql://me:secret@127.0.0.1:1/ovn?db=OVN_Southbound&timeout_ms=100"
    options = [f"--remote=punix:{tmp_path}/db.sock", f"--unixctl={tmp_path}/ctl"]
    done = subprocess.run(
        [*COMMANDS["ovncp"], *options, location], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "secret" not in done.stderr
