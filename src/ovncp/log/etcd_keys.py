"""What ovncp keeps in etcd for one database, key by key, all of them under PREFIX/DATABASE/.

    now/head        the next free index
    now/entry/INDEX a batch, named by the index of its first entry: a header, then the entries
    now/lease/NAME  who holds the lease: there as long as its etcd lease lives
    now/line/NAME/N/ID  a place in the line for that lease, its name quoted, as long as its etcd
                    lease, ID, lives; N is 0 for those in front, 1 for all others
    now/turn        the writer that asked for its turn last, or which said last that it has ended
    identity        the uuid of this log
    base            the snapshot's index: entries up to it are for nobody to read
    snapshot        the manifest: a header, then the schema; the rest is staged
    notice/NAME     what a server shows to the others: there as long as its etcd lease lives
    scratch         written to and deleted, to have etcd count what it has in use
    stage/ID        whose the pieces of that name are, see `etcd_stage`
    piece/ID/N      1 MiB each, deflated, of what is too large for one request

A header is one line of JSON.  Indexes are written with leading zeros, so that keys are in their
order.  What changes with every append is under `now/`, for one watch to see it all, and to bring
the entries to those who follow.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

import orjson

from ovncp.log.base import Corrupt
from ovncp.log.etcd_client import prefix_end

PIECE_BYTES = 1 << 20
"""The largest part of a value, before it is deflated: etcd's limit for a request is 1.5 MiB."""


class Keys:
    """The keys of one database."""

    def __init__(self, prefix: str, database: str):
        self.root = f"{prefix}/{database}/".encode()
        self.now = self.root + b"now/"
        self.head = self.now + b"head"
        self.identity = self.root + b"identity"
        self.leases = self.now + b"lease/"
        self.lines = self.now + b"line/"
        self.turn = self.now + b"turn"
        self.base = self.root + b"base"
        self.snapshot = self.root + b"snapshot"
        self.entries = self.now + b"entry/"
        self.entries_end = prefix_end(self.entries)
        self.notices = self.root + b"notice/"
        self.scratch = self.root + b"scratch"
        self.stages = self.root + b"stage/"
        self.pieces = self.root + b"piece/"

    def lease(self, name: str) -> bytes:
        """The key of the lease `name`."""
        return self.leases + name.encode()

    def line(self, name: str) -> bytes:
        """What the keys of the places in the line for the lease `name` begin with."""
        return self.lines + quote(name, safe="").encode() + b"/"

    def place(self, name: str, in_front: bool, place: bytes = b"") -> bytes:
        """The key of `place` in that line, or what all of that kind begin with."""
        return self.line(name) + b"%d/%b" % (not in_front, place)

    def notice(self, name: str) -> bytes:
        """The key of the notice `name`."""
        return self.notices + name.encode()

    def entry(self, index: int) -> bytes:
        """The key of the batch that begins with entry `index`."""
        return self.entries + b"%020d" % index

    def index_of(self, key: bytes) -> int:
        """The index of the first entry of the batch `key`."""
        return int(key[len(self.entries) :])

    def stage(self, stage: str) -> bytes:
        """The key that says whose the pieces of `stage` are."""
        return self.stages + stage.encode()

    def pieces_of(self, stage: str) -> bytes:
        """What the keys of the pieces of `stage` begin with."""
        return self.pieces + stage.encode() + b"/"

    def piece(self, stage: str, number: int) -> bytes:
        """The key of piece `number`, from 0 on, of `stage`."""
        return self.pieces_of(stage) + b"%08d" % number


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """Of a batch: who appended it, how many entries, and the stage with them if not inline."""

    writer: str
    n_entries: int
    stage: str | None
    n_pieces: int
    deflated: bool


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """Of a snapshot: who saved it, and where its data and after them its history are."""

    writer: str
    index: int
    stage: str
    n_data_pieces: int
    n_history_pieces: int


def turn(writer: str, patience_s: float | None) -> bytes:
    """What `writer` puts at `now/turn` when it asks for its turn, or else (None) has ended."""
    return f"{_ENDED if patience_s is None else patience_s} {writer}".encode()


def said_of_turn(value: bytes) -> tuple[str, float | None]:
    """The writer and its patience in what `turn` gave."""
    patience, _, writer = value.decode().partition(" ")
    return writer, None if patience == _ENDED else float(patience)


_ENDED = "ended"


def with_header(header: BatchHeader | SnapshotHeader, body: bytes) -> bytes:
    """The value of a key: the header's line and `body`."""
    return orjson.dumps(asdict(header)) + b"\n" + body


def batch(value: bytes) -> tuple[BatchHeader, bytes]:
    """A batch's header and body.  Raises Corrupt."""
    return _split(BatchHeader, value)


def snapshot(value: bytes) -> tuple[SnapshotHeader, bytes]:
    """A snapshot's header and schema.  Raises Corrupt."""
    return _split(SnapshotHeader, value)


def _split(kind: Any, value: bytes) -> tuple[Any, bytes]:
    line, _, body = value.partition(b"\n")
    try:
        return kind(**orjson.loads(line)), body
    except (orjson.JSONDecodeError, TypeError) as error:
        raise Corrupt(f"not a header: {line[:100]!r}") from error
