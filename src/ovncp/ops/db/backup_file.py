"""A backup: a zip file that needs nothing of ours to be used.

    NAME.db         the database, as a file that ovsdb-server opens (ovsdb(5)): schema, snapshot if
                    there is one, and the entries after it
    NAME.history    what the log has with its snapshot (`Log.save_snapshot`), if anything
    backup.json     what this is and was, with the SHA-256 of the others

So `unzip` is enough to have the database back. It is written beside its place and renamed.
"""

import hashlib
import os
import struct
import time
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BufferedReader
from typing import IO, cast

import orjson

from ovncp.log import durable, record, standalone
from ovncp.log.base import Entry, LogError, Snapshot
from ovncp.log.durable import io_errors
from ovncp.ops.db.moment import date_text
from ovncp.ops.refusal import Refusal

SUFFIX = ".backup.zip"
_MANIFEST = "backup.json"
_FORMAT = 1
_MAGIC = b"PK\3\4"
_PIECE_BYTES = 1 << 20
_ENTRIES_PER_BATCH = 100
# What reading a zip file raises, depending on the byte that is wrong.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself.

    It holds the state after entry `index` of the log `source`, of which `transaction_id` is the
    id, committed at `date_msec`; `snapshot_index` is the index of the snapshot that it starts with,
    `has_snapshot` whether that is more than a schema. `n_rows` are the rows of each table. Dates
    are in ms since the epoch.
    """

    database: str
    schema_version: str
    source: str
    made_msec: int
    index: int
    transaction_id: str
    date_msec: int | None
    has_snapshot: bool
    snapshot_index: int
    n_rows: dict[str, int]
    sha256: dict[str, str]
    format: int = _FORMAT

    def words(self) -> str:
        """What there is, in words."""
        return (
            f"{self.database} {self.schema_version} as of entry {self.index} "
            f"({date_text(self.date_msec)}), {sum(self.n_rows.values()):,} rows"
        )


def is_backup(path: str) -> bool:
    """Whether the file `path` looks like a backup. Raises LogError if it cannot be read."""
    with io_errors(f"{path}: open failed"), open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


class NewBackup:
    """A backup that is being written."""

    def __init__(self, archive: zipfile.ZipFile, database: str) -> None:
        self._archive = archive
        self._database = database
        self._sha256 = hashlib.sha256()
        self._hashes: dict[str, str] = {}
        member = zipfile.ZipInfo(f"{database}.db", time.localtime()[:6])
        member.compress_type = archive.compression
        self._file: IO[bytes] = archive.open(member, "w", force_zip64=True)

    def add(self, text: bytes) -> None:
        """Add a record of the database: the schema, the snapshot's data, or an entry."""
        encoded = record.encode(text)
        self._sha256.update(encoded)
        self._file.write(encoded)

    def finish(self, history: bytes, manifest: Callable[[dict[str, str]], Manifest]) -> None:
        """Complete it with what `manifest` makes of the SHA-256 hashes by file name."""
        self._file.close()
        hashes = {f"{self._database}.db": self._sha256.hexdigest()}
        if history:
            name = f"{self._database}.history"
            hashes[name] = hashlib.sha256(history).hexdigest()
            self._archive.writestr(name, history)
        text = orjson.dumps(asdict(manifest(hashes)), option=orjson.OPT_INDENT_2)
        self._archive.writestr(_MANIFEST, text + b"\n")

    def abandon(self) -> None:
        """Close what is open of it."""
        self._file.close()


@contextmanager
def writing(path: str, database: str) -> Iterator[NewBackup]:
    """Write the new file `path`, which appears whole, durable and verified, or not at all.

    Raises LogError, also if there is one.
    """
    with io_errors(f"{path}: write failed"):
        fd = durable.create_temporary(path)
    temporary = durable.temporary(path)
    try:
        with io_errors(f"{path}: write failed"):
            with os.fdopen(fd, "w+b") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                    new = NewBackup(archive, database)
                    try:
                        yield new
                    finally:
                        new.abandon()
                file.flush()
                os.fsync(file.fileno())
            BackupFile(temporary).verify()
            os.link(temporary, path)  # Unlike a rename, it fails where there is one already.
            durable.sync_directory(path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


class BackupFile:
    """A backup to be read; as `ovncp.ops.db.stored.Stored`, it is a log of what it holds."""

    def __init__(self, path: str) -> None:
        """Raises Refusal if it is none, or damaged where it says what it is."""
        self.path = path
        with self._archive() as archive:
            self.manifest = Manifest(**orjson.loads(archive.read(_MANIFEST)))
        if self.manifest.format != _FORMAT:
            raise Refusal(f"{path}: a backup of a newer ovncp (format {self.manifest.format})")

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except OSError as error:
            raise Refusal(f"{self.path}: cannot be read ({error.strerror or error})") from error
        except (*_DAMAGE, LogError) as error:
            raise Refusal(f"{self.path}: no backup, or a damaged one ({error})") from error

    def verify(self) -> None:
        """Read all of it. Raises Refusal if anything is not as it was written."""
        with self._archive() as archive:
            if {*archive.namelist()} != {*self.manifest.sha256, _MANIFEST}:
                raise ValueError(f"it has the files {', '.join(archive.namelist())}")
            for name, sha256 in self.manifest.sha256.items():
                if _sha256(archive, name) != sha256:
                    raise ValueError(f"the SHA-256 of {name} is not {sha256}")

    async def snapshot(self) -> Snapshot:
        """See `Stored`."""
        manifest = self.manifest
        with self._archive() as archive:
            records = _records(archive, manifest)
            schema = next(records)
            data = next(records) if manifest.has_snapshot else b""
            name = f"{manifest.database}.history"
            history = archive.read(name) if name in manifest.sha256 else b""
        return Snapshot(manifest.snapshot_index, schema, data, history)

    async def read(self, from_index: int) -> AsyncIterator[list[Entry]]:
        """See `Stored`."""
        batch: list[Entry] = []
        first = self.manifest.snapshot_index - self.manifest.has_snapshot
        with self._archive() as archive:
            for index, data in enumerate(_records(archive, self.manifest), first):
                if index >= from_index:
                    batch.append(Entry(index, data))
                if len(batch) == _ENTRIES_PER_BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch


def _records(archive: zipfile.ZipFile, manifest: Manifest) -> Iterator[bytes]:
    name = f"{manifest.database}.db"
    with archive.open(name) as file:
        # It has what is used of one.
        for found in standalone.scan(cast(BufferedReader, file), name):
            yield found.data


def _sha256(archive: zipfile.ZipFile, name: str) -> str:
    sha256 = hashlib.sha256()
    with archive.open(name) as file:
        while piece := file.read(_PIECE_BYTES):
            sha256.update(piece)
    return sha256.hexdigest()
