"""The kinds of log that the contract is run on, each with what a case may do to it."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engines import ETCDS, EtcdCluster, Postgres, shared
from ovncp.log.base import OutcomeUnknown
from ovncp.log.contract.bench import SCHEMA, Bench, EngineBench, LossyBench, engine_bench
from ovncp.log.file import FileLog
from ovncp.log.memory import MemoryLog
from ovncp.log.standalone import create

KINDS = {
    "memory": LossyBench,
    "file": LossyBench,
    **dict.fromkeys([*ETCDS, "postgresql"], EngineBench),
}
"""The bench of each kind."""

# Long enough for a machine that is busy, short enough for the cases that wait for it to be over.
TIMEOUT_MS = 6000


@pytest.fixture
def etcd() -> EtcdCluster | Postgres:
    """A cluster of three, which no test may harm."""
    return shared("etcd")


@pytest.fixture
def postgres() -> EtcdCluster | Postgres:
    """A server that no test may harm."""
    return shared("postgresql")


@pytest.fixture
async def bench(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A new log of `kind`."""
    if kind == "memory":
        opening = memory_bench()
    elif kind == "file":
        opening = file_bench(tmp_path, request.getfixturevalue("monkeypatch"))
    else:
        opening = engine_bench(shared(kind).url(timeout_ms=TIMEOUT_MS))
    async with opening as bench:
        yield bench


class LossyMemoryLog(MemoryLog):
    """The reference over a line that can break after an append and before its answer."""

    lose = False

    async def append(self, index, entries, guards=()):
        await super().append(index, entries, guards)
        if self.lose:
            self.lose = False
            raise OutcomeUnknown("connection lost")


class MemoryBench(LossyBench):
    """The reference."""

    def __init__(self) -> None:
        self.log = LossyMemoryLog(SCHEMA)

    def lose_next_answer(self) -> None:
        self.log.lose = True


@asynccontextmanager
async def memory_bench() -> AsyncIterator[MemoryBench]:
    bench = MemoryBench()
    yield bench
    await bench.log.close()


class FileBench(LossyBench):
    """A file; to lose an answer, its disk fails one fdatasync and the truncation after it."""

    def __init__(self, log: FileLog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = log
        self._monkeypatch = monkeypatch

    def lose_next_answer(self) -> None:
        self._fail_once("fdatasync")
        self._fail_once("ftruncate")

    def _fail_once(self, name: str) -> None:
        real = getattr(os, name)

        def fail(*args):
            self._monkeypatch.setattr(os, name, real)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self._monkeypatch.setattr(os, name, fail)


@asynccontextmanager
async def file_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FileBench]:
    path = str(tmp_path / "t.db")
    create(path, SCHEMA)
    log = await FileLog.open(path)
    yield FileBench(log, monkeypatch)
    await log.close()
