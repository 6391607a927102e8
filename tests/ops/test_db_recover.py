"""`ovncp db recover`: what is left of an engine that lost its quorum, made into a new database.

It is done: three members of etcd of which two are destroyed, servers cut off, a PostgreSQL that is
gone. What was acknowledged has to be there afterwards.
"""

from __future__ import annotations

import json
import shutil
import signal
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from engines import EtcdCluster, Postgres
from interop.programs import wait_for
from ops.conftest import Command
from servers import Client, Server

NAME = "Numbers"
SCHEMA: dict[str, Any] = {
    "name": NAME,
    "version": "1.0.0",
    "tables": {"N": {"columns": {"n": {"type": "integer"}}, "isRoot": True}},
}


@pytest.fixture
def lost() -> Iterator[EtcdCluster]:
    """Three members, for the tests to harm."""
    with EtcdCluster() as cluster:
        yield cluster


def write(client: Client, numbers: range) -> None:
    """Insert rows, each of which is acknowledged when this returns."""
    for number in numbers:
        [result] = client.transact(NAME, {"op": "insert", "table": "N", "row": {"n": number}})
        assert "uuid" in result


def numbers_in(db: Command, url: object) -> list[int]:
    rows = db.well("at", url, "-0s", "--json").json["rows"]["N"].values()
    return sorted(row["n"] for row in rows)


def create(db: Command, url: str) -> None:
    (db.directory / "s.ovsschema").write_text(json.dumps(SCHEMA))
    db.well("create", url, "s.ovsschema")


def member_folder(cluster: EtcdCluster, member: int) -> Path:
    return cluster._directory / f"n{member}"


def destroy(cluster: EtcdCluster, *members: int) -> None:
    for member in members:
        cluster.kill(member)
        shutil.rmtree(member_folder(cluster, member))


def test_two_members_of_three_are_destroyed(
    lost: EtcdCluster, etcd: EtcdCluster, db: Command
) -> None:
    url, new = lost.url(NAME), etcd.url(NAME)
    create(db, url)
    with ExitStack() as stack:
        server = stack.enter_context(Server("ovncp", options=[url]))
        write(server.client(), range(10))
        db.well("backup", url, "old.backup.zip")
        write(server.client(), range(10, 30))
        destroy(lost, 0, 1)
        running = db("recover", new, member_folder(lost, 2), "--work=other", "--yes")
        assert "etcd runs on it: stop that member first" in running.error
        lost.kill(2)
        # The server is cut off by now, or soon, and still has what it acknowledged.
        sources = (member_folder(lost, 2), f"{server.remote}?db={NAME}", "old.backup.zip")
        asked = db("recover", new, *sources)
        assert asked.status == 2 and "--yes says to do it" in asked.error
        assert db("status", new).status == 2  # Nothing was done yet.
    # What was read was kept: the server has ended, and the member's disk is gone too.
    shutil.rmtree(member_folder(lost, 2))
    done = db.well("recover", new, *sources, "--yes", "--json").json
    assert done["verified"] and len(done["found"]) == 3
    assert numbers_in(db, new) == list(range(30))
    # The same once more finds that all is done.
    assert db.well("recover", new, *sources, "--yes", "--json").json["verified"]
    with Server("ovncp", options=[new]) as server:
        write(server.client(), range(30, 32))
    assert numbers_in(db, new) == list(range(32))


def test_what_was_acknowledged_last_is_in_the_members_logs(lost: EtcdCluster, db: Command) -> None:
    url = lost.url(NAME)
    create(db, url)
    with Server("ovncp", options=[url]) as server:
        write(server.client(), range(20))
        for member in range(3):
            lost.kill(member)
        server.kill9()
    folders = [member_folder(lost, member) for member in range(3)]
    done = db.well("recover", "new.db", *folders, f"--lost={url}", "--yes", "--json").json
    assert numbers_in(db, "new.db") == list(range(20))
    # Two of three have it, whichever they are; etcd on its own drops what no member knows to be
    # committed, which here is what makes the difference.
    assert sum(each["index"] == 20 for each in done["found"]) >= 2
    assert any("1 entries of Raft were not known" in each["notes"][0] for each in done["found"])


