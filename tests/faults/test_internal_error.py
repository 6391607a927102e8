"""A defect of ours never leaves a server that shows what is not stored: it ends, and comes back."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from faults.schemas import NAMES, insert, names
from interop.programs import wait_for
from servers import COMMANDS, Closed, Server

# The real server, whose log takes two transactions and then has a defect.
DEFECTIVE = """
import sys
from ovncp.cli import ovsdb_server
from ovncp.server import runtime

open_log = runtime.open_log

async def open_defective(*args, **options):
    log = await open_log(*args, **options)
    append, good = log.append, iter(range(2))

    async def defective(index, entries):
        if next(good, None) is None:
            raise RuntimeError("a defect")
        return await append(index, entries)

    log.append = defective
    return log

runtime.open_log = open_defective
sys.exit(ovsdb_server.main(sys.argv[1:]))
"""


@pytest.fixture
def kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    script = tmp_path / "defective.py"
    script.write_text(DEFECTIVE)
    monkeypatch.setitem(COMMANDS, "defective", [sys.executable, str(script)])
    return "defective"


def break_down(server: Server) -> None:
    """Two transactions that are stored, and a third that is neither stored nor answered."""
    client = server.client()
    client.transact("Names", insert("a"))
    client.transact("Names", insert("b"))
    with pytest.raises(Closed):
        client.transact("Names", insert("c"))


def test_a_defect_in_storing_ends_the_server_with_nothing_wrong_said(kind: str) -> None:
    with Server(kind, [("names", NAMES)]) as server:
        break_down(server)
        assert server.process is not None
        assert server.process.wait(60) == -signal.SIGABRT
        assert "|EMER|internal error" in server.log
        assert "RuntimeError: a defect" in server.log
        with Server("ovncp", [("names", server.files["names"])]) as healthy:
            assert names(healthy.client()) == {"a", "b"}


def test_under_a_monitor_it_starts_anew_with_what_is_stored(kind: str) -> None:
    with Server(kind, [("names", NAMES)], options=["--monitor"]) as server:
        break_down(server)
        wait_for(lambda: re.search("1 crashes: .*Aborted.*, restarting", server.log), "a restart")
        wait_for(server._listens, "the new process")
        client = server.client()
        assert names(client) == {"a", "b"}
        client.transact("Names", insert("d"))
        assert names(client) == {"a", "b", "d"}
        server.stop()
