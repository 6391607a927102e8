"""What an etcd member left on its disk, served again by an etcd of its own.

The member's folder is copied, and nothing is done to it but that. In the copy all of the member's
write-ahead log is made to count (`etcd_wal.py`), and etcd runs on it as the only member of a new
cluster (`--force-new-cluster`). What a majority had and this member had not is not there: another
member, or a server that follows the log, may know more.

Where the write-ahead log is not there, or makes no sense, there is the member's database file. It
lacks the changes of the last moments (`etcdctl snapshot restore --skip-hash-check`).
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from subprocess import Popen

from ovncp.ops.db import etcd_wal
from ovncp.ops.db.engine_process import free_port, last_line, spawn, stop, up
from ovncp.ops.refusal import Refusal

_DATABASE = os.path.join("member", "snap", "db")
_BOLT_MAGIC, _BOLT_MAGIC_OFFSET = b"\xed\xda\x0c\xed", 16


def is_member(path: str) -> bool:
    """Whether `path` is the data folder of an etcd member."""
    return os.path.isfile(os.path.join(path, _DATABASE))


def is_database(path: str) -> bool:
    """Whether `path` is an etcd database file, of a member or of `etcdctl snapshot save`."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(_BOLT_MAGIC_OFFSET)
        return file.read(len(_BOLT_MAGIC)) == _BOLT_MAGIC
    return False


@dataclass(frozen=True)
class Member:
    """An etcd that serves a copy at `host`, HOST:PORT.

    `raft` is the term and the index of the last entry in Raft's log, None if that could not be
    read; `notes` are what should be known of the data.
    """

    host: str
    raft: list[int] | None
    notes: list[str]


@asynccontextmanager
async def served(path: str, work: str) -> AsyncIterator[Member]:
    """An etcd that serves what the data folder or database file `path` has.

    The copy is in the folder `work`, and deleted afterwards. Raises Refusal.
    """
    copy = os.path.join(work, "etcd-data")
    shutil.rmtree(copy, ignore_errors=True)
    try:
        process, member = await _start(path, copy, work)
        try:
            yield member
        finally:
            await stop(process)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


async def _start(path: str, copy: str, work: str) -> tuple[Popen[bytes], Member]:
    if not is_member(path):
        return await _start_on_database(path, copy, work, [])
    database = os.path.join(path, _DATABASE)
    _check_unused(path, database)
    await asyncio.to_thread(shutil.copytree, path, copy)
    try:
        position = await asyncio.to_thread(etcd_wal.commit_all, copy)
        process, host = await _serve(copy, work, "--force-new-cluster")
    except (Refusal, OSError) as error:
        shutil.rmtree(copy)
        note = f"its write-ahead log is of no use, and what came last is missing ({error})"
        return await _start_on_database(database, copy, work, [note])
    note = f"the last {position.n_uncommitted} entries of Raft were not known to be committed"
    return process, Member(host, [position.term, position.index], [note])


async def _start_on_database(
    database: str, copy: str, work: str, notes: list[str]
) -> tuple[Popen[bytes], Member]:
    await _restore(database, copy, work)
    process, host = await _serve(copy, work)
    return process, Member(host, None, notes)


def _check_unused(path: str, database: str) -> None:
    with open(database, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refusal(f"{path}: etcd runs on it: stop that member first") from error


async def _restore(database: str, copy: str, work: str) -> None:
    tool = shutil.which("etcdutl") or "etcdctl"
    options = ("snapshot", "restore", database, "--skip-hash-check", f"--data-dir={copy}")
    process = spawn(work, tool, *options)
    if await asyncio.to_thread(process.wait):
        raise Refusal(f"{database}: {last_line(work)}")


async def _serve(copy: str, work: str, *options: str) -> tuple[Popen[bytes], str]:
    client, peer = free_port(), free_port()
    process = spawn(
        work,
        "etcd",
        f"--data-dir={copy}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        *options,
    )
    host = f"127.0.0.1:{client}"
    await up(process, lambda: _is_healthy(host), work)
    return process, host


def _is_healthy(host: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{host}/health", timeout=2):
        return True
    return False
