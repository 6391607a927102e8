"""`ovncp up`: one command that is two databases and `ovn-northd`, and leaves nothing but data.

With `INTEROP_KIND=c` the same command runs the C server and tool, which shows that a test is right.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest

from engines import free_port
from interop.programs import KIND, NB_SCHEMA, SB_SCHEMA, environment, processes_of, wait_for
from servers import COMMANDS, Server, listens, run

SERVING = "Ctrl-C stops everything"
SCRIPT = """
import sys
from ovncp.cli import up
sys.exit(up.main(sys.argv[1:], up.installed()._replace({})))
"""
OURS = KIND == "ovncp"
ON_C = "" if OURS else "server=['ovsdb-server'], tool=['ovsdb-tool']"
UP = [COMMANDS["ovncp"][0], "up"] if OURS else [sys.executable, "-c", SCRIPT.format(ON_C)]
WITHOUT_NORTHD = [
    sys.executable,
    "-c",
    SCRIPT.format(", ".join(filter(None, ["northd=None", ON_C]))),
]


class Up:
    """One `ovncp up` on the directory `data`, with what it prints in `output`."""

    def __init__(
        self,
        home: Path,
        *options: str,
        command: list[str] = UP,
        env: dict[str, str] | None = None,
        data: Path | None = None,
        wait: bool = True,
        piped: bool = False,
    ) -> None:
        self.data = data or home / "var"
        self.nb_port, self.sb_port = free_port(), free_port()
        self.output_path = home / f"output-{self.nb_port}"
        ports = (f"--nb-port={self.nb_port}", f"--sb-port={self.sb_port}")
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, f"--data-dir={self.data}", *ports, "--api-port=none", *options],
                env=os.environ | environment(home) | (env or {}),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
            )
        if wait:
            wait_for(lambda: SERVING in self.output or self.process.poll() is not None, "a start")
            assert SERVING in self.output, self.output

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def pid(self, stem: str, besides: int = 0) -> int:
        """The process in a pidfile, waited for while it is that of `besides`."""
        path = self.data / f"{stem}.pid"
        found = 0

        def is_there() -> bool:
            nonlocal found
            with suppress(FileNotFoundError):  # At the moment, there may be none.
                found = int(path.read_text() or 0)
            return found not in (0, besides)

        wait_for(is_there, f"a process in {path.name}")
        return found

    def nbctl(self, *args: str) -> str:
        return run("ovn-nbctl", f"--db=unix:{self.data}/ovnnb_db.sock", "--timeout=60", *args)

    def sbctl(self, *args: str) -> str:
        return run("ovn-sbctl", f"--db=unix:{self.data}/ovnsb_db.sock", "--timeout=60", *args)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def refusal(self) -> str:
        """The one line that it ends with instead of starting."""
        assert self.process.wait(60) == 1, self.output
        assert self.output.startswith("ovncp up: ") and self.output.count("\n") == 1, self.output
        return self.output


def without_version(schema: Path, version: str, home: Path) -> Path:
    """`schema` as an older release might have had it."""
    older = json.loads(schema.read_text())
    older["version"] = version
    path = home / schema.name
    path.write_text(json.dumps(older))
    return path


def complaints(output: str) -> list[str]:
    """What is wrong; that C's program had to wait for a processor is not."""
    slow = r"WARN (?:Unreasonably long|faults:|context switches:|disk:)"
    complaint = r"\b(?:WARN|ERR|EMER)\b"
    lines = [line for line in output.splitlines() if re.search(complaint, line)]
    return [line for line in lines if not re.search(slow, line)]


