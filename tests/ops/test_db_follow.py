"""`ovncp db import --follow`: what a server comes to have is in the log, or it says that not."""

from __future__ import annotations

import json
import secrets
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from c_cluster import CCluster
from engines import EtcdCluster, Postgres
from move_from_c import (
    NAME,
    PATIENCE_S,
    SCHEMA,
    Import,
    Writer,
    check_content,
    check_result,
    fill,
    insert,
    stored_twice,
)
from ops.conftest import Command
from servers import Client, Server, run


@pytest.fixture
def cluster() -> Iterator[CCluster]:
    with CCluster(SCHEMA) as cluster:
        cluster.wait_for_leader()
        yield cluster


def new_url(engine: EtcdCluster | Postgres) -> str:
    return engine.url(f"{NAME}-{secrets.token_hex(4)}")


def write(server: Server, name: str) -> None:
    """Insert a row."""
    server.client().transact(NAME, insert("Row", {"name": name, "number": 1}))


def names(db: Command, place: str) -> set[str]:
    rows = db.well("at", place, "-0s", "--json").json["rows"]["Row"]
    return {row["name"] for row in rows.values()}


def follow_under_load(cluster: CCluster, url: str, harm: Callable[[], None]) -> None:
    """Follow `cluster`, to which clients write; all is there in the end, whatever `harm` does."""
    fill(cluster.client(cluster.wait_for_leader()), 50)
    addresses = [("127.0.0.1", int(each.rpartition(":")[2])) for each in cluster.endpoints]
    writers = [Writer(f"writer {n}", addresses[n:] + addresses[:n]) for n in range(3)]
    with Import(cluster.remote, url) as importing:
        importing.wait_for("following")
        for writer in writers:
            writer.start()
        try:
            writers[0].wait_for(50)
            harm()
            writers[1].wait_for(100)
        finally:
            for writer in writers:
                writer.end()
        importing.end()
        importing.wait_for("complete")
        check_result(importing)
    # C's cluster stores a transaction twice at times when its leader is lost: a member that had
    # passed it on executes it once more, while the next leader commits what it had of it.
    twice = stored_twice(cluster.client(cluster.wait_for_leader()))
    with Server("ovncp", options=[url]) as server:
        check_content(server.client(), writers, 50, twice)


def test_the_leader_is_killed(cluster: CCluster, etcd: EtcdCluster) -> None:
    follow_under_load(cluster, new_url(etcd), lambda: cluster.kill(cluster.wait_for_leader()))


def test_the_member_that_is_followed_is_cut_off(cluster: CCluster, etcd: EtcdCluster) -> None:
    def freeze() -> None:
        leader = cluster.wait_for_leader()
        cluster.freeze(leader)
        cluster.wait_for_leader(other_than=leader)
        cluster.thaw(leader)

    follow_under_load(cluster, new_url(etcd), freeze)


def wait_for_row(client: Client, name: str) -> None:
    select = {"op": "select", "table": "Row", "where": [["name", "==", name]]}
    while not client.transact(NAME, select)[0]["rows"]:
        time.sleep(0.05)


def test_a_member_that_does_not_answer_is_not_waited_for(
    cluster: CCluster, db: Command, etcd: EtcdCluster
) -> None:
    url, leader = new_url(etcd), cluster.wait_for_leader()
    frozen, other = {0, 1, 2} - {leader}
    fill(cluster.client(leader), 10)
    with Import(cluster.remote, url) as importing:
        importing.wait_for("following")
        cluster.freeze(frozen)
        cluster.client(other).transact(NAME, insert("Row", {"name": "last"}))
        # A member that knows of it later looks as if somebody still wrote to it.
        for member in (leader, other):
            wait_for_row(cluster.client(member), "last")
        importing.end()
        importing.wait_for("complete")
        cluster.thaw(frozen)
        check_result(importing)
    assert "last" in names(db, url)


def test_the_engine_is_away_for_a_while(cluster: CCluster) -> None:
    with EtcdCluster() as etcd:

        def kill_leader() -> None:
            leader = etcd.wait_for_leader()
            etcd.kill(leader)
            etcd.start(leader)

        follow_under_load(cluster, new_url(etcd), kill_leader)


def test_an_answer_of_the_engine_gets_lost(cluster: CCluster) -> None:
    with Postgres() as postgres:
        follow_under_load(cluster, new_url(postgres), postgres.kill_backend)


