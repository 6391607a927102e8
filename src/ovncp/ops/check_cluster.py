"""Whether the files of a cluster's members fit together (ovsdb-tool(1), "check-cluster").

Each file is checked on its own, and then all together for three of the properties that make Raft
safe (figure 3.2 of Ongaro's dissertation). What is unusual is told, what is wrong is an error; the
words are the C program's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import orjson

from ovncp.ops import raft_file, raft_record
from ovncp.ops.raft_file import ClusterFile, LogEntry, Replay
from ovncp.ops.raft_record import CommitIndex, Entry, Header, Leader, Note, Record, Vote
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.errors import json_text


def check(paths: Sequence[str]) -> Iterator[str]:
    """What is to be told of the files `paths`, in lines.

    Raises OvsdbError for a file that cannot be read, Refusal for the first thing that is wrong.
    """
    cluster = _Cluster()
    for path in paths:
        yield from cluster.add(path)
    for member in cluster.members:
        for json in member.records:
            yield from member.take(raft_record.record_from_json(json))
    if not max((member.term for member in cluster.members), default=0):
        raise Refusal("all logs are empty")
    cluster.check_leader_completeness()
    cluster.check_log_matching()


@dataclass(slots=True)
class _Leadership:
    """That the file `path` says that `server_id` led.

    `end` is the index after the leader's last entry when it was elected, 0 where its own file is
    not among those that are checked.
    """

    path: str
    server_id: str
    end: int = 0


class _Cluster:
    """What the files say together: who led in each term, and what was committed by its end."""

    def __init__(self) -> None:
        self.members: list[_Member] = []
        self.leaderships: dict[int, _Leadership] = {}
        self.commits: dict[int, tuple[int, str]] = {}

    def add(self, path: str) -> Iterator[str]:
        """Have the file `path` be one of them, unless it has nothing to say yet."""
        records = raft_file.records(path)
        header = raft_record.header_from_json(next(records))
        if header.snapshot is None:
            yield f"{path} has not joined the cluster, omitting\n"
            return
        for other in self.members:
            if other.header.server_id == header.server_id:
                raise Refusal(
                    f"Duplicate server ID {header.server_id:.4} in {path} and {other.path}."
                )
        if self.members:
            _check_same_cluster(self.members[0], path, header)
        self.members.append(_Member(self, path, header, records))

    def name_of(self, server_id: str) -> str:
        """The name of a server's file, or the beginning of its id."""
        paths = (member.path for member in self.members if member.header.server_id == server_id)
        return next(paths, server_id[:4])

    def note_leader(self, term: int, member: "_Member", server_id: str) -> None:
        """That `member` says that `server_id` leads: one does in each term (Election Safety)."""
        known = self.leaderships.setdefault(term, _Leadership(member.path, server_id))
        if known.server_id != server_id:
            raise Refusal(
                f"term {term} has two different leaders: "
                f"{known.path} says that the leader is {self.name_of(known.server_id)} and "
                f"{member.path} says that the leader is {self.name_of(server_id)}"
            )
        if member.header.server_id == server_id:
            known.end = max(known.end, member.file.last_index + 1)

    def note_commit(self, term: int, path: str, index: int) -> None:
        """That the file `path` says in `term` that the entries up to `index` are committed."""
        if index > self.commits.get(term, (0, ""))[0]:
            self.commits[term] = index, path

    def check_leader_completeness(self) -> None:
        """What was committed in a term is in the logs of all leaders of later terms."""
        committed, path = 0, ""
        for term in sorted(self.leaderships.keys() | self.commits.keys()):
            leadership = self.leaderships.get(term)
            if leadership is not None and 0 < leadership.end <= committed:
                raise Refusal(
                    f"leader {leadership.path} for term {term} has log entries only "
                    f"up to index {leadership.end - 1}, but index {committed} was "
                    f"committed in a previous term (e.g. by {path})"
                )
            here = self.commits.get(term, (0, ""))
            committed, path = here if here[0] > committed else (committed, path)

    def check_log_matching(self) -> None:
        """Logs that agree on an entry's term agree on that entry and all before it."""
        for one, other in permutations((member.file for member in self.members), 2):
            _check_same_entries(one, other)