def test_a_write_that_the_crash_tore_is_no_damage(lost: EtcdCluster, db: Command) -> None:
    url = lost.url(NAME)
    create(db, url)
    with Server("ovncp", options=[url]) as server:
        write(server.client(), range(20))
        for member in range(3):
            lost.kill(member)
    for member in range(3):
        [path] = (member_folder(lost, member) / "member" / "wal").glob("*.wal")
        text = path.read_bytes()
        end = len(text.rstrip(b"\0")) + 7 & ~7  # Records are padded.
        torn = struct.pack("<Q", 400) + b"\x08\x02\x10\x05\x1a\x8f\x03" + b"\x55" * 200
        path.write_bytes(text[:end] + torn + text[end + len(torn) :])
    folders = [member_folder(lost, member) for member in range(3)]
    done = db.well("recover", "new.db", *folders, f"--lost={url}", "--yes", "--json").json
    assert numbers_in(db, "new.db") == list(range(20))
    assert all("were not known to be committed" in each["notes"][0] for each in done["found"])


def test_a_server_that_knows_more_than_the_member_is_taken(lost: EtcdCluster, db: Command) -> None:
    url = lost.url(NAME)
    create(db, url)
    with Server("ovncp", options=[url]) as server:
        write(server.client(), range(5))
        lost.kill(2)
        write(server.client(), range(5, 12))
        destroy(lost, 0, 1)
        sources = (member_folder(lost, 2), f"{server.remote}?db={NAME}")
        db.well("recover", "new.db", *sources, f"--lost={url}", "--yes")
        assert numbers_in(db, "new.db") == list(range(12))
        # The operator may know better.
        older = db("recover", "older.db", *sources, f"--lost={url}", "--use=2", "--work=w", "--yes")
        assert older.status == 0, older
        assert numbers_in(db, "older.db") == list(range(5))
        done = db("recover", "other.db", *sources, f"--lost={url}", "--work=w", "--yes")
        assert done.status == 2 and "is of the recovery of older.db" in done.error


def test_a_member_whose_log_is_damaged_has_its_database(lost: EtcdCluster, db: Command) -> None:
    url = lost.url(NAME)
    create(db, url)
    with Server("ovncp", options=[url]) as server:
        write(server.client(), range(10))
        # etcd writes its database file ten times a second, if it gets round to it.
        database = member_folder(lost, 0) / "member" / "snap" / "db"
        wait_for(lambda: b'{"n":9}' in database.read_bytes(), "the last row in etcd's file")
        for member in range(3):
            lost.kill(member)
    folder = member_folder(lost, 0)
    copied = db.directory / "etcd.snapshot"
    shutil.copy(folder / "member" / "snap" / "db", copied)
    for path in (folder / "member" / "wal").glob("*.wal"):
        path.write_bytes(b"\xff" * 4096)
    options = (f"--lost={url}", "--yes", "--json")
    done = db.well("recover", "new.db", folder, *options).json
    assert "write-ahead log is of no use" in done["found"][0]["notes"][0]
    assert set(numbers_in(db, "new.db")) <= set(range(10)) and done["rows"] >= 9
    db.well("recover", "again.db", copied, "--work=w", *options)
    assert numbers_in(db, "again.db") == numbers_in(db, "new.db")


def test_the_data_of_a_postgresql_that_is_gone(etcd: EtcdCluster, db: Command) -> None:
    with Postgres() as postgres:
        url = postgres.url(NAME)
        create(db, url)
        with Server("ovncp", options=[url]) as server:
            write(server.client(), range(20))
            data = postgres._directory / "data"
            running = db("recover", "new.db", data, f"--lost={url}", "--work=other", "--yes")
            assert "PostgreSQL runs on it" in running.error
            postgres.stop(signal.SIGQUIT)
        db.well("recover", "new.db", data, f"--lost={url}", "--yes")
    assert numbers_in(db, "new.db") == list(range(20))


def test_the_newest_good_backup_of_a_folder_counts(db: Command, etcd: EtcdCluster) -> None:
    folder = db.directory / "kept"
    folder.mkdir()
    with Server("ovncp", [("numbers", SCHEMA)]) as server:
        for number in range(3):
            write(server.client(), range(number, number + 1))
            db.well("backup", server.files["numbers"], folder)
    newest = sorted(folder.iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-100] + bytes(100))
    new = etcd.url(f"{NAME}-of-a-backup")
    db.well("recover", new, folder, f"--lost={etcd.url(NAME)}", "--yes")
    assert numbers_in(db, new) == [0, 1]


def test_nothing_to_recover_from_is_said(db: Command) -> None:
    done = db("recover", "new.db", "no-such-folder", "unix:no-such-socket", "--yes")
    assert done.status == 2 and "nothing was found to recover from" in done.error
    assert not (db.directory / "new.db").exists()
