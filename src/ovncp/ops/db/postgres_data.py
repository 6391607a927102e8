"""What a PostgreSQL server left on its disk, primary or standby, served again from a copy.

The data folder is copied, and nothing is done to it but that. On the copy PostgreSQL recovers as
after a crash, from the write-ahead log that is there; a standby's does so too, and is one no more.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ovncp.ops.db.engine_process import free_port, spawn, stop, up
from ovncp.ops.refusal import Refusal

_VERSION = "PG_VERSION"
_PID = "postmaster.pid"
_SETTINGS = """\
listen_addresses = '127.0.0.1'
archive_mode = off
ssl = off
max_connections = 100
"""
# What makes it a standby, sets more than `_SETTINGS` do, or is of a process.
_NOT_OF_A_COPY = (
    "standby.signal",
    "recovery.signal",
    "postgresql.auto.conf",
    _PID,
    "postmaster.opts",
)
_USER = "postgres"
_PROGRAMS = "/usr/lib/postgresql/{}/bin"


def is_data(path: str) -> bool:
    """Whether `path` is the data folder of a PostgreSQL server."""
    return os.path.isfile(os.path.join(path, _VERSION))


@asynccontextmanager
async def served(path: str, work: str) -> AsyncIterator[str]:
    """HOST:PORT of a PostgreSQL that serves what the data folder `path` has; anyone may connect.

    The copy is deleted afterwards. What PostgreSQL says is in the folder `work`. Raises Refusal.
    """
    _check_unused(path)
    # Where we are root, PostgreSQL runs as another, who may not be able to reach `work`.
    place = tempfile.mkdtemp(prefix="recover-", dir=work if os.getuid() else None)
    copy = Path(place, "data")
    try:
        await asyncio.to_thread(shutil.copytree, path, copy)
        process, host = await _serve(copy, work)
        try:
            yield host
        finally:
            await stop(process)
    finally:
        shutil.rmtree(place)


def _check_unused(path: str) -> None:
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int(Path(path, _PID).read_text().splitlines()[0])
        os.kill(pid, 0)
        raise Refusal(f"{path}: PostgreSQL runs on it, process {pid}: stop it, or name its URL")


async def _serve(copy: Path, work: str) -> tuple[subprocess.Popen[bytes], str]:
    programs = _PROGRAMS.format((copy / _VERSION).read_text().strip())
    port = free_port()
    for name in _NOT_OF_A_COPY:
        (copy / name).unlink(missing_ok=True)
    settings, access = copy / "recover.conf", copy / "recover_hba.conf"
    settings.write_text(_SETTINGS)
    access.write_text("host all all 127.0.0.1/32 trust\n")
    user = _give(copy)
    process = spawn(
        work,
        shutil.which("postgres", path=programs) or "postgres",
        *("-D", str(copy), "-p", str(port), "-k", str(copy)),
        *("-c", f"config_file={settings}", "-c", f"hba_file={access}", "-c", "ident_file="),
        user=user,
    )
    ready = shutil.which("pg_isready", path=programs) or "pg_isready"
    command = [ready, "-q", "-h", "127.0.0.1", "-p", str(port)]
    await up(process, lambda: not subprocess.run(command, check=False).returncode, work)
    return process, f"127.0.0.1:{port}"


def _give(copy: Path) -> str | None:
    """Have the copy belong to whom PostgreSQL runs as, which must not be root."""
    copy.chmod(0o700)
    if os.getuid():
        return None
    shutil.chown(copy.parent, _USER)
    for folder, _, files in os.walk(copy):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            shutil.chown(path, _USER)
    return _USER
