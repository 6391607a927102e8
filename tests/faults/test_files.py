"""Files that are torn, corrupted, absent or not what they should be, as on the C server."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.schemas import NAMES, insert, names, names_in
from servers import COMMANDS, Server

WRITTEN = ["one", "two", "three"]


@pytest.fixture(scope="module")
def file() -> bytes:
    """A database file of the C server with three records after its schema."""
    with Server("c", [("names", NAMES)]) as server:
        for name in WRITTEN:
            server.client().transact("Names", insert(name, "x" * 50))
        server.stop()
        return server.files["names"].read_bytes()


def last_record(file: bytes) -> int:
    return file.rindex(b"OVSDB JSON ")


def served(kind: str, file: bytes) -> set[str]:
    """The names that a server finds in `file`; it must be able to write and to start again."""
    with Server(kind, [("names", file)]) as server:
        found = names(server.client())
        server.client().transact("Names", insert("new"))
        server.kill9()
        assert names_in(server.files["names"]) == found | {"new"}
        server.restart()
        assert names(server.client()) == found | {"new"}
        return found


@pytest.mark.parametrize("part", [0.02, 0.15, 0.3, 0.5, 0.7, 0.99])
def test_a_torn_last_record_is_cut_off(kind: str, file: bytes, part: float) -> None:
    start = last_record(file)
    torn = file[: start + max(1, int((len(file) - start) * part))]
    assert served(kind, torn) == set(WRITTEN[:-1])


def test_a_torn_record_is_warned_of(ours: str, file: bytes) -> None:
    with Server(ours, [("names", file[:-10])]) as server:
        assert re.search(r"\|(WARN|ERR)\|", server.log)


@pytest.mark.parametrize("tail", [b"\0" * 100, b"OVSDB JSON ", b"garbage\n", b"\n"])
def test_garbage_after_the_last_record_is_cut_off(kind: str, file: bytes, tail: bytes) -> None:
    assert served(kind, file + tail) == set(WRITTEN)


def test_a_record_that_does_not_fit_its_checksum_ends_the_file(kind: str, file: bytes) -> None:
    at = file.index(b'"two"') + 1
    assert served(kind, file[:at] + b"T" + file[at + 1 :]) == set(WRITTEN[:1])


def refusal(kind: str, content: bytes | None, *options: str) -> tuple[int, str]:
    """The exit status of a server that cannot start on a file, and its last words."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "names.db"
        if content is not None:
            path.write_bytes(content)
        done = subprocess.run(
            [*COMMANDS[kind], "--remote=punix:db.sock", "--unixctl=ctl", "-vfile:off", *options,
             str(path)],
            cwd=directory, env=os.environ | {"OVS_RUNDIR": directory, "OVS_LOGDIR": directory},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        line = done.stderr.strip().splitlines()[-1]
        return done.returncode, line.replace(directory, "DIR")


def record(text: bytes) -> bytes:
    return b"OVSDB JSON %d %s\n" % (len(text), hashlib.sha1(text).hexdigest().encode()) + text


def entry(name: str, **others: object) -> bytes:
    """A record that inserts a row."""
    uuid = f"00000000-0000-4000-8000-{len(name):012}"
    return record(json.dumps({"Name": {uuid: {"name": name}}, **others}).encode() + b"\n")


# Records with the right checksum that the database cannot read.
SENSELESS = {
    "no JSON": record(b"{nonsense}\n"),
    "no object": record(b'["Name"]\n'),
    "an unknown table": entry("x", Nothing={}),
    "an unknown column": record(
        b'{"Name":{"00000000-0000-4000-8000-000000000001":{"nome":"x"}}}\n'
    ),
    "a wrong type": record(b'{"Name":{"00000000-0000-4000-8000-000000000001":{"name":5}}}\n'),
    "no table": record(b'{"Name":5}\n'),
    "no uuid": record(b'{"Name":{"x":{}}}\n'),
    "a row that is not there": record(b'{"Name":{"00000000-0000-4000-8000-00000000000f":null}}\n'),
}


@pytest.mark.parametrize("senseless", SENSELESS.values(), ids=SENSELESS)
def test_a_record_that_makes_no_sense_ends_the_file(
    kind: str, file: bytes, senseless: bytes
) -> None:
    # The C server reads on after it, and then cuts the file in the middle of a record.
    later = b"" if kind == "c" else entry("later")
    assert served(kind, file + senseless + later) == set(WRITTEN)


def kept_aside(server: Server) -> list[bytes]:
    return [path.read_bytes() for path in server.directory.glob("names.db.unreadable-*")]


def test_what_makes_no_sense_is_kept_aside(ours: str, file: bytes) -> None:
    tail = SENSELESS["an unknown table"] + entry("later")
    with Server(ours, [("names", file + tail)]) as server:
        lines = re.findall(r"\|WARN\|(.*)", server.log)
        assert "unknown table: No table named Nothing." in lines[0]
        assert f"nothing from offset {len(file)} on is used" in lines[1]
        assert kept_aside(server) == []
        server.restart()
        assert server.files["names"].read_bytes() == file + tail
        server.client().transact("Names", insert("new"))
        assert kept_aside(server) == [tail]
        assert "what could not be read is kept in" in server.log
        assert names_in(server.files["names"]) == {*WRITTEN, "new"}


def test_a_snapshot_that_makes_no_sense_is_kept_aside(ours: str, file: bytes) -> None:
    """Served is what is before it, which is nothing."""
    start = file.index(b"OVSDB JSON ", 5)
    tail = SENSELESS["an unknown table"] + file[start:]
    with Server(ours, [("names", file[:start] + tail)]) as server:
        assert names(server.client()) == set()
        server.appctl("ovsdb-server/compact", "Names")
        assert kept_aside(server) == [tail]


def test_a_record_that_breaks_a_rule_is_passed_over(kind: str, file: bytes) -> None:
    """It reads well, but there is a row of that name; what comes later counts."""
    broken = entry("two")
    with Server(kind, [("names", file + broken + entry("later"))]) as server:
        for _ in range(2):
            assert names(server.client()) == {*WRITTEN, "later"}
            server.restart()
        server.client().transact("Names", insert("new"))
        server.restart()
        assert names(server.client()) == {*WRITTEN, "later", "new"}
        if kind == "c":
            return
        assert kept_aside(server) == []
        assert re.search(r"\|WARN\|.*left out \(constraint violation: Transaction", server.log)
        server.appctl("ovsdb-server/compact", "Names")
        assert kept_aside(server) == [broken]
        assert names_in(server.files["names"]) == {*WRITTEN, "later", "new"}


def test_what_the_next_write_cuts_off_is_kept_aside(ours: str, file: bytes) -> None:
    """A damaged record in the middle takes acknowledged ones with it."""
    at = file.index(b'"two"') + 1
    damaged = file[:at] + b"T" + file[at + 1 :]
    with Server(ours, [("names", damaged)]) as server:
        server.client().transact("Names", insert("new"))
        (kept,) = kept_aside(server)
        assert damaged.endswith(kept)
        assert kept.count(b"OVSDB JSON ") == 2


BROKEN: dict[str, bytes | None] = {
    "absent": None,
    "empty": b"",
    "text": b"This is not a database.\n",
    "zeros": b"\0" * 1000,
    "header alone": b"OVSDB JSON 10 0123456789012345678901234567890123456789\n",
    "not a schema": record(b'{"no":"schema"}\n'),
    "a schema of a wrong type": record(b'{"name":"N","tables":{"T":{"columns":{"c":1}}}}\n'),
    "an unknown reference": record(
        json.dumps(
            {"name": "N", "tables": {"T": {"columns": {"c": {"type": {"key": {
                "type": "uuid", "refTable": "Nothing"}}}}}}}
        ).encode()
    ),
}  # fmt: skip


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_no_database_is_refused_in_the_c_servers_words(
    ours: str, content: bytes | None
) -> None:
    assert refusal(ours, content) == refusal("c", content)


def test_a_schema_that_is_no_json_is_refused(ours: str) -> None:
    status, line = refusal(ours, record(b"{nonsense}\n"))
    assert status == 1
    assert "syntax error" in line and "not valid JSON" in line


def test_a_database_that_another_process_holds_is_refused(ours: str) -> None:
    with Server("c", [("names", NAMES)]) as holder:
        done = [
            subprocess.run(
                [*COMMANDS[kind], "--remote=punix:other.sock", "--unixctl=other", "-vfile:off",
                 str(holder.files["names"])],
                cwd=holder.directory, capture_output=True, text=True, check=False, timeout=60,
            )
            for kind in ("c", ours)
        ]  # fmt: skip
        last = [(each.returncode, each.stderr.strip().splitlines()[-1]) for each in done]
        assert last[0] == last[1]
        holder.client().transact("Names", insert("still served"))


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of one megabyte, in which servers keep their files."""
    directory = Path(tempfile.mkdtemp(prefix="disk-"))
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory],
        check=True,
        capture_output=True,
    )
    yield directory
    # Lazily, as what a killed process had open may be closed a moment later.
    subprocess.run(["umount", "--lazy", directory], check=True)
    directory.rmdir()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")


def check_recovery(server: Server, make_room: object) -> None:
    """Writes fail, reads go on; once there is room, writes work, and nothing is lost."""
    client, acknowledged = server.client(), set()
    for number in range(10_000):
        reply = client.request("transact", ["Names", insert(f"n{number}", "x" * 10_000)])
        if reply["error"] is not None or "error" in reply["result"][-1]:
            break
        acknowledged.add(f"n{number}")
    else:
        raise AssertionError("the disk never filled")
    words = json.dumps(reply)
    assert "I/O error" in words, words
    assert names(client) == names(server.client()) == acknowledged
    make_room()  # type: ignore[operator]
    (result,) = client.transact("Names", insert("again"))
    assert "uuid" in result
    server.kill9()
    assert names_in(server.files["names"]) == acknowledged | {"again"}
    server.restart()
    assert names(server.client()) == acknowledged | {"again"}


@needs_root
def test_a_full_disk_fails_writes_and_nothing_else(
    kind: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with Server(kind, [("names", NAMES)]) as server:
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * 500_000)
        check_recovery(server, ballast.unlink)


def test_a_file_that_may_not_grow_fails_writes_and_nothing_else(ours: str) -> None:
    """The same without root's help: a limit on the size of files, lifted later."""
    with Server(ours, [("names", NAMES)]) as server:
        limit = ["prlimit", f"--pid={server.pid}"]
        subprocess.run([*limit, "--fsize=400000:unlimited"], check=True)
        check_recovery(server, lambda: subprocess.run([*limit, "--fsize=unlimited"], check=True))


@needs_root
def test_an_unwritable_directory_is_refused(ours: str, small_disk: Path, file: bytes) -> None:
    path = small_disk / "names.db"
    path.write_bytes(file)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    said = []
    for kind in ("c", ours):
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(
                [*COMMANDS[kind], "--remote=punix:db.sock", "--unixctl=ctl", "-vfile:off", path],
                cwd=directory, capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
        said.append((done.returncode, done.stderr.strip().splitlines()[-1]))
    assert said[0] == said[1]
    assert said[1][0] == 1


def test_a_compaction_that_cannot_write_changes_nothing(ours: str) -> None:
    with Server(ours, [("names", NAMES)]) as server:
        server.client().transact("Names", insert("kept"))
        obstacle = server.directory / "names.db.tmp"
        obstacle.mkdir()
        (obstacle / "file").touch()
        with pytest.raises(subprocess.CalledProcessError):
            server.appctl("ovsdb-server/compact", "Names")
        server.client().transact("Names", insert("later"))
        server.kill9()
        assert names_in(server.files["names"]) == {"kept", "later"}
