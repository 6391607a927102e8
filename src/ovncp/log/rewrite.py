"""A new file for a log, built beside the old one: schema, snapshot, later entries.

At any point before the log adopts it a crash leaves the old file, and a temporary one that the next
rewrite removes.  The history file that goes with the snapshot is built and put along with it; a
crash between the two leaves one that belongs to another snapshot, which is as good as none.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import IO

from ovncp.log import durable, record
from ovncp.log.durable import io_errors
from ovncp.log.history_file import NewHistory
from ovncp.log.logfile import LogFile

_logger = logging.getLogger("ovncp.ovsdb_log")

# The remaining tail is copied while appends wait once it is this short.
_SHORT_TAIL = 1 << 18


class Rewrite:
    """What is built for one log.

    Its methods run in order in one thread, which need not be the log's; `check`, `complete`,
    `history.put` and `give_up_fd` are for the log, from `LogFile.adopt`.
    """

    def __init__(self, log: LogFile, index: int, schema: bytes | None = None):
        """A snapshot of `log` as of `index`; or its conversion to `schema`, as the change `index`.

        Raises nothing; see `begin`.
        """
        self.index = index
        self.target = log.target
        self.path = durable.temporary(self.target)
        self.schema = log.schema if schema is None else schema
        self.snapshot_start = 0
        self.snapshot_sha1 = ""
        self.history = NewHistory(log.path, log.mode())
        self._log = log
        self._converts = schema is not None
        self._fd = -1
        self._spool: IO[bytes] | None = None
        self._sha1 = hashlib.sha1()
        self._length = 0
        self._tail_start = 0
        self._copied_to = 0

    def check(self) -> None:
        """Raise `Conflict` or `LogError` if this does not fit the log as it is now."""
        if self._converts:
            self._log.check_next(self.index)
        else:
            self._log.check_snapshot(self.index)

    def begin(self) -> None:
        """Open the temporary file and write the schema."""
        self.check()
        schema = record.encode(self.schema)
        with self._io_errors():
            self._fd = durable.create_temporary(self.target)
            os.fchmod(self._fd, self._log.mode())
            # The header names the length and the checksum of what follows it, so the snapshot is
            # collected here first, in a file without a name.
            directory = os.path.dirname(self.target)
            self._spool = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
            durable.write_all(self._fd, schema, 0)
        self.snapshot_start = len(schema)

    def write(self, piece: bytes) -> None:
        """Add a piece of the snapshot's JSON text."""
        assert self._spool
        with self._io_errors():
            durable.write_all(self._spool.fileno(), piece, self._length)
        self._sha1.update(piece)
        self._length += len(piece)

    def finish(self) -> None:
        """The snapshot's text is whole: write its record, and after it most of the tail."""
        with self._io_errors():
            if self._length:
                self._copy_snapshot()
            self._tail_start = os.lseek(self._fd, 0, os.SEEK_END)
            if not self._converts:
                self._copied_to = self._log.position_after(self.index)
                self._copy_most_of_the_tail()
            os.fsync(self._fd)

    def _copy_snapshot(self) -> None:
        self.write(b"\n")
        assert self._spool
        self.snapshot_sha1 = self._sha1.hexdigest()
        header = record.header(self._length, self.snapshot_sha1)
        durable.write_all(self._fd, header, self.snapshot_start)
        os.lseek(self._fd, 0, os.SEEK_END)
        durable.copy(self._spool.fileno(), self._fd, 0, self._length)
        self._spool.close()
        self.history.finish(self.snapshot_sha1)

    def _copy_most_of_the_tail(self) -> None:
        while self._log.size - self._copied_to > _SHORT_TAIL:
            self._copied_to = self._log.copy_tail(self._copied_to, self._fd)

    def complete(self) -> tuple[int, int]:
        """Bring the file up to date and to disk; return where the tail was and where it is."""
        if self._converts:
            return self._log.size, self._tail_start
        with self._io_errors():
            self._log.copy_tail(self._copied_to, self._fd)
            os.fsync(self._fd)
        return self._log.position_after(self.index), self._tail_start

    def give_up_fd(self) -> int:
        """The file's descriptor, which is the log's from now on."""
        fd, self._fd = self._fd, -1
        return fd

    def discard(self) -> None:
        """Remove what was built, unless the log has adopted it."""
        if self._spool:
            self._spool.close()
        self.history.discard()
        if self._fd >= 0:
            os.close(self.give_up_fd())
            try:
                os.unlink(self.path)
            except OSError as error:  # The next rewrite removes it, or says why it cannot.
                _logger.warning("failed to remove %s (%s)", self.path, error.strerror)

    def _io_errors(self) -> AbstractContextManager[None]:
        return io_errors(f"{self.path}: write failed")


def rewrite(log: LogFile, index: int, data: Iterable[bytes], schema: bytes | None = None) -> None:
    """Save a snapshot and compact, or convert if `schema` is given, in one go.

    See `Log.save_snapshot` and `Log.convert`; for programs without an event loop.
    """
    new = Rewrite(log, index, schema)
    try:
        new.begin()
        for piece in data:
            new.write(piece)
        new.finish()
        log.adopt(new)
    finally:
        new.discard()
