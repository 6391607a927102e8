"""`ovn-ctl` and `ovs-ctl` start, upgrade and stop our servers, taken for the C ones by name."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.programs import KIND, VSWITCH_SCHEMA, environment, processes_of, wait_for
from processor_time import least, least_of_an_interpreter
from servers import COMMANDS, listens, run

OVN_CTL = "/usr/share/ovn/scripts/ovn-ctl"
OVS_CTL = "/usr/share/openvswitch/scripts/ovs-ctl"


@pytest.fixture
def shims(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of everything, where the names `ovsdb-server` and `ovsdb-tool` are ours."""
    for name, value in environment(home).items():
        monkeypatch.setenv(name, value)
    if KIND == "ovncp":
        run(COMMANDS["ovncp"][0], "shims", home / "bin")
    # The scripts put the directories of the C programs first unless PATH has them already.
    path = [home / "bin", *os.environ["PATH"].split(":"), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    monkeypatch.setenv("PATH", ":".join(map(str, path)))
    yield home
    for pidfile in home.glob("*.pid"):
        subprocess.run([OVS_CTL, "stop"], capture_output=True, check=False)
        subprocess.run([OVN_CTL, "stop_ovsdb"], capture_output=True, check=False)
        assert not pidfile.exists(), f"{pidfile.name} is left"


def ovn_ctl(verb: str, directory: Path) -> str:
    options = (
        f"--db-nb-file={directory}/nb.db",
        f"--db-sb-file={directory}/sb.db",
        "--db-nb-create-insecure-remote=no",
        "--db-sb-create-insecure-remote=no",
    )
    return run(OVN_CTL, verb, *options)


def test_ovn_ctl_starts_and_stops_both_databases(shims: Path) -> None:
    ovn_ctl("start_ovsdb", shims)
    version = run("ovs-appctl", "-t", shims / "ovnnb_db.ctl", "version")
    assert ("ovncp" in version) == (KIND == "ovncp")
    run("ovn-nbctl", f"--db=unix:{shims}/ovnnb_db.sock", "ls-add", "web")
    pid = int((shims / "ovnnb_db.pid").read_text())
    ovn_ctl("start_ovsdb", shims)
    assert int((shims / "ovnnb_db.pid").read_text()) == pid, "a running server was started again"
    # To "exit", which the scripts ask only of what they take for a recent Open vSwitch.
    assert "Exiting ovnnb_db" in ovn_ctl("stop_ovsdb", shims)
    wait_for(lambda: not processes_of(shims), "the servers to end")
    # A busy machine, of which the server tells, is nothing that is wrong with it.
    log = (shims / "ovsdb-server-nb.log").read_text()
    assert re.findall(r"\|(?!timeval)\w+\|WARN\|.*", log) == []
    ovn_ctl("start_ovsdb", shims)
    assert "(web)" in run("ovn-nbctl", f"--db=unix:{shims}/ovnnb_db.sock", "ls-list")
    ovn_ctl("stop_ovsdb", shims)
    assert not list(shims.glob("*.pid"))


def test_ovn_ctl_starts_northd_too(shims: Path) -> None:
    ovn_ctl("start_northd", shims)
    nbctl = ("ovn-nbctl", f"--db=unix:{shims}/ovnnb_db.sock", "--timeout=60")
    run(*nbctl, "--wait=sb", "ls-add", "web")
    assert "web" in run("ovn-sbctl", f"--db=unix:{shims}/ovnsb_db.sock", "dump-flows", "web")
    ovn_ctl("stop_northd", shims)


def test_ovn_ctl_runs_a_database_in_the_foreground(shims: Path) -> None:
    """As systemd has it: the script becomes the server, which has the pidfile."""
    options = (f"--db-nb-file={shims}/nb.db", "--db-nb-create-insecure-remote=no")
    process = subprocess.Popen([OVN_CTL, "run_nb_ovsdb", *options], stdout=subprocess.DEVNULL)
    nbctl = ("ovn-nbctl", f"--db=unix:{shims}/ovnnb_db.sock", "--timeout=60")
    wait_for(lambda: listens(shims / "ovnnb_db.sock"), "the socket")
    run(*nbctl, "ls-add", "web")
    assert int((shims / "ovnnb_db.pid").read_text()) == process.pid
    process.terminate()
    process.wait(60)
    wait_for(lambda: not processes_of(shims), "the server to end")
    assert not (shims / "ovnnb_db.pid").exists()


def test_the_monitor_starts_a_killed_server_again(shims: Path) -> None:
    ovn_ctl("start_ovsdb", shims)
    nbctl = ("ovn-nbctl", f"--db=unix:{shims}/ovnnb_db.sock", "--timeout=60")
    run(*nbctl, "ls-add", "web")
    pid = int((shims / "ovnnb_db.pid").read_text())
    # The C monitor takes a death by a signal of ours for an accident only if it dumps core.
    os.kill(pid, 11)
    wait_for(lambda: pid_of_another(shims / "ovnnb_db.pid", pid), "a new process")
    # The process has written its number before it listens, and ovn-nbctl tries only once.
    wait_for(lambda: subprocess.run([*nbctl, "init"], check=False).returncode == 0, "an answer")
    assert "(web)" in run(*nbctl, "ls-list")
    ovn_ctl("stop_ovsdb", shims)


def pid_of_another(pidfile: Path, pid: int) -> bool:
    """Whether the file, which may not be there at the moment, names a process that is not `pid`."""
    with contextlib.suppress(FileNotFoundError):
        return int(pidfile.read_text() or pid) != pid
    return False


def ovs_ctl(*args: str) -> str:
    return run(OVS_CTL, "--no-ovs-vswitchd", "--system-id=test", *args)


def test_ovs_ctl_creates_upgrades_and_stops_the_database(shims: Path) -> None:
    older = json.loads(VSWITCH_SCHEMA.read_text())
    older["version"] = "1.0.0"
    del older["tables"]["CT_Timeout_Policy"]["columns"]["timeouts"]
    (shims / "older.ovsschema").write_text(json.dumps(older))
    run("ovsdb-tool", "create", shims / "conf.db", shims / "older.ovsschema")
    ovs_ctl("start", f"--db-file={shims}/conf.db")
    client = ("ovsdb-client", "--timeout=60")
    version = run("ovsdb-tool", "schema-version", VSWITCH_SCHEMA)
    server = f"unix:{shims}/db.sock"
    assert run(*client, "get-schema-version", server, "Open_vSwitch") == version
    assert list(shims.glob("conf.db.backup*"))
    vsctl = ("ovs-vsctl", f"--db={server}", "--no-wait")
    assert run(*vsctl, "get", "Open_vSwitch", ".", "external_ids:system-id") == "test\n"
    assert "ovsdb-server is running" in subprocess.run(
        [OVS_CTL, "status"], capture_output=True, text=True, check=False
    ).stdout  # fmt: skip
    ovs_ctl("stop")
    wait_for(lambda: not processes_of(shims), "the server to end")


def test_the_start_is_little_more_work_than_that_of_an_interpreter(shims: Path) -> None:
    run("ovsdb-tool", "create", shims / "conf.db", VSWITCH_SCHEMA)
    command = ("ovsdb-server", f"--remote=punix:{shims}/db.sock", "--run=true", shims / "conf.db")
    assert least(lambda: run(*command)) < 4 * least_of_an_interpreter()