@pytest.mark.parametrize("kind", ["c", "ovncp"])
def test_a_server_without_a_cluster_that_starts_again(kind: str, db: Command, url: str) -> None:
    with Server(kind, [(NAME, SCHEMA)]) as server:
        write(server, "first")
        with Import(server.remote, url) as importing:
            importing.wait_for("1 rows imported")
            write(server, "second")
            server.kill9()
            server.start()
            write(server, "third")
            importing.end()
            importing.wait_for("complete")
            check_result(importing)
    assert names(db, url) == {"first", "second", "third"}


def test_somebody_else_writes_to_the_new_log(cluster: CCluster, etcd: EtcdCluster) -> None:
    url = new_url(etcd)
    with Import(cluster.remote, url) as importing:
        importing.wait_for("following")
        with Server("ovncp", options=[url]) as server:
            write(server, "too early")
        fill(cluster.client(cluster.wait_for_leader()), 1)
        status, _, complaint = importing.result()
    assert status == 2
    assert "somebody else writes there, too" in complaint


def test_the_source_is_gone_before_the_end(etcd: EtcdCluster) -> None:
    with Server("c", [(NAME, SCHEMA)]) as server, Import(server.remote, new_url(etcd)) as importing:
        importing.wait_for("following")
        server.stop()
        importing.end()
        status, _, complaint = importing.result()
    assert status == 2
    assert "may not have all of it" in complaint


def test_what_is_still_written_after_the_end_is_found(etcd: EtcdCluster) -> None:
    with Server("c", [(NAME, SCHEMA)], tcp=True) as server:
        writer = Writer("writer", [("127.0.0.1", server.port)])
        writer.start()
        status = 0
        deadline = time.monotonic() + PATIENCE_S
        # The comparison follows so soon that nothing may be written before it.
        while status == 0:
            assert time.monotonic() < deadline
            with Import(server.remote, new_url(etcd), "--json") as importing:
                importing.wait_for("following")
                writer.wait_for(20)
                importing.end()
                importing.wait_for("complete")
                status, output, _ = importing.result()
        writer.end()
    assert status == 1
    differences = json.loads(output)["comparison"]["rows"]
    late = [each["first"]["name"] for each in differences if each["table"] == "Row"]
    assert late and set(late) <= set(writer.stored)


def test_a_cluster_with_clients_is_not_at_its_end(cluster: CCluster, etcd: EtcdCluster) -> None:
    _, host, port = cluster.endpoints[cluster.wait_for_leader()].split(":")
    writers = [Writer(f"writer {n}", [(host, int(port))]) for n in range(4)]
    for writer in writers:
        writer.start()
    status, deadline = 0, time.monotonic() + 2 * PATIENCE_S
    # On a busy machine all of them may stand still for as long as it is looked at.
    while status != 2:
        assert time.monotonic() < deadline
        with Import(cluster.remote, new_url(etcd)) as importing:
            importing.wait_for("following")
            writers[0].wait_for(20)
            importing.end()
            status, output, complaint = importing.result()
    for writer in writers:
        writer.end()
    assert status == 2 and "complete" not in output
    assert "somebody still writes to it" in complaint


def test_the_schema_is_converted_meanwhile(db: Command, etcd: EtcdCluster) -> None:
    schema = db.directory / "new.ovsschema"
    schema.write_text(json.dumps(SCHEMA | {"version": "2.0.0"}))
    with Server("c", [(NAME, SCHEMA)]) as server, Import(server.remote, new_url(etcd)) as importing:
        importing.wait_for("following")
        run("ovsdb-client", "convert", server.remote, schema)
        status, _, complaint = importing.result()
    assert status == 2
    assert "has another schema now" in complaint


def test_only_a_server_can_be_followed(db: Command) -> None:
    with Server("c", [(NAME, SCHEMA)]) as server:
        refused = db("import", "--follow", server.files[NAME], "new.db")
    assert refused.status == 2 and "a running server is wanted" in refused.error


def test_it_ends_by_sigint_too(db: Command, url: str) -> None:
    with Server("c", [(NAME, SCHEMA)]) as server, Import(server.remote, url) as importing:
        importing.wait_for("following")
        importing.end(signal.SIGINT)
        importing.wait_for("complete")
        check_result(importing)
