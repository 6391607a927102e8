"""The database file against the C programs, torn writes, full disks and other processes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import resource
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ovncp.log import record
from ovncp.log.base import Corrupt, Entry, Locked, LogError, OutcomeUnknown, Snapshot
from ovncp.log.file import FileLog
from ovncp.log.logfile import LogFile
from ovncp.log.registry import open_log
from ovncp.log.rewrite import Rewrite, rewrite
from ovncp.log.standalone import create, magic, read_records

SCHEMA = (
    b'{"name":"T","version":"1.0.0","tables":{"A":{"columns":'
    b'{"n":{"type":"integer"},"s":{"type":"string"}}}}}'
)
SELECT = '["T",{"op":"select","table":"A","where":[],"columns":["n"]}]'


def text(number: int) -> bytes:
    uuid = f"00000000-0000-0000-0000-{number:012}"
    return b'{"_date":1700000000000,"A":{"%s":{"n":%d}}}' % (uuid.encode(), number)


def tool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/ovsdb-tool", *arguments], capture_output=True, text=True, timeout=60
    )


def numbers_in(path: Path) -> list[int]:
    """What the C ovsdb-tool finds in the database."""
    rows = json.loads(tool("query", path, SELECT).stdout)[0]["rows"]
    return sorted(row["n"] for row in rows)


def numbers_of(path: Path) -> list[int]:
    """What we find in it, and that it can be appended to."""
    with contextlib.closing(LogFile(str(path))) as log:
        found = [number_of(entry.data) for entry in log.read(1)]
        log.append(log.next_index, [text(777)])
    return found


def number_of(data: bytes) -> int:
    (row,) = json.loads(data)["A"].values()
    return int(row["n"])


def kept_aside(path: Path) -> list[Path]:
    """The files with what could not be read of `path`."""
    return sorted(path.parent.glob(f"{path.name}.unreadable-*"))


@pytest.fixture
def path(tmp_path) -> Path:
    """A database of three transactions."""
    path = tmp_path / "t.db"
    create(str(path), SCHEMA, [text(1), text(2), text(3)])
    return path


@pytest.fixture
def c_path(tmp_path) -> Path:
    """A database made by the C program."""
    schema, path = tmp_path / "t.ovsschema", tmp_path / "c.db"
    schema.write_bytes(SCHEMA)
    tool("create", path, schema)
    for row in ({"n": 1, "s": 'é\x01"/\\'}, {"n": 2}):
        insert = {"op": "insert", "table": "A", "row": row}
        tool("transact", path, json.dumps(["T", insert, {"op": "comment", "comment": "hi"}]))
    return path


class TestFormat:
    def test_the_c_programs_bytes_are_reproduced(self, c_path, tmp_path):
        records = list(read_records(str(c_path)))
        assert len(records) == 3
        create(str(tmp_path / "ours.db"), records[0].data, [entry.data for entry in records[1:]])
        assert (tmp_path / "ours.db").read_bytes() == c_path.read_bytes()

    def test_records_know_where_they_are(self, c_path):
        whole = c_path.read_bytes()
        records = list(read_records(str(c_path)))
        assert [r.offset for r in records] == [0, *(r.end for r in records[:-1])]
        assert records[-1].end == len(whole)
        for entry in records:
            assert whole[entry.offset : entry.end] == record.encode(entry.data)
            assert entry.sha1.encode() in whole[entry.offset : entry.end]

    def test_c_reads_ours_and_writes_on_and_we_read_that(self, path):
        assert numbers_in(path) == [1, 2, 3]
        insert = '["T",{"op":"insert","table":"A","row":{"n":4}}]'
        assert tool("transact", path, insert).returncode == 0
        assert numbers_of(path) == [1, 2, 3, 4]
        assert numbers_in(path) == [1, 2, 3, 4, 777]
        assert tool("compact", path).returncode == 0
        with contextlib.closing(LogFile(str(path))) as log:
            assert log.next_index == 2

    def test_a_record_without_its_new_line_is_read(self, path):
        body = text(4)
        sha1 = record.hashlib.sha1(body).hexdigest()
        with path.open("ab") as file:
            file.write(record.header(len(body), sha1) + body)
        assert numbers_of(path) == [1, 2, 3, 4]
        assert numbers_in(path) == [1, 2, 3, 4, 777]

    def test_the_kind_of_a_file(self, path, tmp_path):
        assert magic(str(path)) == record.STANDALONE
        clustered = tmp_path / "clustered.db"
        schema = tmp_path / "t.ovsschema"
        schema.write_bytes(SCHEMA)
        assert tool("create-cluster", clustered, schema, "tcp:127.0.0.1:1").returncode == 0
        assert magic(str(clustered)) == record.CLUSTERED
        assert not tool("db-is-standalone", path).returncode

    def test_a_pipe_can_be_read(self, path):
        script = (
            "from ovncp.log.standalone import read_records\n"
            "print(sum(1 for _ in read_records('/dev/stdin')))"
        )
        with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as cat:
            out = subprocess.run(
                [sys.executable, "-c", script], stdin=cat.stdout, capture_output=True, timeout=60
            )
        assert out.stdout == b"4\n"


class TestUnreadable:
    """Every refusal has the words of the C program on the same file."""

    def spoiled(self, tmp_path: Path, path: Path) -> list[Path]:
        whole = path.read_bytes()
        body = b"OVSDB JSON 3 0000000000000000000000000000000000000000\n{}\n"
        contents = {
            "empty": b"",
            "text": b"hello\n",
            "binary": bytes(range(256)) * 2,
            "other magic": body.replace(b"JSON", b"FOO"),
            "zero length": body.replace(b" 3 ", b" 0 "),
            "wrong hash": body,
            "torn schema": whole[:100],
            "torn header": whole[:20],
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        (tmp_path / "directory").mkdir()
        return [*(tmp_path / name for name in contents), tmp_path / "directory", tmp_path / "none"]

    def test_reading(self, tmp_path, path):
        for file in self.spoiled(tmp_path, path):
            with pytest.raises(LogError) as caught:
                list(read_records(str(file)))
            assert f"ovsdb-tool: {caught.value}" == tool("db-name", file).stderr.strip()

    def test_opening(self, tmp_path, path):
        for file in self.spoiled(tmp_path, path):
            with pytest.raises(LogError) as caught:
                LogFile(str(file))
            if file.name != "directory":
                server = subprocess.run(
                    ["/usr/sbin/ovsdb-server", f"--unixctl={tmp_path}/ctl", file],
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert f"ovsdb-server: {caught.value}" == server.stderr.strip()
            with contextlib.suppress(OSError):
                (file.parent / f".{file.name}.~lock~").unlink()

    def test_a_clustered_file(self, tmp_path):
        schema, file = tmp_path / "s", tmp_path / "clustered"
        schema.write_bytes(SCHEMA)
        tool("create-cluster", file, schema, "tcp:127.0.0.1:1")
        for attempt in (lambda: LogFile(str(file)), lambda: list(read_records(str(file)))):
            with pytest.raises(LogError, match="cannot apply this operation to clustered"):
                attempt()

    def test_a_failed_opening_leaves_no_lock(self, tmp_path, path):
        (tmp_path / "text").write_bytes(b"hello\n")
        for _ in range(2):
            with pytest.raises(LogError, match="unexpected file format"):
                LogFile(str(tmp_path / "text"))


class TestTornTail:
    def test_torn_at_every_byte_of_the_last_record(self, path, caplog):
        whole = path.read_bytes()
        last = list(read_records(str(path)))[-1]
        for size in range(last.offset, len(whole) + 1):
            path.write_bytes(whole[:size])
            caplog.clear()
            kept = [1, 2, 3] if size == len(whole) else [1, 2]
            assert numbers_of(path) == kept
            whole_again = last.offset in (size,) or size == len(whole)
            torn = whole[last.offset : size]
            assert [r.levelname for r in caplog.records] == ([] if whole_again else ["WARNING"] * 3)
            assert [file.read_bytes() for file in kept_aside(path)] == [torn] * (not whole_again)
            records = list(read_records(str(path)))
            assert [number_of(r.data) for r in records[1:]] == [*kept, 777]
            for file in kept_aside(path):
                file.unlink()

    @pytest.mark.parametrize("size", [-1, -10, -46, -60, -80, -100])
    def test_the_warning_is_in_the_c_programs_words(self, path, caplog, size):
        path.write_bytes(path.read_bytes()[:size])
        words = tool("query", path, SELECT).stderr.strip().removeprefix("ovsdb-tool: ")
        LogFile(str(path)).close()
        assert words == caplog.messages[0]

    @pytest.mark.parametrize("length", [8191, 8192, 20_000, 3_000_000])
    def test_a_large_torn_record(self, path, caplog, length):
        body = record.encode(b'{"A":{},"_comment":"%s"}' % (b"x" * length))
        with path.open("ab") as file:
            file.write(body[: length - 100])
        words = tool("query", path, SELECT).stderr.strip().removeprefix("ovsdb-tool: ")
        LogFile(str(path)).close()
        assert words == caplog.messages[0]

    @pytest.mark.parametrize(
        "tail",
        [b"\n", b"hello\n", b"\0" * 5000, b"OVSDB JSON 99999999999 " + b"0" * 40 + b"\n{}\n"],
    )
    def test_a_tail_of_something_else(self, path, caplog, tail):
        whole = path.read_bytes()
        path.write_bytes(whole + tail)
        words = tool("query", path, SELECT).stderr.strip().removeprefix("ovsdb-tool: ")
        assert numbers_of(path) == [1, 2, 3]
        assert words == caplog.messages[0]
        assert path.read_bytes() == whole + record.encode(text(777))

    def test_a_damaged_record(self, path, caplog):
        path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":5'))
        words = tool("query", path, SELECT).stderr.strip().removeprefix("ovsdb-tool: ")
        with pytest.raises(Corrupt, match="have SHA-1 hash"):
            list(read_records(str(path)))
        assert numbers_of(path) == [1]
        assert words == caplog.messages[0]

    def test_opening_alone_changes_nothing(self, path):
        path.write_bytes(path.read_bytes()[:-7])
        before = path.read_bytes()
        LogFile(str(path)).close()
        assert path.read_bytes() == before

    def test_entries_that_make_no_sense_are_disowned(self, path):
        whole = path.read_bytes()
        with contextlib.closing(LogFile(str(path))) as log:
            second = list(read_records(str(path)))[2]
            head = len(record.encode(second.data)) - len(second.data) - 1
            log_where = (
                f"{path}: {len(second.data) + 1} bytes starting at offset {second.offset + head}"
            )
            assert log.disown(2) == log_where
            assert log.next_index == 2
            assert log.read(1) == [Entry(1, text(1))]
            assert not kept_aside(path)
            log.append(2, [text(9)])
        assert numbers_in(path) == [1, 9]
        assert [file.read_bytes() for file in kept_aside(path)] == [whole[second.offset :]]

    @pytest.mark.parametrize("compacts", [False, True])
    def test_what_is_disowned_is_kept_before_anything_is_written(self, path, compacts, caplog):
        whole = path.read_bytes()
        for _ in range(2):  # The second time it is there already.
            path.write_bytes(whole)
            with contextlib.closing(LogFile(str(path))) as log:
                log.disown(1)
                if compacts:
                    rewrite(log, 0, [b"{}"])
                else:
                    log.append(1, [text(9)])
            (file,) = kept_aside(path)
            assert record.encode(SCHEMA) + file.read_bytes() == whole
            assert caplog.messages[-1] == f"{path}: what could not be read is kept in {file}"
            assert numbers_in(path) == ([] if compacts else [9])

    def test_what_cannot_be_kept_is_not_overwritten(self, path):
        whole = path.read_bytes()[:-10]
        path.write_bytes(whole)
        with contextlib.closing(LogFile(str(path))) as log:
            tail = whole[log.size :]
            name = f"{path}.unreadable-{record.hashlib.sha1(tail).hexdigest()[:8]}"
            obstacle = Path(f"{name}.tmp")
            obstacle.mkdir()
            for write in (lambda: log.append(3, [text(9)]), lambda: rewrite(log, 2, [b"{}"])):
                with pytest.raises(LogError, match="cannot keep what could not be read"):
                    write()
                assert path.read_bytes() == whole
            obstacle.rmdir()
            log.append(3, [text(9)])
        assert Path(name).read_bytes() == tail
        assert numbers_in(path) == [1, 2, 9]

    def test_an_entry_that_is_left_out_is_kept_when_the_file_is_compacted(self, path):
        second = list(read_records(str(path)))[2]
        with contextlib.closing(LogFile(str(path))) as log:
            assert str(second.start) in log.leave_out(2)
            log.append(4, [text(4)])
            assert not kept_aside(path)
            rewrite(log, 3, [text(1)])
            rewrite(log, 3, [text(1)])
        (file,) = kept_aside(path)
        assert file.read_bytes() == record.encode(text(2))

    def test_our_own_failures_are_not_kept(self, path, monkeypatch):
        with contextlib.closing(LogFile(str(path))) as log:
            with monkeypatch.context() as patch:
                patch.setattr(os, "fdatasync", lambda fd: os.fsync(9999))
                with pytest.raises(LogError, match="fsync failed"):
                    log.append(4, [text(4)])
            log.append(4, [text(5)])
        assert not kept_aside(path)


class TestCreate:
    def test_an_existing_file_is_kept(self, path):
        before = path.read_bytes()
        with pytest.raises(LogError) as caught:
            create(str(path), SCHEMA)
        schema = path.with_suffix(".ovsschema")
        schema.write_bytes(SCHEMA)
        assert f"ovsdb-tool: {caught.value}" == tool("create", path, schema).stderr.strip()
        assert path.read_bytes() == before

    def test_without_a_directory(self, tmp_path, caplog):
        with pytest.raises(Locked) as caught:
            create(f"{tmp_path}/none/t.db", SCHEMA)
        assert str(caught.value) == (
            f"I/O error: {tmp_path}/none/t.db: failed to lock lockfile (No such file or directory)"
        )
        assert caplog.messages == [
            f"{tmp_path}/none/.t.db.~lock~: failed to {what}: No such file or directory"
            for what in ("open lock file", "lock file")
        ]

    def test_through_a_dangling_symlink(self, tmp_path):
        (tmp_path / "link.db").symlink_to("target.db")
        create(str(tmp_path / "link.db"), SCHEMA)
        assert (tmp_path / "link.db").is_symlink()
        assert tool("db-name", tmp_path / "target.db").stdout == "T\n"
        assert stat.S_IMODE((tmp_path / "target.db").stat().st_mode) & 0o117 == 0
        assert not (tmp_path / "target.db.tmp").exists()


class TestFullDisk:
    @pytest.fixture
    def small_disk(self, tmp_path):
        """A directory on a file system of 64 KiB, if we may mount one."""
        mount = tmp_path / "small"
        mount.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], capture_output=True
        )
        if mounted.returncode:
            self.limit_file_size(65536)
        yield mount
        if mounted.returncode:
            self.limit_file_size(resource.RLIM_INFINITY)
        else:
            subprocess.run(["umount", mount], check=True)

    def limit_file_size(self, size: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    async def test_nothing_of_a_failed_append_stays(self, small_disk, caplog):
        path = small_disk / "t.db"
        create(str(path), SCHEMA)
        log = await FileLog.open(str(path))
        filler = b'{"_comment":"%s"}' % (b"x" * 30_000)
        await log.append(1, [filler])
        before = path.read_bytes()
        for _ in range(3):
            with pytest.raises(LogError) as caught:
                await log.append(2, [text(2), filler, filler])
            assert caught.value.tag == "I/O error"
            assert caught.value.details == f"{path}: write failed"
            assert caught.value.io_error in ("No space left on device", "File too large")
            assert not isinstance(caught.value, OutcomeUnknown)
            assert path.read_bytes() == before
        await log.append(2, [text(2)])
        with pytest.raises(LogError, match="write failed"):
            await log.save_snapshot(1, filler * 3)
        assert sorted(os.listdir(small_disk)) == [".t.db.~lock~", "t.db"]
        await log.save_snapshot(1, b"{}")
        await log.append(3, [text(3)])
        await log.close()
        assert numbers_in(path) == [2, 3]
        assert {r.levelname for r in caplog.records} <= {"WARNING", "DEBUG"}


class TestFailingDisk:
    """Faults at the system call, as no disk here fails on demand."""

    @pytest.fixture
    def fail(self, monkeypatch):
        def fail(name: str, times: int) -> None:
            real, left = getattr(os, name), iter(range(times))

            def call(*arguments):
                if next(left, None) is None:
                    return real(*arguments)
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            monkeypatch.setattr(os, name, call)

        return fail

    def test_a_failed_fsync_takes_the_entries_back(self, path, fail):
        before = path.read_bytes()
        with contextlib.closing(LogFile(str(path))) as log:
            fail("fdatasync", 1)
            with pytest.raises(LogError, match="fsync failed") as caught:
                log.append(4, [text(4), text(5)])
            assert not isinstance(caught.value, OutcomeUnknown)
            assert isinstance(caught.value.__cause__, OSError)
            assert path.read_bytes() == before
            log.append(4, [text(6)])
        assert numbers_in(path) == [1, 2, 3, 6]

    def test_nothing_is_appended_until_the_entries_could_be_taken_back(self, path, fail):
        with contextlib.closing(LogFile(str(path))) as log:
            fail("fdatasync", 1)
            fail("ftruncate", 2)
            with pytest.raises(OutcomeUnknown, match="fsync failed"):
                log.append(4, [text(4)])
            with pytest.raises(LogError, match="cannot truncate to length"):
                log.append(4, [text(5)])
            assert log.next_index == 4
            log.append(4, [text(6)])
        assert numbers_in(path) == [1, 2, 3, 6]

    def test_a_truncation_counts_only_when_it_is_on_disk(self, path, fail):
        with contextlib.closing(LogFile(str(path))) as log:
            fail("fdatasync", 1)
            fail("fsync", 1)
            with pytest.raises(OutcomeUnknown):
                log.append(4, [text(4)])
            log.append(4, [text(6)])
        assert numbers_in(path) == [1, 2, 3, 6]

    def test_a_failed_rename_keeps_the_old_file(self, path, fail):
        before = path.read_bytes()
        with contextlib.closing(LogFile(str(path))) as log:
            fail("rename", 1)
            with pytest.raises(LogError, match="failed to rename"):
                rewrite(log, 2, [b"{}"])
            assert path.read_bytes() == before
            assert not path.with_suffix(".db.tmp").exists()
            log.append(4, [text(4)])
        assert numbers_in(path) == [1, 2, 3, 4]

    def test_short_writes_are_completed(self, path, monkeypatch):
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data)[:7], at))
        assert numbers_of(path) == [1, 2, 3]
        assert numbers_in(path) == [1, 2, 3, 777]

    def test_without_fsync_nothing_is_synced(self, path, fail):
        fail("fdatasync", 1)
        with contextlib.closing(LogFile(str(path), fsync=False)) as log:
            log.append(4, [text(4)])


class TestRewrite:
    def test_the_file_is_one_that_c_reads(self, path):
        with contextlib.closing(LogFile(str(path))) as log:
            rewrite(log, 2, [text(1)[:-1], b',"_comment"', b':"c"}'])
            assert log.snapshot_index == 2
            assert log.read(3) == [Entry(3, text(3))]
            assert log.snapshot() == Snapshot(2, SCHEMA, text(1)[:-1] + b',"_comment":"c"}')
            log.append(4, [text(4)])
            assert log.size == path.stat().st_size
        assert numbers_in(path) == [1, 3, 4]
        snapshot = record.encode(text(1)[:-1] + b',"_comment":"c"}')
        tail = record.encode(text(3)) + record.encode(text(4))
        assert path.read_bytes() == record.encode(SCHEMA) + snapshot + tail
        assert numbers_of(path) == [1, 3, 4]

    def test_a_long_tail_is_kept(self, path):
        filler = b'{"_comment":"%s"}' % (b"x" * 100_000)
        with contextlib.closing(LogFile(str(path))) as log:
            log.append(4, [filler] * 50 + [text(54)])
            rewrite(log, 3, [b"{}"])
            read, index = [], 4
            while batch := log.read(index):
                read += batch
                index = batch[-1].index + 1
            assert read == [*(Entry(i, filler) for i in range(4, 54)), Entry(54, text(54))]
        assert numbers_in(path) == [54]

    def test_a_link_and_the_permissions_stay(self, path, tmp_path):
        path.chmod(0o604)
        (tmp_path / "elsewhere").mkdir()
        link = tmp_path / "elsewhere" / "link.db"
        link.symlink_to("../t.db")
        with contextlib.closing(LogFile(str(link))) as log:
            rewrite(log, 3, [b"{}"])
        assert link.is_symlink()
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
        assert len(list(read_records(str(path)))) == 2
        assert os.listdir(link.parent) == ["link.db"]

    def test_remains_of_a_crash_are_no_obstacle(self, path):
        path.with_suffix(".db.tmp").write_bytes(b"half a file")
        with contextlib.closing(LogFile(str(path))) as log:
            rewrite(log, 3, [b"{}"])
        assert not path.with_suffix(".db.tmp").exists()

    def test_a_conversion_changes_the_schema(self, path):
        with contextlib.closing(LogFile(str(path))) as log:
            rewrite(log, 4, [b"{}"], schema=SCHEMA.replace(b'"T"', b'"U"'))
        assert tool("db-name", path).stdout == "U\n"

    def test_it_works_after_the_directory_was_changed(self, path, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        with contextlib.closing(LogFile("t.db")) as log:
            monkeypatch.chdir("/")
            rewrite(log, 3, [text(5)])
            log.append(4, [text(6)])
        assert numbers_in(path) == [5, 6]


class TestHistory:
    """The file beside the database that has the history of its snapshot."""

    HISTORY = (b"how it ", b"came about")

    @pytest.fixture
    async def compacted(self, path, caplog) -> Path:
        """The history file of a database that was compacted, with an entry after the snapshot."""
        caplog.set_level("DEBUG")
        path.chmod(0o640)
        await self.compact(path, 2, text(1), self.HISTORY)
        return path.with_name(".t.db.~history~")

    async def compact(self, path, index, data, history=b"") -> None:
        log = await FileLog.open(str(path))
        await log.save_snapshot(index, data, history)
        await log.close()

    def snapshot(self, path) -> Snapshot:
        with contextlib.closing(LogFile(str(path))) as log:
            return log.snapshot()

    async def test_it_comes_back_with_the_snapshot(self, path, compacted):
        assert stat.S_IMODE(compacted.stat().st_mode) == 0o640
        whole = Snapshot(1, SCHEMA, text(1), b"".join(self.HISTORY))
        with contextlib.closing(LogFile(str(path))) as log:
            assert log.snapshot() == whole
            assert log.snapshot_index == 1
            assert log.read(2) == [Entry(2, text(3))]
            assert log.next_index == 3
            log.append(3, [text(4)])
        assert self.snapshot(path) == whole
        assert numbers_in(path) == [1, 3, 4]
        assert sorted(os.listdir(path.parent)) == [".t.db.~history~", ".t.db.~lock~", "t.db"]

    async def test_it_is_beside_the_file_that_a_link_leads_to(self, path, compacted):
        link = path.parent / "elsewhere" / "link.db"
        link.parent.mkdir()
        link.symlink_to("../t.db")
        assert self.snapshot(link).history == b"".join(self.HISTORY)
        await self.compact(link, 2, text(1), b"again")
        assert self.snapshot(path).history == b"again"
        assert os.listdir(link.parent) == ["link.db"]

    async def test_a_compaction_without_one_removes_it(self, path, compacted):
        await self.compact(path, 2, text(1))
        assert not compacted.exists()

    async def test_a_conversion_removes_it(self, path, compacted):
        log = await FileLog.open(str(path))
        await log.convert(3, SCHEMA, text(1))
        assert (await log.snapshot()).history == b""
        await log.close()
        assert not compacted.exists()

    async def test_one_of_another_snapshot_is_ignored(self, path, compacted):
        assert tool("compact", path).returncode == 0
        with contextlib.closing(LogFile(str(path))) as log:
            assert log.snapshot() == Snapshot(0, SCHEMA, b"")
            (entry,) = log.read(1)
            assert len(json.loads(entry.data)["A"]) == 2

    @pytest.mark.parametrize("at", [0, 5, 20, 80, 120, -1])
    async def test_a_damaged_one_is_ignored(self, path, compacted, at, caplog):
        whole = bytearray(compacted.read_bytes())
        whole[at] ^= 1
        compacted.write_bytes(whole)
        assert self.snapshot(path).history == b""
        assert numbers_in(path) == [1, 3]
        assert "INFO" in {record.levelname for record in caplog.records} <= {"DEBUG", "INFO"}

    async def test_a_torn_one_is_ignored(self, path, compacted, caplog):
        whole = compacted.read_bytes()
        for size in range(len(whole)):
            compacted.write_bytes(whole[:size])
            assert self.snapshot(path).history == b""
        compacted.write_bytes(whole + b"x")
        assert self.snapshot(path).history == b""
        assert "INFO" in {record.levelname for record in caplog.records} <= {"DEBUG", "INFO"}

    async def test_one_that_cannot_be_written_or_read_is_no_failure(self, path, compacted, caplog):
        compacted.unlink()
        for obstacle in (Path(f"{compacted}.tmp"), compacted):
            obstacle.mkdir()
            (obstacle / "x").touch()
            await self.compact(path, 1, text(1), self.HISTORY)
            assert self.snapshot(path).history == b""
            (obstacle / "x").unlink()
            obstacle.rmdir()
        assert {record.levelname for record in caplog.records} <= {"INFO", "DEBUG"}
        assert numbers_in(path) == [1, 3]

    async def test_one_that_is_too_large_for_the_disk_is_done_without(self, path):
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            await self.compact(path, 3, text(1), b"x" * 200_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        assert numbers_in(path) == [1]
        assert sorted(os.listdir(path.parent)) == [".t.db.~lock~", "t.db"]


class TestLock:
    @contextlib.contextmanager
    def server(self, path: Path):
        """The C server on `path`."""
        directory = path.parent
        process = subprocess.Popen(
            [
                "/usr/sbin/ovsdb-server",
                f"--unixctl={directory}/ctl",
                f"--remote=punix:{directory}/sock",
                path,
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            while process.poll() is None and not (directory / "sock").exists():
                time.sleep(0.01)
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def test_the_c_server_keeps_us_out(self, path, caplog):
        link = path.with_name("link.db")
        link.symlink_to("t.db")
        with self.server(path) as process:
            for name in (path, link):
                caplog.clear()
                with pytest.raises(Locked) as caught:
                    LogFile(str(name))
                assert str(caught.value) == (
                    f"I/O error: {name}: failed to lock lockfile (Resource temporarily unavailable)"
                )
                lock = path.with_name(".t.db.~lock~")
                assert caplog.messages == [
                    f"{lock}: cannot lock file because it is already locked by pid {process.pid}"
                ]
            assert len(list(read_records(str(path)))) == 4
        LogFile(str(path)).close()

    def test_we_keep_the_c_programs_out(self, path):
        with contextlib.closing(LogFile(str(path))):
            refused = tool("transact", path, '["T"]')
            assert refused.returncode == 1
            assert f"already locked by pid {os.getpid()}" in refused.stderr
            server = subprocess.run(
                ["/usr/sbin/ovsdb-server", f"--unixctl={path.parent}/ctl", path],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert server.returncode == 1
            assert "failed to lock lockfile" in server.stderr
            assert numbers_in(path) == [1, 2, 3]
        assert tool("transact", path, '["T"]').returncode == 0

    def test_one_process_locks_once(self, path, caplog):
        with contextlib.closing(LogFile(str(path))):
            for _ in range(2):
                with pytest.raises(Locked, match=r"failed to lock lockfile") as caught:
                    LogFile(str(path))
                assert caught.value.io_error == os.strerror(errno.EDEADLK)
            assert "this process has already locked it" in caplog.text
            assert tool("transact", path, '["T"]').returncode == 1
        LogFile(str(path)).close()

    def test_the_lock_outlives_a_rewrite(self, path):
        with contextlib.closing(LogFile(str(path))) as log:
            rewrite(log, 3, [b"{}"])
            assert tool("transact", path, '["T"]').returncode == 1


class TestRegistry:
    async def test_a_path_and_a_file_url(self, path):
        for location in (str(path), f"file://{path}"):
            log = await open_log(location)
            assert log.next_index == 4
            await log.close()

    async def test_an_unknown_engine(self):
        with pytest.raises(LogError, match=r"no log engine 'tape'; there are: .*file"):
            await open_log("tape://drive")


async def test_the_loop_is_not_held_up_by_a_snapshot(path):
    """Clients are served on while a large file is compacted."""
    log = await FileLog.open(str(path))
    # On a busy machine it may stand still for other reasons, but not each time.
    shares = [await share_of_the_longest_turn(log) for _ in range(3)]
    await log.close()
    assert min(shares) < 0.5
    assert path.stat().st_size > 64 << 20


async def share_of_the_longest_turn(log: FileLog) -> float:
    """Of all the time that saving a large snapshot takes, that of the loop's longest turn."""
    piece = b"x" * (1 << 20)

    async def state():
        yield b'{"_comment":"'
        for _ in range(64):
            yield piece
        yield b'"}'

    longest, loop = 0.0, asyncio.get_running_loop()
    began = loop.time()
    saving = asyncio.create_task(log.save_snapshot(3, state()))
    while not saving.done():
        start = loop.time()
        await asyncio.sleep(0)
        longest = max(longest, loop.time() - start)
    await saving
    return longest / (loop.time() - began)


