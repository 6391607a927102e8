"""`ovncp dev-cluster`: a cluster to try, of which any part may die, and which leaves data alone."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from engines import free_ports
from interop.programs import environment, processes_of, wait_for
from servers import OVNCP, run

SERVING = "Ctrl-C stops everything"
N_PORTS = 9


class Dev:
    """One `ovncp dev-cluster`, in `home`/var, with what it prints in `output`."""

    def __init__(self, home: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.data = home / "var"
        self.output_path = home / f"output-{len(list(home.glob('output-*')))}"
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                [OVNCP, "dev-cluster", f"--data-dir={self.data}", *options],
                env=os.environ | environment(home) | (env or {}),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def wait_until_it_serves(self) -> Self:
        wait_for(lambda: SERVING in self.output or self.process.poll() is not None, "a start", 100)
        assert SERVING in self.output, self.output
        return self

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def pid(self, name: str) -> int:
        return int((self.data / f"{name}.pid").read_text())

    def kill9(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGKILL)

    def wait_until_it_is_back(self, name: str) -> None:
        wait_for(lambda: re.search(rf"{name} +is back", self.output), f"{name} to be back")

    def server(self, number: int) -> str:
        return f"unix:{self.data}/server-{number}.sock"

    def nbctl(self, number: int, *args: str) -> str:
        """`ovn-nbctl` at one of the servers."""
        return run("ovn-nbctl", f"--db={self.server(number)}", "--timeout=60", *args)

    def takes_writes(self, number: int) -> bool:
        """Whether a write comes through at one of the servers."""
        command = ["ovn-nbctl", f"--db={self.server(number)}", "--timeout=5", "set", "NB_Global"]
        return not subprocess.run([*command, ".", "options:x=y"], capture_output=True).returncode

    def flows(self, number: int, switch: str) -> str:
        """The flows of `switch` as one of the servers has them."""
        return run("ovn-sbctl", f"--db={self.server(number)}", "dump-flows", switch)

    def northd_says(self, number: int, command: str) -> str:
        """The answer to a runtime command; "" from one that takes none yet."""
        ask = ["ovn-appctl", "-t", f"{self.data}/northd-{number}.ctl", command]
        return subprocess.run(ask, capture_output=True, text=True).stdout

    def northds(self) -> list[str]:
        """What each `ovn-northd` is, once one is active and the other not."""
        found: list[str] = []

        def settled() -> bool:
            found[:] = [self.northd_says(number, "status") for number in (1, 2)]
            return sorted(found) == ["Status: active\n", "Status: standby\n"]

        wait_for(settled, "one northd to be active and the other one not")
        return found

    def stop(self) -> int:
        """Asks it to end; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def refusal(self) -> str:
        """The one line that it ends with instead of starting."""
        assert self.process.wait(60) == 1, self.output
        assert self.output.startswith("ovncp dev-cluster: ") and self.output.count("\n") == 1
        return self.output


@pytest.fixture
def port() -> int:
    """The first of as many ports in a row as are wanted, all of them free."""
    return free_ports(N_PORTS)[0]


@pytest.fixture
def running(home: Path, port: int) -> Iterator[Dev]:
    with Dev(home, f"--port={port}") as dev:
        yield dev.wait_until_it_serves()


def test_what_dies_is_not_missed_and_all_is_there_the_next_time(running: Dev, home: Path) -> None:
    running.nbctl(1, "--wait=sb", "ls-add", "web", "--", "lsp-add", "web", "web1")
    assert "ls_in_l2_lkup" in running.flows(2, "web")
    running.northds()
    for name in ("server-1", "etcd-2", "northd-1"):
        running.kill9(name)
    running.nbctl(2, "--wait=sb", "ls-add", "app")
    assert "ls_in_l2_lkup" in running.flows(3, "app")
    for name in ("server-1", "etcd-2", "northd-1"):
        running.wait_until_it_is_back(name)
    running.northds()
    assert "(app)" in running.nbctl(1, "ls-list")
    assert running.stop() == 0
    assert processes_of(home) == []
    assert "Traceback" not in running.output
    with Dev(home).wait_until_it_serves() as again:
        assert "(web)" in again.nbctl(3, "ls-list")