def _check_same_cluster(first: "_Member", path: str, header: Header) -> None:
    if first.header.cluster_id != header.cluster_id:
        raise Refusal(
            f"{first.path} has cluster ID {first.header.cluster_id or '':.4} but {path} "
            f"has cluster ID {header.cluster_id or '':.4}"
        )
    if first.header.name != header.name:
        raise Refusal(
            f'{first.path} is named "{first.header.name}" but {path} is named "{header.name}"'
        )


class _Member:
    """One file: its log so far, and what the member did in the present term."""

    def __init__(
        self, cluster: _Cluster, path: str, header: Header, records: Iterator[Any]
    ) -> None:
        self.path = path
        self.header = header
        self.records = records
        self.term = 0
        self._cluster = cluster
        self._replay = Replay(path, header)
        self.file = self._replay.file
        self._vote: str | None = None
        self._leader: str | None = None
        self._leader_number = 0

    def take(self, record: Record) -> Iterator[str]:
        """Check the next record; what is to be told of it."""
        term = getattr(record, "term", 0)
        if term > self.term:
            self.term, self._vote, self._leader = term, None, None
        number = self._replay.number + 1
        match record:
            case Entry():
                yield from self._look_at_truncation(record, number)
            case Note("left"):
                yield f"{self.path}: record {number} shows that the server left the cluster\n"
        self._replay.take(record)
        match record:
            case Vote():
                self._check_vote(record)
            case Leader():
                self._check_leader(record.server_id)
            case CommitIndex():
                self._cluster.note_commit(self.term, self.path, record.commit_index)

    def _look_at_truncation(self, entry: Entry, number: int) -> Iterator[str]:
        """Followers may lose entries that were not committed; leaders only append."""
        end = self.file.last_index + 1
        if not self.file.commit_index < entry.index < end:
            return
        what = f"{self.path}: record {number} truncates log from {end} to {entry.index} entries"
        if self._leader == self.header.server_id:
            raise Refusal(f"{what} while server is leader")
        yield f"{what}\n"

    def _check_vote(self, vote: Vote) -> None:
        if vote.term < self.term:
            raise self._replay.contradiction(
                f"votes for term {vote.term} but current term is {self.term}"
            )
        if self._vote not in (None, vote.server_id):
            names = [self._cluster.name_of(each) for each in (self._vote or "", vote.server_id)]
            raise self._replay.contradiction(
                f"votes for {names[0]} in term {vote.term} "
                f"but a previous record for the same term voted for {names[1]}"
            )
        self._vote = vote.server_id

    def _check_leader(self, server_id: str) -> None:
        if self._leader is None:
            self._leader, self._leader_number = server_id, self._replay.number
        elif self._leader != server_id:
            names = [self._cluster.name_of(each) for each in (server_id, self._leader)]
            raise self._replay.contradiction(
                f"reports leader {names[0]} for term {self.term} but record "
                f"{self._leader_number} previously reported the leader as {names[1]} in that term"
            )
        self._cluster.note_leader(self.term, self, server_id)


def _check_same_entries(one: ClusterFile, other: ClusterFile) -> None:
    first = max(one.snapshot.index, other.snapshot.index) + 1
    last = min(one.last_index, other.last_index)
    must_be_equal = False
    for index in range(last, first - 1, -1):
        pair = [file.entries[index - file.snapshot.index - 1] for file in (one, other)]
        must_be_equal = must_be_equal or pair[0].term == pair[1].term
        if must_be_equal and not _are_equal(*pair):
            raise Refusal(
                f"log entries with index {index} differ:\n"
                f"{one.path} has {_shown(pair[0])}\n{other.path} has {_shown(pair[1])}"
            )


def _are_equal(one: LogEntry, other: LogEntry) -> bool:
    return (
        (one.term, one.eid, one.servers) == (other.term, other.eid, other.servers)
        and _same_json(one.schema, other.schema)
        and _same_json(one.transaction, other.transaction)
    )


def _same_json(one: bytes | None, other: bytes | None) -> bool:
    return one == other or (
        one is not None and other is not None and orjson.loads(one) == orjson.loads(other)
    )


def _shown(entry: LogEntry) -> str:
    json: dict[str, Any] = {"term": entry.term}
    if entry.eid is not None:
        texts = entry.schema, entry.transaction
        json["data"] = [None if text is None else orjson.loads(text) for text in texts]
        json["eid"] = entry.eid
    if entry.servers is not None:
        json["servers"] = entry.servers
    if entry.election_timer_msec:
        json["election_timer"] = entry.election_timer_msec
    return json_text(json)
