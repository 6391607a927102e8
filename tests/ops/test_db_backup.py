"""`ovncp db backup|restore`: done, on real engines, and with what goes wrong."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from engines import EtcdCluster, Postgres
from ops.conftest import OVNCP, Command
from ops.content import NAME, SCHEMA, fill, shown, stored
from ovncp.ops.db.backup_file import BackupFile
from ovncp.ops.refusal import Refusal
from servers import Server

ROWS = 8


@pytest.fixture
def source() -> Iterator[Server]:
    """A C server that holds the content."""
    with Server("c", [("things", SCHEMA)]) as server:
        fill(server.client())
        yield server


@pytest.fixture
def backup(source: Server, db: Command) -> Path:
    """A backup of the content."""
    db.well("backup", source.files["things"], "a.backup.zip")
    return db.directory / "a.backup.zip"


def test_a_backup_of_any_engine_is_restored_into_any(
    source: Server, db: Command, url: str, etcd: EtcdCluster, postgres: Postgres
) -> None:
    db.well("import", source.files["things"], url)
    made = db.well("backup", url, "b.backup.zip", "--json").json
    assert (made["database"], sum(made["n_rows"].values())) == (NAME, ROWS)
    ids = [each["transaction_id"] for each in db.well("log", url, "--json").json]
    assert ids[-1] == made["transaction_id"]
    name = Path(url).name.rpartition("=")[2]
    for other in ("c.db", etcd.url(f"{name}-copy"), postgres.url(f"{name}-copy")):
        done = db.well("restore", "b.backup.zip", other).output
        assert f"all {ROWS} rows are the same" in done
        db.well("verify", url, other)
        # The latest transactions come along, under the same ids, so that clients resume.
        assert [each["transaction_id"] for each in db.well("log", other, "--json").json] == ids


def test_a_backup_is_a_zip_file_of_what_c_opens(source: Server, db: Command, backup: Path) -> None:
    with zipfile.ZipFile(backup) as archive:
        path = Path(archive.extract(f"{NAME}.db", db.directory))
    rows = stored(shown(source.client()))
    with Server("c", [("things", path)]) as server:
        assert shown(server.client()) == rows


@pytest.mark.parametrize("kind", ["c", "ovncp"])
def test_a_running_server_is_backed_up_by_its_remote(kind: str, db: Command) -> None:
    with Server(kind, [("things", SCHEMA)]) as server:
        fill(server.client())
        db.well("backup", server.remote, "b.backup.zip")
        db.well("restore", "b.backup.zip", "c.db")
        db.well("verify", "c.db", server.remote)


@pytest.mark.parametrize("by_remote", [False, True])
def test_a_backup_under_writes_is_one_state(by_remote: bool, db: Command) -> None:
    schema = {
        "name": "Numbers",
        "version": "1.0.0",
        "tables": {"N": {"columns": {"n": {"type": "integer"}}, "isRoot": True}},
    }
    with Server("ovncp", [("numbers", schema)]) as server:
        client, stopping, written = server.client(), threading.Event(), []

        def write() -> None:
            while not stopping.is_set():
                insert = {"op": "insert", "table": "N", "row": {"n": len(written)}}
                client.transact("Numbers", insert)
                written.append(True)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while len(written) < 20:
                time.sleep(0.01)
            before = len(written)
            place = server.remote if by_remote else server.files["numbers"]
            db.well("backup", place, "b.backup.zip")
        finally:
            stopping.set()
            writer.join()
    rows = db.well("at", "b.backup.zip", "-0s", "--json").json["rows"]["N"].values()
    numbers = sorted(row["n"] for row in rows)
    assert numbers == list(range(len(numbers)))
    assert before <= len(numbers) <= len(written)


def test_damage_is_never_taken_for_data(backup: Path, db: Command) -> None:
    whole = backup.read_bytes()
    with zipfile.ZipFile(backup) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    damaged = db.directory / "damaged.zip"
    n_found = 0
    for place in range(0, len(whole), 3):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            BackupFile(str(damaged)).verify()
        except Refusal:
            n_found += 1
            continue
        # What is not data, such as the date of a member, may be anything.
        with zipfile.ZipFile(damaged) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == content
    assert n_found > len(whole) / 6


@pytest.mark.parametrize("verb", ["restore", "log", "verify"])
def test_a_damaged_backup_is_refused(verb: str, backup: Path, db: Command) -> None:
    whole = backup.read_bytes()
    for broken in (whole[:-10], whole[:100] + b"\0\0\0\0" + whole[104:], whole[:50]):
        backup.write_bytes(broken)
        done = db(verb, backup, *(["new.db"] if verb == "restore" else []))
        assert done.status == 2
        assert f"{backup}: no backup, or a damaged one" in done.error
        assert done.error.count("\n") == 1
    assert not (db.directory / "new.db").exists()


def test_what_is_there_is_replaced_only_when_asked(backup: Path, db: Command, url: str) -> None:
    schema = db.directory / "s.ovsschema"
    schema.write_text(json.dumps({**SCHEMA, "version": "9.9.9"}))
    db.well("create", url, schema)
    refused = db("restore", backup, url)
    assert refused.status == 2 and "exist" in refused.error.lower()
    assert db.well("status", url, "--json").json["schema"]["version"] == "9.9.9"
    done = db.well("restore", backup, url, "--replace", "--json").json
    assert done["verified"] and done["rows"] == ROWS
    db.well("verify", url, backup)
    old = db.well("status", done["replaced"], "--json").json
    assert old["schema"]["version"] == "9.9.9"


def test_what_is_replaced_comes_back_when_the_new_one_fails(
    backup: Path, db: Command, url: str
) -> None:
    db.well("restore", backup, url)
    before = transactions(db, url)
    failing = (
        "import sys\n"
        "from ovncp.cli.db import main\n"
        "from ovncp.log.base import LogError\n"
        "from ovncp.ops.db import restore\n"
        "put, calls = restore.put, []\n"
        "async def fail(source, state, target, caller):\n"
        "    calls.append(source)\n"
        "    if len(calls) == 2:\n"
        "        await put(source, state, target, caller)\n"
        "        raise LogError('the engine is gone')\n"
        "    return await put(source, state, target, caller)\n"
        "restore.put = fail\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    python = OVNCP.with_name("python")
    command = [python, "-c", failing, "restore", backup, url, "--replace"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=db.directory)
    assert done.returncode == 2 and "the engine is gone" in done.stderr
    assert transactions(db, url) == before


def transactions(db: Command, url: str) -> list[dict[str, object]]:
    """What the log has, but for the indexes, which are others in one that is put back."""
    entries = db.well("log", url, "--json").json
    return [{name: value for name, value in entry.items() if name != "index"} for entry in entries]


def test_what_a_server_uses_is_not_replaced(backup: Path, db: Command, url: str) -> None:
    db.well("restore", backup, url)
    with Server("ovncp", start=False) as server:
        server.files = {"things": url}
        server.start()
        if "://" in url:
            server.appctl("cluster/status", NAME)  # Else it may not have shown itself yet.
        done = db("restore", backup, url, "--replace")
        assert done.status == 2
        assert "failed to lock" in done.error or f"process {server.pid}" in done.error
        assert len(server.client().request("list_dbs", [])["result"]) == 2
        server.stop()
    db.well("verify", url, backup)
    db.well("restore", backup, url, "--replace")


def test_old_backups_go_and_the_last_good_one_stays(source: Server, db: Command) -> None:
    folder = db.directory / "kept"
    folder.mkdir()
    (folder / f"{NAME}-broken.backup.zip").write_bytes(b"PK\3\4 no backup")
    made = [
        db.well("backup", source.files["things"], folder, "--keep=2", "--json").json["path"]
        for _ in range(3)
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{NAME}-broken.backup.zip", *(Path(path).name for path in made[1:])]
    )
    # When no new one can be made, nothing goes, however old.
    shutil.copy(source.files["things"], db.directory / "torn.db")
    with (db.directory / "torn.db").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 5)
    failed = db("backup", "torn.db", folder, "--keep=1")
    assert failed.status == 2 and "torn.db: error reading" in failed.error
    assert len(list(folder.iterdir())) == 3
    db.well("backup", source.files["things"], folder, "--keep=1")
    assert len(list(folder.iterdir())) == 2


def test_a_scheduled_job_goes_on_after_a_failure(db: Command) -> None:
    folder = db.directory / "kept"
    folder.mkdir()
    with Server("ovncp", [("things", SCHEMA)]) as server:
        fill(server.client())
        command = [OVNCP, "db", "backup", server.remote, folder, "--every=1s", "--keep=2", "--json"]
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert job.stdout is not None and job.stderr is not None
        try:
            made = [json.loads(job.stdout.readline())["path"] for _ in range(3)]
            server.stop()
            assert "FAILED" in job.stderr.readline()
            server.start()
            made.append(json.loads(job.stdout.readline())["path"])
            job.send_signal(signal.SIGTERM)
            assert job.wait(60) == 1
            # It may have made some more before it was told.
            made += [json.loads(line)["path"] for line in job.stdout if "path" in line]
        finally:
            with suppress(ProcessLookupError):
                job.kill()
            job.communicate()
    assert {made[-2], made[-1]} <= {str(path) for path in folder.iterdir()}
    assert len(list(folder.iterdir())) <= 3
    assert not Path(made[0]).exists()
