"""A member's file of a clustered database of the C server (ovsdb(5), "Clustered Format").

The file is the member's copy of the cluster's Raft log: a snapshot, and the entries after it. An
entry of an index that is there already takes the place of that one and of all after it, since a
later leader knew better. What follows the last record that is whole is the remains of a write that
a crash interrupted: it ends the log, as it does for the C server, and `damage` says so.

**What is committed.** Raft commits an entry when a majority of the members has it, and a member
hears of that later: the file *proves* only that the entries up to `commit_index` are committed.
They are those up to the last "commit_index" record; all of them, if the cluster has no other
member. The entries after these may be committed, and their clients may have been told so: a
follower hears of it later than the leader, and neither waits for that record to reach its disk. Or
they may be of a leader that fell, and have been replaced on the other members. One file cannot
tell. So whoever recovers data from a lone file takes all of it, as `ovsdb-tool
cluster-to-standalone` does: nothing of it that was acknowledged is lost, and at most transactions
come in whose clients were told nothing.

Nor does a file say how far it is behind, as that of a member that was cut off may be. Of several
members' files the one to take is that with the highest `last_term`, and among those with the
highest `last_index`: the others would elect its server, and if they are files of a majority, it has
all that was committed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from ovncp.log import clustered
from ovncp.ops import database_file, raft_record
from ovncp.ops.raft_record import CommitIndex, Entry, Header, Note, Record, Servers, Vote
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.errors import OvsdbError, json_text

DEFAULT_ELECTION_TIMER_MSEC = 1000

_LEFT = "left"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of the Raft log, its data as JSON texts.

    Of an entry with `schema`, `transaction` is on top of an empty database with that schema: its
    whole content. Entries with neither are about the cluster, or of a leader that begins.
    """

    term: int
    index: int
    eid: str | None
    schema: bytes | None
    transaction: bytes | None
    servers: Servers | None
    election_timer_msec: int


class Standalone(NamedTuple):
    """What a standalone file of the same content has: a schema, and transactions, JSON texts."""

    schema: bytes
    transactions: list[bytes]