def test_what_is_built_becomes_flows_and_is_there_the_next_time(home: Path) -> None:
    with Up(home) as up:
        up.nbctl("--wait=sb", "ls-add", "web", "--", "lsp-add", "web", "web1")
        flows = up.sbctl("dump-flows", "web")
        assert "ls_in_l2_lkup" in flows
        ends(up, signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        with Up(home) as up:
            assert "(web)" in up.nbctl("ls-list")
            up.nbctl("--wait=sb", "sync")
            assert up.sbctl("dump-flows", "web") == flows
            ends(up, number)


def ends(up: Up, number: int) -> None:
    """That it does so at a signal, has nothing to complain of, and leaves nothing running."""
    assert up.stop(number) == 0
    assert processes_of(up.data.parent) == []
    assert "Traceback" not in up.output
    assert complaints(up.output) == []


def test_it_says_how_to_connect(home: Path) -> None:
    with Up(home) as up:
        exports = re.search(r"export (OVN_NB_DB=.*)", up.output)
        assert exports is not None
        env = os.environ | dict(word.split("=", 1) for word in exports[1].split())
        subprocess.run(["ovn-nbctl", "ls-add", "web"], env=env, check=True)
        subprocess.run(["ovn-sbctl", "show"], env=env, check=True)
        listed = run("ovn-nbctl", f"--db=tcp:127.0.0.1:{up.nb_port}", "ls-list")
        assert "(web)" in listed
        run("ovn-sbctl", f"--db=tcp:127.0.0.1:{up.sb_port}", "show")
        assert f"tcp:127.0.0.1:{up.nb_port}" in up.output
        assert f"tcp:127.0.0.1:{up.sb_port}" in up.output


def test_a_connection_row_opens_another_port(home: Path) -> None:
    port = free_port()
    with Up(home) as up:
        up.nbctl("set-connection", f"ptcp:{port}:127.0.0.1")
        wait_for(lambda: accepts(port), "the port of the row")
        run("ovn-nbctl", f"--db=tcp:127.0.0.1:{port}", "--timeout=60", "show")


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_details_are_in_files_of_the_data_directory(home: Path) -> None:
    with Up(home) as up:
        for name in ("ovsdb-server-nb", "ovsdb-server-sb", "ovn-northd"):
            path = up.data / f"{name}.log"
            wait_for(lambda log=path: log.exists() and "|INFO|" in log.read_text(), f"{name}.log")
        for name in ("ovnnb_db", "ovnsb_db", "ovn-northd"):
            wait_for(lambda n=name: listens(up.data / f"{n}.ctl"), f"the control socket {name}.ctl")
            assert run("ovs-appctl", "-t", up.data / f"{name}.ctl", "list-commands")
        status = ("ovn-appctl", "-t", up.data / "ovn-northd.ctl", "status")
        wait_for(lambda: "active" in run(*status), "northd to be the active one")


@pytest.mark.parametrize("stem", ["ovnnb_db", "ovnsb_db", "ovn-northd"])
def test_what_dies_is_started_again(home: Path, stem: str) -> None:
    with Up(home) as up:
        up.nbctl("--wait=sb", "ls-add", "before")
        before = up.pid(stem)
        os.kill(before, signal.SIGKILL)
        up.pid(stem, besides=before)
        assert up.output.count("ended (killed (Killed)); starting again in 1 s") == 1
        # The pidfile comes before the socket, which ovn-nbctl tries only once.
        wait_for(lambda: listens(up.data / "ovnnb_db.sock"), "the Northbound's socket")
        up.nbctl("--wait=sb", "ls-add", "after")
        assert "(before)" in up.nbctl("ls-list")
        assert up.stop() == 0


def test_a_database_that_does_not_come_back_ends_everything(home: Path) -> None:
    with Up(home) as up:
        (up.data / "sb.db").rename(home / "elsewhere")
        os.kill(up.pid("ovnsb_db"), signal.SIGKILL)
        assert up.process.wait(60) == 1
        assert "\novncp up: sb ended (exit status 1) before it served: " in up.output
        assert processes_of(home) == []


def test_nothing_outlives_it_even_when_it_is_killed(home: Path) -> None:
    with Up(home) as up:
        up.process.kill()
        up.process.wait()
        wait_for(lambda: not processes_of(home), "the children to end")
    with Up(home):
        pass


def test_a_second_signal_hurries(home: Path) -> None:
    with Up(home) as up:
        os.kill(up.pid("ovn-northd"), signal.SIGSTOP)
        up.process.send_signal(signal.SIGINT)
        wait_for(lambda: "stopping" in up.output, "the first one to be noticed")
        assert up.stop(signal.SIGINT) == 0, up.output
        assert "does not end within" not in up.output


def test_a_signal_during_the_start_ends_it_too(home: Path) -> None:
    with Up(home, wait=False) as up:
        wait_for(lambda: "everything is kept" in up.output, "the first line")
        assert up.stop() == 0
        assert processes_of(home) == []


def test_it_goes_on_when_nobody_reads_what_it_prints(home: Path) -> None:
    with Up(home, wait=False, piped=True) as up:
        assert up.process.stdout is not None
        up.process.stdout.readline()
        up.process.stdout.close()
        wait_for(lambda: up.pid("ovn-northd"), "northd, the last to start")
        up.nbctl("--wait=sb", "ls-add", "web")
        assert up.stop() == 0


def test_no_northd_where_none_is_wanted(home: Path) -> None:
    with Up(home, "--no-northd") as up:
        assert "northd  not wanted" in up.output
        assert not (up.data / "ovn-northd.pid").exists()
        up.nbctl("ls-add", "web")


def test_no_northd_where_none_is_installed(home: Path) -> None:
    with Up(home, command=WITHOUT_NORTHD) as up:
        assert "apt-get install ovn-central" in up.output
        up.nbctl("ls-add", "web")


def test_an_older_database_is_converted_and_kept_as_it_was(home: Path) -> None:
    data = home / "var"
    data.mkdir()
    older = without_version(NB_SCHEMA, "5.0.0", home)
    run("ovsdb-tool", "create", data / "nb.db", older)
    with Up(home) as up:
        newer = run("ovsdb-tool", "schema-version", NB_SCHEMA)
        assert f"converted nb.db, OVN_Northbound, from 5.0.0 to {newer.strip()}" in up.output
        served = run("ovsdb-client", "get-schema-version", f"unix:{data}/ovnnb_db.sock")
        assert served == newer
    assert run("ovsdb-tool", "db-version", data / "nb.db.backup-5.0.0") == "5.0.0\n"


def test_a_newer_database_is_left_as_it_is(home: Path) -> None:
    data = home / "var"
    data.mkdir()
    newer = without_version(SB_SCHEMA, "99.0.0", home)
    run("ovsdb-tool", "create", data / "sb.db", newer)
    with Up(home) as up:
        assert "sb.db has OVN_Southbound 99.0.0, newer than" in up.output
    assert run("ovsdb-tool", "db-version", data / "sb.db") == "99.0.0\n"


def test_a_long_path_is_no_hindrance(home: Path) -> None:
    """A UNIX socket's name has 107 bytes at most, which its directory may exceed."""
    with Up(home, data=home / ("x" * 60) / ("y" * 60)) as up:
        up.nbctl("--wait=sb", "ls-add", "web")
        assert run("ovs-appctl", "-t", up.data / "ovnnb_db.ctl", "list-commands")
        assert up.stop() == 0


# What stands in the way: one line each, before anything is started.


@contextmanager
def refused(home: Path, *options: str, **settings: object) -> Iterator[Callable[[], str]]:
    with Up(home, *options, wait=False, **settings) as up:  # type: ignore[arg-type]
        yield up.refusal
        assert not list(home.glob("var/*.sock")), "something was started"


def test_a_port_that_is_taken(home: Path) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        refusal = stack.enter_context(refused(home, f"--sb-port={port}"))
        line = refusal()
        assert f"port {port} is taken by " in line and f"(process {os.getpid()})" in line
        assert line.endswith("stop that, or name another with --sb-port\n")


def test_a_schema_that_is_missing(home: Path) -> None:
    with refused_after_start(home, f"--schema-dir={home}") as line:
        assert f"there is no ovn-nb.ovsschema in {home}: install it" in line
        assert "--schema-dir or OVNCP_SCHEMA_DIR" in line
    with refused_after_start(home, env={"OVNCP_SCHEMA_DIR": str(home)}) as line:
        assert f"there is no ovn-nb.ovsschema in {home}" in line


def test_schemas_of_servers(home: Path, tmp_path: Path) -> None:
    nowhere = f"--schema-dir={home}"
    with Server("c", [("nb", NB_SCHEMA)]) as nb, Server("c", [("sb", SB_SCHEMA)]) as sb:
        servers = f"--schema-from={nb.remote},{sb.remote}"
        with Up(home, nowhere, servers) as up:
            up.nbctl("--wait=sb", "ls-add", "web")
            assert up.sbctl("--bare", "--columns=external_ids", "list", "Datapath_Binding")
            assert run("ovsdb-client", "get-schema", f"unix:{up.data}/ovnnb_db.sock") == run(
                "ovsdb-client", "get-schema", nb.remote
            )
            assert up.stop() == 0
    # They are kept, in case that the servers are not there the next time.
    with Up(home, nowhere, env={"OVNCP_SCHEMA_FROM": f"{nb.remote},{sb.remote}"}) as up:
        assert "is from the last time" in up.output
        up.nbctl("ls-del", "web")
    with Up(home, servers, data=tmp_path, wait=False) as up:
        assert up.process.wait(60) == 1
        assert "no schema of OVN_Northbound by --schema-from" in up.output.splitlines()[-1]


@contextmanager
def refused_after_start(home: Path, *options: str, **settings: object) -> Iterator[str]:
    """The last line of one that finds out when it looks at the files."""
    with Up(home, *options, wait=False, **settings) as up:  # type: ignore[arg-type]
        assert up.process.wait(60) == 1, up.output
        assert "Traceback" not in up.output
        assert processes_of(home) == []
        yield up.output.splitlines()[-1]


def test_a_schema_that_is_none(home: Path) -> None:
    (home / "ovn-nb.ovsschema").write_text("{")
    with refused_after_start(home, f"--schema-dir={home}") as line:
        assert f"{home}/ovn-nb.ovsschema is no OVSDB schema" in line


def test_a_database_file_that_is_none(home: Path) -> None:
    (home / "var").mkdir()
    (home / "var" / "nb.db").write_text("what is this?\n")
    with refused_after_start(home) as line:
        assert line.startswith(f"ovncp up: cannot db-version {home}/var/nb.db: ")


def test_a_data_directory_in_use(home: Path) -> None:
    with Up(home) as up, Up(home, wait=False) as second:
        line = second.refusal()
        assert f"{up.data} is in use by " in line and f"(process {up.process.pid})" in line
        assert "name another directory with --data-dir" in line


def test_a_database_that_another_server_has_open(home: Path) -> None:
    with (
        Server(KIND, [("nb", NB_SCHEMA)]) as server,
        Up(home, data=server.directory, wait=False) as up,
    ):
        line = up.refusal()
        assert "nb.db is open in " in line and f"(process {server.pid}): stop that first" in line


def test_a_data_directory_that_cannot_be_written(home: Path) -> None:
    with Up(home, data=Path("/proc/nowhere"), wait=False) as up:
        line = up.refusal()
        assert "cannot write to /proc/nowhere (" in line and "--data-dir" in line


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--nb-port=http"], "--nb-port: 'http' is no port"),
        (["--nb-port=65536"], "--nb-port: '65536' is no port"),
        (["--nb-port=7777", "--sb-port=7777"], "both 7777"),
        (["--northd=perhaps"], "--northd: 'perhaps' is neither yes nor no"),
        (["now"], "'now' is no option"),
        (["--bogus"], "unrecognized option '--bogus'"),
    ],
)
def test_a_mistake_in_the_options(home: Path, options: list[str], what: str) -> None:
    with refused(home, *options) as refusal:
        assert what in refusal()


def test_a_mistake_in_a_variable_s_name(home: Path) -> None:
    with refused(home, env={"OVNCP_DATADIR": "/nowhere"}) as refusal:
        line = refusal()
        assert "OVNCP_DATADIR means nothing" in line and "OVNCP_DATA_DIR" in line


def test_metrics(home: Path) -> None:
    port = free_port()
    with Up(home, f"--sb-metrics=127.0.0.1:{port}", "--no-northd"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        assert 'ovncp_monitors{database="OVN_Southbound"}' in text
        assert "OVN_Northbound" not in text


def test_metrics_where_they_cannot_be(home: Path) -> None:
    with refused_after_start(home, "--nb-metrics=9476") as line:
        assert line.startswith("ovncp up: nb ended")
        assert line.endswith("--metrics=9476: HOST:PORT is expected")


def test_variables_do_what_options_do(home: Path) -> None:
    with Up(home, env={"OVNCP_NORTHD": "no"}) as up:
        assert "northd  not wanted" in up.output