def test_it_says_how_to_connect_and_what_to_try(running: Dev, port: int) -> None:
    exports = dict(re.findall(r"export (\w+)=(\S+)", running.output))
    env = os.environ | exports | {"OVN_SB_DB": exports["OVN_NB_DB"]}
    for command in ("ovn-nbctl --wait=sb ls-add web", "ovn-sbctl lflow-list web"):
        assert f"    {command}\n" in running.output
        assert subprocess.run(command.split(), env=env, check=True, timeout=60)
    for remote in (running.server(3), f"tcp:127.0.0.1:{port + 2}"):
        assert remote in running.output
        assert "OVN_Northbound" in run("ovsdb-client", "list-dbs", remote)
    for command in re.findall(r"^ {4}(ov[ns]-appctl .*?) {2,}", running.output, re.MULTILINE):
        subprocess.run(command, env=env, shell=True, check=True)
    for name in re.findall(r"\$D/([\w-]+)\.pid", running.output):
        assert Path(f"/proc/{running.pid(name)}").exists()


def test_nothing_outlives_it_even_when_it_is_killed(running: Dev, home: Path) -> None:
    running.process.kill()
    running.process.wait()
    wait_for(lambda: not processes_of(home), "the children to end")


# PostgreSQL runs as another user where we are root, who has to reach the directory.


def test_postgresql_dies_and_comes_back_with_all_it_had(home: Path, port: int) -> None:
    home.chmod(0o711)
    with Dev(home, "--engine=postgresql", f"--port={port}").wait_until_it_serves() as dev:
        assert f"kill -9 $(cat $D/postgres.pid) {' ' * 30} PostgreSQL\n" in dev.output
        dev.nbctl(1, "--wait=sb", "ls-add", "web")
        assert "ls_in_l2_lkup" in dev.flows(2, "web")
        dev.kill9("postgres")
        dev.wait_until_it_is_back("postgres")
        # A server refuses writes until it has found out that the engine is back.
        wait_for(lambda: dev.takes_writes(3), "writes to go on")
        dev.nbctl(3, "--wait=sb", "ls-add", "app")
        assert "ls_in_l2_lkup" in dev.flows(1, "app")
        assert dev.stop() == 0
        assert "Traceback" not in dev.output
    assert processes_of(home) == []
    with Dev(home).wait_until_it_serves() as again:
        assert "(web)" in again.nbctl(3, "ls-list")
        again.process.kill()
        again.process.wait()
        wait_for(lambda: not processes_of(home), "the children to end")


def test_a_directory_that_postgresql_cannot_reach(home: Path, port: int) -> None:
    home.chmod(0o700)
    with Dev(home, "--engine=postgresql", f"--port={port}") as dev:
        if os.getuid() == 0:
            assert dev.process.wait(60) == 1
            assert "name another directory with --data-dir" in dev.output.splitlines()[-1]
        else:
            dev.wait_until_it_serves()


# What stands in the way: one line each, before anything is started.


def test_etcd_that_is_not_installed(home: Path) -> None:
    script = (
        "import sys; from ovncp.cli import dev_cluster as d, dev_engines as e; "
        "e.find = lambda name: None; "
    )
    done = subprocess.run(
        [OVNCP.replace("ovncp", "python"), "-c", script + "sys.exit(d.main(sys.argv[1:]))"],
        cwd=home, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "apt-get install etcd-server" in done.stderr


def test_a_port_that_is_taken(home: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", port + 4)), Dev(home, f"--port={port}") as dev:
        assert f"port {port + 4} is taken by " in dev.refusal()
        assert "name another with --port" in dev.output


def test_a_directory_in_use(running: Dev, home: Path) -> None:
    with Dev(home) as second:
        assert f"{second.data} is in use by " in second.refusal()


def test_another_port_than_the_last_time(home: Path) -> None:
    (home / "var").mkdir()
    (home / "var" / "port").write_text("20000\n")
    with Dev(home, "--port=30000") as dev:
        assert "was made with --port=20000: leave --port out" in dev.refusal()


def test_another_engine_than_the_last_time(home: Path) -> None:
    (home / "var").mkdir()
    (home / "var" / "engine").write_text("postgresql\n")
    with Dev(home, "--engine=etcd") as dev:
        assert "was made with --engine=postgresql: leave --engine out" in dev.refusal()


def test_a_schema_that_is_missing(home: Path, port: int) -> None:
    with Dev(home, f"--port={port}", f"--schema-dir={home}") as dev:
        assert dev.process.wait(60) == 1
        assert "there is no ovn-nb.ovsschema in " in dev.output.splitlines()[-1]
        assert processes_of(home) == []


@pytest.mark.parametrize(
    "options", [["--port=http"], ["--port=65530"], ["--engine=etc"], ["now"], ["--bogus"]]
)
def test_a_mistake_in_the_options(home: Path, options: list[str]) -> None:
    with Dev(home, *options) as dev:
        assert options[0].rpartition("=")[2] in dev.refusal()