@dataclass(slots=True)
class ClusterFile:
    """One member's file, as `read` has found it.

    `header` is without the snapshot. `term` is the latest that the member knew, and `vote` the
    server id that it voted for in it.
    `entries` are those after `snapshot`, without a gap. `damage` says why the file was read
    no further, None if all of it was.
    """

    path: str
    header: Header
    snapshot: LogEntry
    entries: list[LogEntry] = field(default_factory=list)
    term: int = 0
    vote: str | None = None
    commit_index: int = 0
    has_left: bool = False
    damage: str | None = None

    @property
    def name(self) -> str:
        """The database's name."""
        return self.header.name

    @property
    def server_id(self) -> str:
        """The member's uuid."""
        return self.header.server_id

    @property
    def cluster_id(self) -> str:
        """The cluster's uuid."""
        assert self.header.cluster_id is not None, "a member that has joined knows its cluster"
        return self.header.cluster_id

    @property
    def local_address(self) -> str:
        """Where the member listens for the others."""
        return self.header.local_address

    @property
    def log(self) -> list[LogEntry]:
        """The snapshot, and the entries after it."""
        return [self.snapshot, *self.entries]

    @property
    def last_index(self) -> int:
        """The index of the last entry, committed or not."""
        return self.snapshot.index + len(self.entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return (self.entries or [self.snapshot])[-1].term

    @property
    def servers(self) -> Servers:
        """The members that the cluster has as of the last entry, committed or not."""
        return next((e.servers for e in reversed(self.log) if e.servers is not None), {})

    @property
    def election_timer_msec(self) -> int:
        """As of the last entry."""
        timers = (e.election_timer_msec for e in reversed(self.log) if e.election_timer_msec)
        return next(timers, DEFAULT_ELECTION_TIMER_MSEC)

    @property
    def committed(self) -> list[LogEntry]:
        """The entries after the snapshot that the file proves to be committed."""
        return self.entries[: self.commit_index - self.snapshot.index]

    @property
    def unproven(self) -> list[LogEntry]:
        """The entries of which the file does not say whether they are committed."""
        return self.entries[self.commit_index - self.snapshot.index :]

    @property
    def schema(self) -> Any:
        """The database's schema as JSON, as of the last entry."""
        return orjson.loads(self.standalone().schema)

    def standalone(self, last_index: int | None = None) -> Standalone:
        """The database as of the entry `last_index`, by default the last one there is.

        Raises Refusal if the snapshot has no schema.
        """
        last = self.last_index if last_index is None else last_index
        schema: bytes | None = None
        transactions: list[bytes] = []
        for entry in self.log[: last + 1 - self.snapshot.index]:
            if entry.schema is not None:
                schema, transactions = entry.schema, []
            if entry.transaction is not None:
                transactions.append(entry.transaction)
        if schema is None:
            raise Refusal(f"{self.path}: the log begins with no schema")
        return Standalone(schema, transactions)


def records(path: str) -> Iterator[Any]:
    """The JSON values in the clustered file `path`: its header, then its records.

    Raises OvsdbError where it cannot be read, in the C server's words.
    """
    with database_file.log_errors():
        for record in clustered.read_records(path):
            yield database_file.parse_record(path, record)


def read_header(path: str) -> Header:
    """The first record of the clustered file `path`; raises OvsdbError."""
    return raft_record.header_from_json(next(records(path)))


def read(path: str) -> ClusterFile:
    """What the clustered file `path` says; takes no lock, so that a server may be writing to it.

    Raises OvsdbError if it is no clustered file, its header is damaged, or a record makes no
    sense; Refusal if the records contradict each other, or if the member has not joined its
    cluster yet, and so has no data.
    """
    stored = records(path)
    header = raft_record.header_from_json(next(stored))
    if header.snapshot is None:
        raise Refusal(f"{path}: the server has not joined its cluster yet, so it has no data")
    replay = Replay(path, header)
    for json in _whole(stored, replay.file):
        replay.take(raft_record.record_from_json(json))
    if set(replay.file.servers) == {header.server_id}:
        replay.file.commit_index = replay.file.last_index
    return replay.file


def _whole(stored: Iterator[Any], file: ClusterFile) -> Iterator[Any]:
    """The records that are left in `stored`, up to one that is torn or damaged."""
    while True:
        try:
            json = next(stored)
        except StopIteration:
            return
        except OvsdbError as error:
            file.damage = str(error)
            return
        yield json


class Replay:
    """A file on its way from records to what they amount to."""

    def __init__(self, path: str, header: Header) -> None:
        assert header.snapshot is not None
        snapshot = _log_entry(header.snapshot, path)
        # Once as text is enough of what may be large.
        identity = replace(header, snapshot=None)
        self.file = ClusterFile(path, identity, snapshot, commit_index=snapshot.index)
        self.number = 0

    def take(self, record: Record) -> None:
        """Go on with the next record. Raises Refusal if it contradicts those before it."""
        self.number += 1
        term = getattr(record, "term", 0)
        if term > self.file.term:
            self.file.term, self.file.vote = term, None
        match record:
            case Entry():
                self._take_entry(record)
            case Vote():
                self.file.vote = record.server_id
            case CommitIndex():
                self._take_commit_index(record.commit_index)
            case Note():
                self.file.has_left = self.file.has_left or record.note == _LEFT

    def _take_entry(self, entry: Entry) -> None:
        file, end = self.file, self.file.last_index + 1
        if entry.index <= file.commit_index:
            raise self.contradiction(
                f"attempts to truncate log from {end} to {entry.index} entries, "
                f"but commit index is already {file.commit_index}"
            )
        if entry.index > end:
            raise self.contradiction(f"with index {entry.index} skips past expected index {end}")
        del file.entries[entry.index - file.snapshot.index - 1 :]
        if entry.term < file.last_term:
            raise self.contradiction(
                f"with index {entry.index} term {entry.term} "
                f"precedes previous entry's term {file.last_term}"
            )
        file.entries.append(_log_entry(entry, file.path))

    def _take_commit_index(self, index: int) -> None:
        file = self.file
        if index < file.commit_index:
            raise self.contradiction(f"regresses commit index from {file.commit_index} to {index}")
        if index > file.last_index:
            raise self.contradiction(
                f"advances commit index to {index} but last log index is {file.last_index}"
            )
        file.commit_index = index

    def contradiction(self, what: str) -> Refusal:
        """That the record just taken does `what`."""
        return Refusal(f"{self.file.path}: record {self.number} {what}")


def _log_entry(entry: Entry, path: str) -> LogEntry:
    schema, transaction = _data(entry, path)
    return LogEntry(
        entry.term,
        entry.index,
        entry.eid,
        schema,
        transaction,
        entry.servers,
        entry.election_timer,
    )


def _data(entry: Entry, path: str) -> tuple[bytes | None, bytes | None]:
    """The schema and the transaction of `entry`, each as JSON text."""
    if entry.data is None:
        return None, None
    if type(entry.data) is not list or len(entry.data) != 2:
        raise Refusal(f"{path}: entry {entry.index} has data that is not of a database")
    schema, transaction = entry.data
    return _text(schema), _text(transaction)


def _text(json: Any) -> bytes | None:
    if json is None:
        return None
    try:
        return orjson.dumps(json)
    except TypeError:  # An integer beyond 64 bits, or a string that is not valid UTF-8.
        return json_text(json).encode()
