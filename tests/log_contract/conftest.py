"""The backends that the contract suite runs on, each with what a test must do to it by hand."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from ovncp.log.base import Log, OutcomeUnknown
from ovncp.log.file import FileLog
from ovncp.log.logfile import create
from ovncp.log.memory import MemoryLog

SCHEMA = b'{"name":"T","version":"1.0.0","tables":{}}'


@dataclass
class Backend:
    """An open log, and how to make its next append lose its acknowledgement."""

    log: Log
    lose_next_acknowledgement: Callable[[], None]


class LossyMemoryLog(MemoryLog):
    """The reference over a line that can break after an append and before its answer."""

    lose = False

    async def append(self, index, entries):
        await super().append(index, entries)
        if self.lose:
            self.lose = False
            raise OutcomeUnknown("connection lost")


@pytest.fixture(params=["memory", "file"])
async def backend(request, tmp_path, monkeypatch) -> AsyncIterator[Backend]:
    if request.param == "memory":
        log = LossyMemoryLog(SCHEMA)
        yield Backend(log, lambda: setattr(log, "lose", True))
    else:
        path = str(tmp_path / "t.db")
        create(path, SCHEMA)
        file_log = await FileLog.open(path)
        yield Backend(file_log, lambda: _break_disk_once(monkeypatch))
        log = file_log
    await log.close()


@pytest.fixture
def log(backend: Backend) -> Log:
    return backend.log


def _break_disk_once(monkeypatch) -> None:
    """The disk fails one fdatasync and the truncation that would take the write back."""

    def fail_once(name: str) -> None:
        real = getattr(os, name)

        def fail(*args):
            monkeypatch.setattr(os, name, real)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, name, fail)

    fail_once("fdatasync")
    fail_once("ftruncate")
