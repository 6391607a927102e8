"""`ovncp simulate` on both servers: it counts what there is to count, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.programs import KIND, SB_SCHEMA, Network, wait_for
from servers import Server

KINDS = dict.fromkeys((KIND, "c"))
SMALL = ("--hypervisors=20", "--duration=2", "--update-interval=0.5", "--replug-interval=1")
TABLES = ("Port_Binding", "Datapath_Binding", "Chassis", "Chassis_Private", "Encap")


def start(target: str, *options: str) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("ovncp")), "simulate", target, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def simulate(target: str, *options: str) -> dict[str, Any]:
    """The report of a run that lost nothing."""
    process = start(target, "--json", *options)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (0, "")
    report: dict[str, Any] = json.loads(out)
    return report


def rows_left(server: Server) -> int:
    operations = ({"op": "select", "table": table, "where": []} for table in TABLES)
    with server.client() as client:
        results = client.transact("OVN_Southbound", *operations)
    return sum(len(result["rows"]) for result in results)


def is_written_to(server: Server) -> bool:
    """Whether the CMS has got at a port, the first version of which is 0."""
    with server.client() as client:
        ports = {"op": "select", "table": "Port_Binding", "where": [], "columns": ["options"]}
        (result,) = client.transact("OVN_Southbound", ports)
    versions = (value for row in result["rows"] for _, value in row["options"][1])
    return any(not version.endswith("~0~") for version in versions)


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, [("sb", SB_SCHEMA)], tcp=True) as server:
        yield server
        assert rows_left(server) == 0


def check(report: dict[str, Any], server: Server, watchers: int) -> None:
    run, storm = report["run"], report["storm"]
    assert run["writes"] > 0
    assert run["expected"] == run["writes"] * watchers
    assert (run["delivered"], run["lost"], run["failed"]) == (run["expected"], 0, 0)
    assert run["delivery"]["n"] == run["answered"]["n"] == run["writes"]
    assert 0 < run["delivery"]["p50"] <= run["delivery"]["p99"] <= run["delivery"]["max"]
    assert (run["disconnects"], run["hypervisor_writes_failed"]) == (0, 0)
    assert run["hypervisor_writes"] > 0
    assert report["connect"]["clients"] == storm["clients"] == 20
    assert storm["found"] == (0 if server.kind == "c" else 20)
    assert storm["lost"] == 0
    assert server.pid in report["server"]["pids"]
    assert report["server"]["max_bytes"] > 1e6
    moments = [second["at"] for second in report["seconds"]]
    assert moments[0] >= 1 and moments == sorted(moments)


def test_every_delivery_to_conditional_monitors_is_counted(server: Server) -> None:
    report = simulate(server.remote, *SMALL, "--storm", "--fill=700")
    check(report, server, watchers=10)
    assert report["run"]["condition_changes"] > 0


def test_every_delivery_to_whole_table_monitors_is_counted(server: Server) -> None:
    report = simulate(f"tcp:127.0.0.1:{server.port}", *SMALL, "--storm", "--whole-table")
    check(report, server, watchers=20)


def test_a_restart_of_the_server_loses_nothing(server: Server) -> None:
    process = start(server.remote, "--json", "--hypervisors=20", "--duration=3", "--fill=0")
    wait_for(lambda: is_written_to(server), "the load")
    server.kill9()
    server.start()
    out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (0, "")
    run = json.loads(out)["run"]
    assert run["disconnects"] == 20
    assert run["delivered"] == run["expected"] == run["writes"] * 10


def test_an_interrupt_ends_the_load_and_is_reported(server: Server) -> None:
    process = start(server.remote, "--hypervisors=3", "--duration=60")
    wait_for(lambda: is_written_to(server), "the load")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert "delivered   to the last: p50" in out


def test_what_was_kept_or_left_is_cleaned(server: Server) -> None:
    small = ("--hypervisors=2", "--duration=0.1")
    simulate(server.remote, *small, "--keep")
    killed = start(server.remote, *small, "--duration=60")
    kept = rows_left(server)
    wait_for(lambda: rows_left(server) > 1.5 * kept, "more rows")
    killed.kill()
    killed.communicate()
    assert start(server.remote, "--clean").wait(100) == 0
    assert rows_left(server) == 0


def test_a_picture_is_drawn(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    simulate(server.remote, "--hypervisors=2", "--duration=2", f"--plot={path}")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert os.path.getsize(path) > 5_000


def test_writes_go_through_ovn_northd(network: Network) -> None:
    remote = network.server.remote
    network.northd()
    report = simulate(remote, f"--northbound={remote}", *SMALL, "--fill=20")
    run = report["run"]
    assert run["delivered"] == run["expected"] == run["writes"] * 10
    assert run["hypervisor_writes_failed"] == 0
    assert network.nbctl("ls-list") == ""
    wait_for(lambda: rows_left(network.server) == 0, "ovn-northd to delete what it made")


def test_ovn_northd_deletes_what_bypasses_it_and_that_is_said(network: Network) -> None:
    network.northd()
    network.nbctl("--wait=sb", "sync")
    process = start(network.server.remote, "--hypervisors=2", "--duration=1")
    out, err = process.communicate(timeout=200)
    assert process.returncode != 0
    assert "ovn-northd" in out + err
