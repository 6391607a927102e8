"""What is kept at a place, to be read and nothing else: a snapshot, and the entries after it.

A file is read without its lock, so that it may be done beside the server which has it open.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from ovncp.log import history_file, standalone
from ovncp.log.base import Corrupt, Entry, Snapshot
from ovncp.log.record import CLUSTERED
from ovncp.log.registry import open_log
from ovncp.ops import raft_file
from ovncp.ops.db.backup_file import BackupFile, is_backup
from ovncp.ops.db.place import Kind, Place

_ENTRIES_PER_BATCH = 100


class Stored(Protocol):
    """What is kept of a database; every `Log` is one. See there for the errors."""

    async def snapshot(self) -> Snapshot:
        """The latest snapshot."""

    def read(self, from_index: int) -> AsyncIterator[list[Entry]]:
        """The entries from `from_index` on, which is after the snapshot's, in batches."""


class StandaloneFile:
    """A standalone database file, with the indexes that a server gives its entries."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def snapshot(self) -> Snapshot:
        """See `Stored`; as `LogFile` has it when it opens the file."""
        records = standalone.read_records(self._path)
        schema, first = next(records).data, next(records, None)
        if first is None or not history_file.is_there(self._path, first.sha1):
            return Snapshot(0, schema, b"")
        return Snapshot(1, schema, first.data, history_file.read(self._path, first.sha1))

    async def read(self, from_index: int) -> AsyncIterator[list[Entry]]:
        """See `Stored`."""
        batch: list[Entry] = []
        for index, record in enumerate(standalone.read_records(self._path)):
            if index >= from_index:
                batch.append(Entry(index, record.data))
            if len(batch) == _ENTRIES_PER_BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


class ClusterFile:
    """The file of a member of a C cluster; all of its log is taken (see `raft_file`).

    The snapshot is the entry that brought the latest schema, and what it says of rows.
    """

    def __init__(self, path: str) -> None:
        """Reads it. Raises OvsdbError and Refusal."""
        self._file = raft_file.read(path)

    @property
    def notes(self) -> list[str]:
        """What whoever takes the database from this file should know."""
        notes = [f"the file was read up to where it is damaged: {self._file.damage}"]
        if n_unproven := len(self._file.unproven):
            notes.append(
                f"of the last {n_unproven} entries, the file does not say if they are committed"
            )
        return notes if self._file.damage else notes[1:]

    async def snapshot(self) -> Snapshot:
        """See `Stored`."""
        for entry in reversed(self._file.log):
            if entry.schema is not None:
                return Snapshot(entry.index, entry.schema, entry.transaction or b"")
        raise Corrupt(f"{self._file.path}: the log begins with no schema")

    async def read(self, from_index: int) -> AsyncIterator[list[Entry]]:
        """See `Stored`; entries that are about the cluster are left out."""
        for entry in self._file.log:
            if entry.index >= from_index and entry.transaction is not None:
                yield [Entry(entry.index, entry.transaction)]


@asynccontextmanager
async def open_to_read(place: Place) -> AsyncIterator[Stored]:
    """What is kept at `place`, which is no server. Raises LogError, and Refusal of a bad backup."""
    if place.kind is Kind.FILE:
        if is_backup(place.location):
            backup = BackupFile(place.location)
            backup.verify()
            yield backup
            return
        is_clustered = standalone.magic(place.location) == CLUSTERED
        yield (ClusterFile if is_clustered else StandaloneFile)(place.location)
        return
    log = await open_log(place.location)
    try:
        yield log
    finally:
        await log.close()
