"""`ovncp db drop`: what is deleted is gone, what is in use or not meant stays."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from ops.conftest import OVNCP, Command
from ops.content import NAME, SCHEMA, fill
from servers import Server


@pytest.fixture
def made(db: Command, url: str) -> str:
    """A database with nothing in it, on each kind of engine."""
    (db.directory / "s.ovsschema").write_text(json.dumps(SCHEMA))
    db.well("create", url, "s.ovsschema")
    return url


def test_it_is_gone_and_can_be_made_anew(made: str, db: Command) -> None:
    assert db.well("drop", made, "--yes").output.endswith(": deleted\n")
    assert db("status", made).status == db("drop", made, "--yes").status == 2
    db.well("create", made, "s.ovsschema")


def test_others_stay(made: str, db: Command) -> None:
    other = f"{made}-other"
    db.well("create", other, "s.ovsschema")
    db.well("drop", made, "--yes")
    db.well("verify", other)


def test_all_of_a_file_goes(db: Command) -> None:
    with Server("ovncp", [("things", SCHEMA)]) as server:
        fill(server.client())
        server.appctl("ovsdb-server/compact")
        db.well("copy", server.files["things"], "copy.db")
    assert (db.directory / ".copy.db.~history~").exists()
    db.well("drop", "copy.db", "--yes")
    # Two processes could lock two files of one name, if the lock file went.
    assert os.listdir(db.directory) == [".copy.db.~lock~"]


def test_one_that_a_server_uses_stays(made: str, db: Command) -> None:
    with Server("ovncp", start=False) as server:
        server.files = {NAME: made}
        server.start()
        if "://" in made:
            server.appctl("cluster/status", NAME)  # Else it may not have shown itself yet.
        refused = db("drop", made, "--yes")
        assert refused.status == 2
        assert f"process {server.pid}" in refused.error or "failed to lock" in refused.error
        fill(server.client())
        server.stop()
    db.well("verify", made)
    db.well("drop", made, "--yes")


def test_nothing_is_deleted_where_nobody_agrees(made: str, db: Command) -> None:
    refused = db("drop", made)
    assert refused.status == 2 and "--yes" in refused.error
    assert asked(db, made, "something else").returncode == 2
    db.well("verify", made)
    name = made.rpartition("db=")[2] if "db=" in made else Path(made).name
    done = asked(db, made, name)
    assert done.returncode == 0 and "to be deleted for good" in done.stderr
    assert db("status", made).status == 2


def asked(db: Command, url: str, answer: str) -> subprocess.CompletedProcess[str]:
    """`drop` in a terminal, where somebody types `answer`."""
    terminal, stdin = pty.openpty()
    os.write(terminal, f"{answer}\n".encode())
    command = [OVNCP, "db", "drop", url]
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, cwd=db.directory)
    os.close(stdin)
    os.close(terminal)
    return done


def test_what_is_no_database_stays(db: Command) -> None:
    path = db.directory / "letter"
    path.write_text("Dear all")
    for wrong in (path, db.directory / "nothing", "tcp:127.0.0.1:1"):
        assert db("drop", wrong, "--yes").status == 2
    assert path.read_text() == "Dear all"