def test_a_crash_during_a_rewrite_leaves_a_whole_file(path, tmp_path):
    """The process ends at each system call of a rewrite in turn; the file is old or new.

    So is its history, or there is none.
    """
    script = tmp_path / "crash.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys
        from ovncp.log.logfile import LogFile
        from ovncp.log.rewrite import Rewrite
        log, left = LogFile(sys.argv[1]), int(sys.argv[2])
        for name in "open pwrite sendfile lseek fsync rename close unlink ftruncate".split():
            def call(*arguments, real=getattr(os, name), **keywords):
                global left
                left -= 1
                if left < 0:
                    os._exit(3)
                return real(*arguments, **keywords)
            setattr(os, name, call)
        new = Rewrite(log, 2)
        new.begin()
        new.write(sys.argv[3].encode())
        new.history.write(b"new")
        new.finish()
        log.adopt(new)
        os._exit(0)
        """)
    )
    with contextlib.closing(LogFile(str(path))) as log:
        new = Rewrite(log, 2)
        new.begin()
        new.write(text(2))
        new.history.write(b"old")
        new.finish()
        log.adopt(new)
        log.append(4, [text(4)])
    history = path.with_name(".t.db.~history~")
    original, original_history, snapshot = path.read_bytes(), history.read_bytes(), text(1).decode()
    found, status, steps = [], 3, 0
    while status == 3:
        path.write_bytes(original)
        history.write_bytes(original_history)
        command = [sys.executable, script, path, str(steps), snapshot]
        status = subprocess.run(command, timeout=60).returncode
        numbers = tuple(number_of(r.data) for r in list(read_records(str(path)))[1:])
        with contextlib.closing(LogFile(str(path))) as log:
            found.append((numbers, log.snapshot().history))
        steps += 1
    assert status == 0
    assert steps > 10
    old, new = ((2, 3, 4), b"old"), ((1, 4), b"new")
    between = found.index(new) - 1
    assert found[between] in (old, ((1, 4), b""))
    assert found == [old] * between + [found[between]] + [new] * (len(found) - between - 1)
    assert found[0] == old and found[-1] == new
