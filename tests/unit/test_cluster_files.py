"""ovsdb-tool(1) on files of clusters: ours and the C program say the same of the same files.

The files are made record by record here, so that there is one for each thing that can be wrong.
Files as real clusters leave them are in tests/interop/test_cluster_files.py.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ovncp.cli import ovsdb_tool
from ovncp.ops import raft_file
from ovncp.ops.raft_file import Standalone
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.errors import OvsdbError
from unit.test_ovsdb_tool import OURS, C, Result, record, run, writes

SIDS = [f"{n}{n}{n}{n}0000-0000-4000-8000-000000000000" for n in range(1, 5)]
CID, OTHER_CID, EID, ROW = (f"{n}aaa0000-0000-4000-8000-00000000000{n}" for n in range(5, 9))
ZERO = "00000000-0000-0000-0000-000000000000"
SERVERS = {sid: f"tcp:127.0.0.1:{n}" for n, sid in enumerate(SIDS[:3], 1)}
SCHEMA = {"name": "T", "version": "1.0.0", "tables": {"A": {"columns": {"n": {"type": "integer"}}}}}
NEW_SCHEMA = {**SCHEMA, "version": "2.0.0"}

JSON = dict[str, Any]


def header(member: int = 0, **others: Any) -> JSON:
    """The first record of a member's file; None takes a member of it out."""
    json = {
        "server_id": SIDS[member],
        "cluster_id": CID,
        "local_address": f"tcp:127.0.0.1:{member + 1}",
        "name": "T",
        "prev_servers": SERVERS,
        "prev_term": 1,
        "prev_index": 1,
        "prev_eid": EID,
        "prev_data": [SCHEMA, {}],
        **others,
    }
    return {name: value for name, value in json.items() if value is not None}


def joining(**others: Any) -> JSON:
    """The only record of the file of a server that is to join."""
    return {
        "server_id": SIDS[3],
        "local_address": "tcp:127.0.0.1:4",
        "name": "T",
        "remote_addresses": ["tcp:127.0.0.1:1", "tcp:127.0.0.1:2", "ssl:[::1]:3"],
        **others,
    }


def entry(index: int, term: int = 1, n: int | None = None, **others: Any) -> JSON:
    """An entry that sets the integer of the one row to `n`, if that is given."""
    json: JSON = {"index": index, "term": term}
    if n is not None:
        json |= {"eid": EID, "data": [None, {"A": {ROW: {"n": n}}, "_date": 1700000000000}]}
    return json | others


def term(number: int) -> JSON:
    return {"term": number}


def vote(number: int, member: int) -> JSON:
    return {"term": number, "vote": SIDS[member]}


def leader(number: int, member: int) -> JSON:
    return {"term": number, "leader": SIDS[member]}


def commit(index: int) -> JSON:
    return {"commit_index": index}


def write(path: Path, records: Iterable[Any]) -> Path:
    path.write_bytes(b"".join(record(json, "CLUSTER") for json in records))
    return path


Same = Callable[..., Result]


