"""`ovncp log-contract` as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OVNCP = str(Path(sys.executable).with_name("ovncp"))


def log_contract(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([OVNCP, "log-contract", *arguments], capture_output=True, text=True)


def test_it_tries_a_running_engine_and_leaves_nothing_behind(etcd):
    done = log_contract("--only", "handles exclude", etcd.url())
    assert done.stdout == "kept    handles exclude each other\n1 kept, 0 broken\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert "contract_" not in etcd.ctl("get", "--prefix", "--keys-only", "test/contract_")


def test_what_cannot_be_tried_is_refused():
    for arguments, why in (
        ((), "one URL is wanted"),
        (("etcd://127.0.0.1/x?db=T",), "needs the port of each host"),
        (("etcd://127.0.0.1:1/x?db=T&timeout_ms=100",), "failed to connect"),
        (("etcd://127.0.0.1:1/x",), "not a location of a log"),
    ):
        done = log_contract(*arguments)
        assert done.returncode == 2
        assert why in done.stderr and done.stdout == ""


def test_a_promise_that_is_not_kept_is_shown(etcd):
    broken = (
        "import sys\n"
        "from ovncp.cli.log_contract import main\n"
        "from ovncp.log.contract.case import CASES, Case\n"
        "from ovncp.log.contract.bench import Bench\n"
        "async def fail(bench):\n"
        "    assert not 'kept'\n"
        "CASES[:] = [Case('nothing', Bench, fail)]\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", broken, etcd.url()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "BROKEN  nothing\n0 kept, 1 broken\n"
    assert done.returncode == 1 and "AssertionError" in done.stderr
