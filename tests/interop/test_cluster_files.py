"""Files of real Raft clusters: ours reads what C servers wrote, and they start from ours."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from c_cluster import CCluster
from ovncp.ops import (
    check_cluster,
    cluster_to_standalone,
    raft_create,
    raft_file,
    show_log,
)
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.server import uuids
from servers import Client, Server

OURS = [str(Path(sys.executable).with_name("ovncp")), "ovsdb-tool"]
C = ["ovsdb-tool"]

COLUMNS = {
    "n": {"type": "integer"},
    "set": {"type": {"key": "string", "min": 0, "max": "unlimited"}},
    "gone": {"type": "string"},
}
SCHEMA = {"name": "T", "version": "1.0.0", "tables": {"A": {"columns": COLUMNS}}}
NEW_SCHEMA = {
    **SCHEMA,
    "version": "2.0.0",
    "tables": {"A": {"columns": {name: COLUMNS[name] for name in ("n", "set")}}},
}


def tool(program: list[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Status, output and errors of one run."""
    command = [*program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def insert(n: int) -> dict[str, Any]:
    return {"op": "insert", "table": "A", "row": {"n": n, "gone": f"row {n}"}}


def numbers_at(client: Client) -> list[int]:
    """What a server has in column n."""
    rows = client.transact("T", {"op": "select", "table": "A", "where": [], "columns": ["n"]})
    return sorted(row["n"] for row in rows[0]["rows"])


def numbers_in(path: Path) -> list[int]:
    """What is in column n, as the C server takes a standalone file."""
    with Server("c", [("T", path)]) as server:
        return numbers_at(server.client())


class Files:
    """The members' files of one cluster at some moments of its life.

    By moment, they are `MOMENT0.db` and on; `numbers` has what was in the database then.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.numbers: dict[str, list[int]] = {}
        self.deposed = -1

    def keep(self, moment: str, cluster: CCluster) -> None:
        for member, file in enumerate(cluster.files):
            shutil.copy(file, self.directory / f"{moment}{member}.db")

    def keep_settled(self, moment: str, cluster: CCluster) -> None:
        cluster.wait_until_equal()
        self.keep(moment, cluster)
        self.numbers[moment] = numbers_at(cluster.client(cluster.wait_for_leader()))

    def at(self, moment: str) -> list[Path]:
        return sorted(self.directory.glob(f"{moment}?.db"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    """The life of a cluster: writes, a leader cut off and deposed, a conversion, a compaction."""
    files = Files(tmp_path_factory.mktemp("files"))
    # So that on a busy machine, too, nobody is deposed but the one that is to be.
    with CCluster(SCHEMA, election_timer_msec=3000) as cluster:
        _write(files, cluster)
        _depose(files, cluster)
        _convert_and_compact(files, cluster)
    yield files


def _write(files: Files, cluster: CCluster) -> None:
    client = cluster.client(cluster.wait_for_leader())
    for n in range(1, 6):
        client.transact("T", insert(n), {"op": "comment", "comment": f"number {n}"})
    mutation = ["set", "insert", ["set", ["a", "b"]]]
    client.transact("T", {"op": "mutate", "table": "A", "where": [], "mutations": [mutation]})
    client.transact("T", {"op": "delete", "table": "A", "where": [["n", "==", 5]]})
    files.keep_settled("written", cluster)


def _depose(files: Files, cluster: CCluster) -> None:
    """Have the leader take a transaction that nobody else hears of, and others elect another."""
    files.deposed = old = cluster.wait_for_leader()
    followers = [member for member in cluster.running if member != old]
    client = cluster.client(old)
    client.sync()
    for member in followers:
        cluster.kill(member)
    client.start("transact", ["T", insert(100)])
    cluster.wait(lambda: b"row 100" in cluster.file(old).read_bytes(), "nothing is written")
    files.keep("uncommitted", cluster)
    cluster.kill(old)
    for member in followers:
        cluster.start(member)
    cluster.client(cluster.wait_for_leader()).transact("T", insert(6))
    cluster.start(old)
    cluster.wait_until_joined()
    files.keep_settled("replaced", cluster)


def _convert_and_compact(files: Files, cluster: CCluster) -> None:
    leader = cluster.wait_for_leader()
    schema = files.directory / "new.ovsschema"
    schema.write_text(json.dumps(NEW_SCHEMA))
    subprocess.run(["ovsdb-client", "convert", cluster.endpoints[leader], schema], check=True)
    row = {"op": "insert", "table": "A", "row": {"n": 7}}
    cluster.client(leader).transact("T", row)
    files.keep_settled("converted", cluster)
    for member in cluster.running:
        cluster.appctl(member, "ovsdb-server/compact", "T")
    cluster.client(cluster.wait_for_leader()).transact("T", {**row, "row": {"n": 8}})
    files.keep_settled("compacted", cluster)


MOMENTS = ["written", "uncommitted", "replaced", "converted", "compacted"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_both_say_the_same_of_a_file(files: Files, moment: str) -> None:
    for file in files.at(moment):
        shown = "".join(show_log.show(str(file), 2))
        assert tool(C, "-mm", "show-log", file) == (0, shown, "")


@pytest.mark.parametrize("moment", MOMENTS)
def test_both_say_the_same_of_the_cluster(files: Files, moment: str) -> None:
    told = "".join(check_cluster.check(list(map(str, files.at(moment)))))
    assert tool(C, "check-cluster", *files.at(moment)) == (0, told, "")
    assert ("truncates log" in told) == (moment in ("replaced", "converted"))


@pytest.mark.parametrize("verb", ["db-name", "db-cid", "db-sid", "db-local-address"])
def test_both_say_the_same_of_a_member(files: Files, verb: str) -> None:
    file = files.at("written")[1]
    assert tool(OURS, verb, file) == tool(C, verb, file)


@pytest.mark.parametrize("moment", ["written", "replaced", "converted", "compacted"])
def test_the_data_of_any_member(files: Files, moment: str, tmp_path: Path) -> None:
    for number, file in enumerate(files.at(moment)):
        read = raft_file.read(str(file))
        assert read.unproven == []
        target = tmp_path / f"{number}.db"
        assert cluster_to_standalone.convert(str(target), str(file)) is None
        assert numbers_in(target) == files.numbers[moment]


def test_what_the_c_program_makes_of_a_file_is_the_same(files: Files, tmp_path: Path) -> None:
    """Where nothing was replaced or converted."""
    for number, program in enumerate((C, OURS)):
        file = files.at("written")[0]
        assert tool(program, "cluster-to-standalone", tmp_path / f"{number}.db", file)[0] == 0
    shown = [tool(C, "-mm", "show-log", tmp_path / f"{number}.db")[1] for number in range(2)]
    assert sorted(shown[0].splitlines()) == sorted(shown[1].splitlines())


def test_an_entry_that_only_the_leader_has_is_not_taken_for_committed(files: Files) -> None:
    reads = [raft_file.read(str(file)) for file in files.at("uncommitted")]
    leader = reads[files.deposed]
    assert leader.last_index == leader.commit_index + 1 == leader.unproven[0].index
    assert [read.unproven for read in reads if read is not leader] == [[], []]
    assert max(reads, key=lambda read: (read.last_term, read.last_index)) is leader
    assert "row 100" in str(leader.standalone().transactions[-1])
    assert "row 100" not in str(leader.standalone(leader.commit_index))


def test_the_replaced_entry_is_gone(files: Files) -> None:
    read = raft_file.read(str(files.at("replaced")[files.deposed]))
    assert "row 100" not in str(read.standalone())
    assert read.term == read.last_term


def test_a_file_may_be_read_while_its_server_writes() -> None:
    with CCluster(SCHEMA, n_members=1) as cluster:
        client = cluster.client(0)
        for n in range(20):
            client.transact("T", insert(n))
            assert str(n) in str(raft_file.read(str(cluster.file(0))).standalone().transactions[-1])


def test_a_cluster_of_c_servers_starts_from_our_files() -> None:
    with CCluster(SCHEMA, program=OURS, election_timer_msec=1500) as cluster:
        leader = cluster.wait_for_leader()
        assert cluster.status(leader)["Election timer"] == "1500"
        cluster.client(leader).transact("T", insert(1))
        cluster.wait_until_equal()
        assert [numbers_at(cluster.client(member)) for member in range(3)] == [[1]] * 3
        assert list(check_cluster.check(list(map(str, cluster.files)))) == []


def test_the_c_server_opens_what_is_written_for_an_export(tmp_path: Path) -> None:
    rows = {f"{n:08x}-0000-4000-8000-000000000000": {"n": n} for n in range(1, 1001)}
    path = tmp_path / "T.db"
    schema = DatabaseSchema.from_json(SCHEMA)
    pieces = [b'{"A":', json.dumps(rows).encode(), b"}"]
    source = uuids.make_source(b"seed")
    raft_create.create_cluster(str(path), schema, pieces, "tcp:127.0.0.1:0", source)
    with Server("c", [("T", path)]) as server:
        client = server.client()
        assert numbers_at(client) == list(range(1, 1001))
        client.transact("T", insert(1001))
        assert "Role: leader" in server.appctl("cluster/status", "T")