@pytest.fixture
def same(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Same:
    """Runs both in `tmp_path` and returns what both say; they may make new.db, which goes.

    Ours runs in this process if it only looks: that takes a tenth of the time.
    """
    monkeypatch.chdir(tmp_path)
    new = tmp_path / "new.db"

    def run_here(arguments: Sequence[str]) -> Result:
        capfd.readouterr()
        return Result(ovsdb_tool.main(arguments), *capfd.readouterr())

    def same(*arguments: str) -> Result:
        theirs = run(C, arguments, tmp_path)
        new.unlink(missing_ok=True)
        ours = run(OURS, arguments, tmp_path) if writes(arguments) else run_here(arguments)
        new.unlink(missing_ok=True)
        assert without_garbage(ours) == without_garbage(theirs)
        return ours

    return same


def without_garbage(result: Result) -> Result:
    """What is said, less what is no part of it.

    In the entries that check-cluster quotes, the C program has a timer of no meaning; and what it
    says of a bad address is logged too.
    """
    stderr = re.sub(r'(?<=has {)"election_timer":-?\d+,', "", result.stderr)
    return result._replace(stderr=re.sub(r".*\|socket_util\|.*\n", "", stderr))


START = [vote(1, 0), leader(1, 0), entry(2), commit(2)]
SETS: dict[str, tuple[int, list[list[Any]]]] = {
    # What is right, or only unusual.
    "sound": (0, [[header(m), *START, entry(3, n=1)] for m in range(3)]),
    "one has less": (0, [[header(0), *START, entry(3, n=1)], [header(1), entry(2)]]),
    "an election timer": (0, [[header(), entry(2, election_timer=2000)]]),
    "a follower that was told better": (
        0,
        [[header(1), leader(1, 0), entry(2), entry(3), term(2), leader(2, 2), entry(2, 2)]],
    ),
    "one that left": (0, [[header(), *START, {"note": "left", "comment": "of its own will"}]]),
    "one that has not joined": (0, [[joining()], [header(), *START]]),
    "compacted": (0, [[header(prev_index=7, prev_term=2), entry(8, 3)], [header(1), *START]]),
    "data in another order": (
        0,
        [
            [header(m), entry(2, n=1, data=[None, dict(sorted(data.items(), reverse=bool(m)))])]
            for m, data in enumerate([{"A": {ROW: {"n": 1}}, "_date": 1}] * 2)
        ],
    ),
    # What is wrong with one file.
    "nothing": (1, [[header()]]),
    "only one that has not joined": (1, [[joining()]]),
    "a gap": (1, [[header(), *START, entry(4)]]),
    "a committed entry is replaced": (1, [[header(), *START, entry(3), commit(3), entry(2)]]),
    "a leader replaces its own": (1, [[header(), *START, entry(3), entry(3)]]),
    "terms go down": (1, [[header(), *START, entry(3, 3), entry(4, 2)]]),
    "terms go down after the snapshot": (1, [[header(prev_term=4), entry(2, 2)]]),
    "a late vote": (1, [[header(), vote(3, 0), vote(2, 0)]]),
    "two votes": (1, [[header(), vote(3, 0), vote(3, 1)], [header(1), *START]]),
    "the commit index goes back": (1, [[header(), *START, entry(3), commit(3), commit(2)]]),
    "the commit index is ahead": (1, [[header(), *START, commit(3)]]),
    "two leaders in one file": (1, [[header(), leader(2, 1), leader(2, 3)]]),
    "a bad record": (1, [[header(), *START, {"nonsense": 1}]]),
    "a bad header": (1, [[{"server_id": SIDS[0]}]]),
    # What is wrong with files together.
    "the same twice": (1, [[header(), *START], [header(), *START]]),
    "two clusters": (1, [[header(), *START], [header(1, cluster_id=OTHER_CID), *START]]),
    "two names": (1, [[header(), *START], [header(1, name="U"), *START]]),
    "two leaders": (1, [[header(), leader(2, 1)], [header(1), leader(2, 3)]]),
    "a leader without what was committed": (
        1,
        [
            [header(), *START, entry(3), commit(3)],
            [header(1), entry(2), vote(2, 1), leader(2, 1), entry(3, 2)],
        ],
    ),
    "different entries": (
        1,
        [[header(), *START, entry(3, n=1)], [header(1), *START, entry(3, n=2)]],
    ),
    "different entries before the same": (
        1,
        [[header(), entry(2, 1), entry(3, 3)], [header(1), entry(2, 2), entry(3, 3)]],
    ),
    "different servers": (
        1,
        [[header(m), entry(2, servers={SIDS[m]: "tcp:127.0.0.1:1"})] for m in range(2)],
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_check_cluster(tmp_path: Path, same: Same, name: str) -> None:
    status, files = SETS[name]
    names = [write(tmp_path / f"n{i}.db", records).name for i, records in enumerate(files)]
    assert same("check-cluster", *names).status == status
    for file in names:
        same("-mm", "show-log", file)


def test_check_cluster_on_other_files(tmp_path: Path, same: Same) -> None:
    (tmp_path / "text").write_text("some text\n")
    (tmp_path / "standalone").write_bytes(record(SCHEMA))
    write(tmp_path / "good", [header(), *START])
    for name in ("text", "standalone", "nosuch"):
        assert same("check-cluster", "good", name).status == 1
        assert same("cluster-to-standalone", "new.db", name).status == 1


HEADERS: dict[str, Any] = {
    "no name": header(name=None),
    "no cluster": header(cluster_id=None),
    "no servers": header(prev_servers=None),
    "empty servers": header(prev_servers={}),
    "a server without a uuid": header(prev_servers={"x": "tcp:127.0.0.1:1"}),
    "a server without an address": header(prev_servers={SIDS[0]: 3}),
    "a bad address": header(prev_servers={SIDS[0]: "tcp:127.0.0.1"}),
    "another protocol": header(prev_servers={SIDS[0]: "udp:127.0.0.1:1"}),
    "no snapshot": header(prev_index=None, prev_term=None, prev_data=None, prev_eid=None),
    "no data": header(prev_data=None),
    "no term": header(prev_term=None),
    "a bad eid": header(prev_eid="x"),
    "a bad sid": header(server_id="x"),
    "more": header(more=1),
    "odd data": header(prev_data=[1]),
    "a number for a name": header(name=3),
    "an election timer": header(prev_election_timer=3000),
    "joining": joining(),
    "joining a known cluster": joining(cluster_id=CID),
    "joining many": joining(remote_addresses=[f"tcp:10.0.0.{n}:6644" for n in range(30)]),
    "joining nobody": joining(remote_addresses=[]),
    "joining itself": joining(remote_addresses=["tcp:127.0.0.1:4"]),
    "joining itself and another": joining(remote_addresses=["tcp:127.0.0.1:4", "tcp:127.0.0.1:1"]),
    "joining with a snapshot": joining(prev_index=1),
    "joining a bad address": joining(remote_addresses=["x"]),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers(tmp_path: Path, same: Same, name: str) -> None:
    write(tmp_path / "t.db", [HEADERS[name]])
    for verb in ("db-name", "db-cid", "db-sid", "db-local-address", "db-is-clustered", "show-log"):
        same(verb, "t.db")


RECORDS: list[Any] = [
    {},
    {"comment": "only"},
    {"note": 3},
    {"note": "transfer leadership", "comment": "why", "term": 1},
    {"commit_index": "1"},
    {"commit_index": -1},
    {"vote": SIDS[0]},
    {"term": 1, "vote": "x"},
    {"term": 1, "vote": ZERO},
    {"term": 1, "leader": ZERO},
    {"term": 1, "leader": SIDS[0], "vote": SIDS[0]},
    {"term": 1.5},
    {"term": -5},
    {"term": 2.0, "comment": 'a "b" c'},
    entry(2, servers=[]),
    entry(2, servers={}),
    entry(2, servers={SIDS[0].upper(): "unix:x"}),
    entry(2, eid=EID),
    entry(2, data=[None, {}]),
    entry(2, data=3, eid=EID),
    entry(2, data={}, eid=EID, nonsense=1),
    entry(2, data=[None, None], eid=EID),
    entry(2, data=[NEW_SCHEMA, {"A": {ROW: {"n": 1, "z": 2}}}], eid=EID.upper()),
    entry(2, data=[None, {"A": {ROW: {"n": 3}}, "_is_diff": True, "_comment": "c"}], eid=EID),
    entry(2, data=[None, {"A": {ROW: None}}], eid=EID, election_timer=3),
]


@pytest.mark.parametrize("verbosity", ["show-log", "-m", "-mm"])
def test_show_log_goes_on_after_bad_records(tmp_path: Path, same: Same, verbosity: str) -> None:
    data = [SCHEMA, {"A": {ROW: {"n": 7}}, "_date": 1700000000123, "_comment": "all"}]
    write(tmp_path / "t.db", [header(prev_data=data), *RECORDS])
    arguments = [verbosity] if verbosity == "show-log" else [verbosity, "show-log"]
    shown = same(*arguments, "t.db")
    assert shown.status == 0
    assert shown.stdout.count("record ") >= len(RECORDS)


# What is in a file


def read(path: Path, *records: Any) -> raft_file.ClusterFile:
    return raft_file.read(str(write(path / "t.db", records)))


def values(standalone: Standalone) -> list[int]:
    """What the transactions of `entry` set the integer to."""
    return [json.loads(text)["A"][ROW]["n"] for text in standalone.transactions[1:]]


def test_reading(tmp_path: Path) -> None:
    more = {**SERVERS, SIDS[3]: "tcp:127.0.0.1:4"}
    file = read(
        tmp_path,
        header(2),
        vote(3, 1),
        leader(3, 1),
        entry(2, 3, n=1),
        entry(3, 3, servers=more, election_timer=5000),
        commit(3),
        entry(4, 3, n=2),
    )
    assert (file.name, file.cluster_id, file.server_id) == ("T", CID, SIDS[2])
    assert (file.local_address, file.servers) == ("tcp:127.0.0.1:3", more)
    assert (file.term, file.vote, file.election_timer_msec) == (3, SIDS[1], 5000)
    assert (file.snapshot.index, file.commit_index, file.last_index) == (1, 3, 4)
    assert [e.index for e in file.committed] == [2, 3]
    assert [e.index for e in file.unproven] == [4]
    assert json.loads(file.standalone().schema) == file.schema == SCHEMA
    assert values(file.standalone()) == [1, 2]
    assert values(file.standalone(file.commit_index)) == [1]
    assert file.damage is None
    assert not file.has_left


def test_a_later_leader_replaces_entries(tmp_path: Path) -> None:
    old = [entry(2, n=1), commit(2), entry(3, n=2), entry(4, n=3)]
    file = read(tmp_path, header(), *old, leader(2, 1), entry(3, 2, n=4))
    assert values(file.standalone()) == [1, 4]
    assert [e.term for e in file.entries] == [1, 2]


def test_the_c_program_brings_replaced_entries_back_and_ours_does_not(
    tmp_path: Path, same: Same
) -> None:
    """The one difference in what cluster-to-standalone writes, besides changes of the schema."""
    write(tmp_path / "t.db", [header(), entry(2, n=1), entry(3, n=2), term(2), entry(3, 2, n=3)])
    assert same("check-cluster", "t.db").stdout.count("truncates log") == 1
    contents = []
    for number, program in enumerate((C, OURS)):
        run(program, ["cluster-to-standalone", f"{number}.db", "t.db"], tmp_path)
        contents.append(run(C, ["-mm", "show-log", f"{number}.db"], tmp_path).stdout)
    assert ["n=2" in content for content in contents] == [True, False]
    assert all("n=3" in content for content in contents)


def test_a_change_of_the_schema_begins_anew(tmp_path: Path) -> None:
    data = [NEW_SCHEMA, {"A": {ROW: {"n": 5}}}]
    records = [header(), entry(2, n=1), entry(3, data=data, eid=EID), entry(4, n=6)]
    file = read(tmp_path, *records)
    assert file.schema == NEW_SCHEMA
    assert [json.loads(text)["A"][ROW]["n"] for text in file.standalone().transactions] == [5, 6]
    assert json.loads(file.standalone(2).schema) == SCHEMA
    done = run(OURS, ["cluster-to-standalone", "new.db", "t.db"], tmp_path)
    assert done.status == 0
    assert run(C, ["db-version", "new.db"], tmp_path).stdout == "2.0.0\n"


def test_all_is_committed_where_there_is_nobody_else(tmp_path: Path) -> None:
    alone = {SIDS[0]: "tcp:127.0.0.1:1"}
    assert read(tmp_path, header(prev_servers=alone), entry(2), entry(3)).unproven == []
    assert len(read(tmp_path, header(), entry(2), entry(3)).unproven) == 2
    left_behind = read(tmp_path, header(1), entry(2, servers=alone))
    assert len(left_behind.unproven) == 1, "another server is all of the cluster"


@pytest.mark.parametrize("n_bytes", [1, 5, 60, 140])
def test_a_torn_end_ends_the_log(tmp_path: Path, same: Same, n_bytes: int) -> None:
    path = write(tmp_path / "t.db", [header(), entry(2, n=1), entry(3, n=2)])
    path.write_bytes(path.read_bytes()[:-n_bytes])
    file = raft_file.read(str(path))
    assert values(file.standalone()) == [1]
    assert file.damage is not None
    said = same("cluster-to-standalone", "new.db", "t.db").stderr
    assert said == f"ovsdb-tool: {file.damage}\n".replace(f"{tmp_path}/", "")


def test_the_data_before_a_torn_end_are_written(tmp_path: Path) -> None:
    path = write(tmp_path / "t.db", [header(), entry(2, n=1), entry(3, n=2)])
    path.write_bytes(path.read_bytes()[:-1])
    done = run(OURS, ["cluster-to-standalone", "new.db", "t.db"], tmp_path)
    assert done.status == 1
    assert "n=1" in run(C, ["-mm", "show-log", "new.db"], tmp_path).stdout


@pytest.mark.parametrize("n_bytes", [1, 100])
def test_a_torn_header_is_an_error(tmp_path: Path, same: Same, n_bytes: int) -> None:
    path = write(tmp_path / "t.db", [header()])
    path.write_bytes(path.read_bytes()[:-n_bytes])
    with pytest.raises(OvsdbError, match="error reading"):
        raft_file.read(str(path))
    same("cluster-to-standalone", "new.db", "t.db")


def test_a_server_that_has_not_joined_has_no_data(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="has not joined"):
        read(tmp_path, joining())
    # The C program leaves an empty file behind, and calls that a success.
    done = run(OURS, ["cluster-to-standalone", "new.db", "t.db"], tmp_path)
    assert (done.status, done.stdout) == (1, "")
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([entry(1)], "attempts to truncate log"),
        ([entry(2), commit(2), entry(2, 2)], "attempts to truncate log"),
        ([entry(3)], "skips past expected index 2"),
        ([entry(2, 0)], "precedes previous entry's term"),
        ([commit(2)], "advances commit index to 2 but last log index is 1"),
        ([entry(2, data=[1], eid=EID)], "not of a database"),
    ],
)
def test_contradictions(tmp_path: Path, records: list[Any], words: str) -> None:
    with pytest.raises(Refusal, match=words):
        read(tmp_path, header(), *records)


# Making files

ADDRESS = "tcp:127.0.0.1:6644"
CREATIONS = [
    ["create-cluster", "new.db", "t.ovsschema", "foo:127.0.0.1:1"],
    ["create-cluster", "new.db", "t.ovsschema", "tcp:127.0.0.1"],
    ["create-cluster", "new.db", "nosuch", ADDRESS],
    ["create-cluster", "new.db", "clustered.db", ADDRESS],
    ["create-cluster", "new.db", "text", ADDRESS],
    ["create-cluster", "clustered.db", "t.ovsschema", ADDRESS],
    ["create-cluster", "nosuch/new.db", "t.ovsschema", ADDRESS],
    *(
        [f"--election-timer={msec}", "create-cluster", "new.db", "t.ovsschema", ADDRESS]
        for msec in ("99", "600001", "x", "")
    ),
    *(
        [f"--cid={cid}", "join-cluster", "new.db", "T", ADDRESS, "tcp:127.0.0.1:1"]
        for cid in ("x", "", ZERO)
    ),
    ["join-cluster", "new.db", "3x", ADDRESS, "tcp:127.0.0.1:1"],
    ["join-cluster", "new.db", "T", "127.0.0.1:1", "tcp:127.0.0.1:1"],
    ["join-cluster", "new.db", "T", ADDRESS, ADDRESS],
    ["join-cluster", "new.db", "T", ADDRESS, ADDRESS, "tcp:127.0.0.1:1"],
    *(
        ["join-cluster", "new.db", "T", ADDRESS, f"tcp:{host}"]
        for host in ("127.0.0.1", ":::1:1", "127.0.0.1:99999", "127.0.0.1:abc", "")
    ),
    ["join-cluster", "clustered.db", "T", ADDRESS, "tcp:127.0.0.1:1"],
    ["join-cluster", "new.db", "T", ADDRESS],
]


@pytest.mark.parametrize("arguments", CREATIONS, ids=" ".join)
def test_refused_creations(tmp_path: Path, same: Same, arguments: list[str]) -> None:
    (tmp_path / "t.ovsschema").write_text(json.dumps(SCHEMA))
    (tmp_path / "text").write_text("some text\n")
    write(tmp_path / "clustered.db", [header()])
    assert same("-vconsole:off", *arguments).status == 1
    assert not (tmp_path / "new.db").exists()


def shown(path: Path, program: list[str], *arguments: str) -> list[str]:
    """The listing of a file that `program` made, without the ids and dates that are new."""
    new = path / "new.db"
    new.unlink(missing_ok=True)
    assert run(program, ["-vconsole:off", *arguments], path).status == 0
    lines = run(C, ["-mm", "show-log", "new.db"], path).stdout.splitlines()
    varying = (" server_id:", " cluster_id:", " prev_eid:", " prev_servers:", " 20")
    return [line for line in lines if not line.startswith(varying)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["create-cluster", "new.db", "t.ovsschema", ADDRESS],
        ["create-cluster", "new.db", "t.ovsschema", "unix:socket"],
        ["--election-timer=2000", "create-cluster", "new.db", "t.db", "ssl:[::1]:6644"],
        ["join-cluster", "new.db", "T", ADDRESS, "tcp:127.0.0.1:1", "tcp:some.host:0"],
        [f"--cid={CID.upper()}", "join-cluster", "new.db", "T", ADDRESS, "tcp:127.0.0.1:1"],
    ],
    ids=" ".join,
)
def test_creations(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "t.ovsschema").write_text(json.dumps(SCHEMA))
    (tmp_path / "t.db").write_bytes(record(SCHEMA) + record({"A": {ROW: {"n": 3}}}))
    theirs = shown(tmp_path, C, *arguments)
    assert shown(tmp_path, OURS, *arguments) == theirs


def test_ephemeral_columns_become_stored_ones(tmp_path: Path) -> None:
    column = {"type": "integer", "ephemeral": True}
    tables = {f"T{n}": {"columns": {f"c{m}": column for m in range(9)}} for n in range(9)}
    (tmp_path / "t.ovsschema").write_text(json.dumps({"name": "T", "tables": tables}))
    warnings = []
    for name, program in (("c.db", C), ("ours.db", OURS)):
        done = run(program, ["create-cluster", name, "t.ovsschema", ADDRESS], tmp_path)
        warnings.append(re.findall(r"\|ovsdb\|WARN\|(.*), including .* table(, .*)", done.stderr))
    assert warnings[0] == warnings[1] != []
    assert "ephemeral" not in (tmp_path / "ours.db").read_text()
