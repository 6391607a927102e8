"""`ovncp db create|import|export|copy`: databases on their way between all kinds of places."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from c_cluster import CCluster
from engines import EtcdCluster, Postgres, free_port
from ops.conftest import OVNCP, Command
from ops.content import NAME, SCHEMA, fill, shown, stored
from ovncp.log.registry import open_log
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.move import Moved, read_back, store
from ovncp.ops.db.place import Place
from ovncp.ops.db.source import read
from servers import Client, Server, run


@pytest.fixture
def source() -> Iterator[Server]:
    """A C server that holds the content."""
    with Server("c", [("things", SCHEMA)]) as server:
        fill(server.client())
        yield server


def shown_by_c(path: Path) -> dict[str, Any]:
    """The rows that the C server finds in a standalone file."""
    with Server("c", [("things", path)]) as server:
        return shown(server.client())


def test_a_file_goes_to_an_engine_and_back(source: Server, db: Command, url: str) -> None:
    rows = stored(shown(source.client()))
    done = db.well("import", source.files["things"], url)
    assert "all 8 rows are the same" in done.output
    db.well("export", url, "back.db")
    assert shown_by_c(db.directory / "back.db") == rows
    assert "exported from" in run("ovsdb-tool", "show-log", db.directory / "back.db")


@pytest.mark.parametrize("kind", ["c", "ovncp"])
def test_a_running_server_goes_to_an_engine(kind: str, db: Command, url: str) -> None:
    with Server(kind, [("things", SCHEMA)]) as server:
        fill(server.client())
        rows = shown(server.client())
        done = db.well("import", server.remote, url, "--json").json
        assert (done["rows"], done["verified"], done["schema"]) == (8, True, NAME)
        db.well("verify", url, f"{server.remote}?db={NAME}")
    assert rows != stored(rows)
    db.well("export", url, "back.db")
    assert shown_by_c(db.directory / "back.db") == stored(rows)


def test_engines_are_copied_to_each_other(
    source: Server, db: Command, etcd: EtcdCluster, postgres: Postgres
) -> None:
    urls = [etcd.url("first"), postgres.url("second"), etcd.url("third")]
    db.well("import", source.files["things"], urls[0])
    for first, second in pairwise(urls):
        assert db.well("copy", first, second, "--json").json["transactions_kept"] == 6
    assert db.well("verify", urls[0], urls[2]).output == "all 8 rows are the same\n"


def test_the_members_of_a_c_cluster_are_imported_and_a_new_cluster_exported(
    db: Command, etcd: EtcdCluster
) -> None:
    with CCluster(SCHEMA) as cluster:
        leader = cluster.wait_for_leader()
        fill(cluster.client(leader))
        rows = shown(cluster.client(leader))
        cluster.wait_until_equal()
        for member, file in enumerate(cluster.files):
            url = etcd.url(f"member{member}")
            db.well("import", file, url)
            db.well("verify", url, file)
            db.well("verify", url, cluster.endpoints[member])
            # Otherwise clients that have seen more of the cluster would stay away.
            assert db.well("status", url, "--json").json["last_index"] > 1_000_000
        db.well("import", cluster.endpoints[leader], "from-server.db")
        for member in set(cluster.running) - {leader}:
            cluster.kill(member)
        wait_until_cut_off(cluster.client(leader))
        refused = db("import", cluster.endpoints[leader], "old.db")
        assert refused.status == 2
        assert "cut off" in refused.error
    address = f"tcp:127.0.0.1:{free_port()}"
    db.well("export", etcd.url("member0"), "new.db", "--format=cluster", f"--address={address}")
    path = db.directory / "new.db"
    assert run("ovsdb-tool", "db-local-address", path).strip() == address
    with Server("c", [("new", path)]) as server:
        assert shown(server.client()) == rows
        run("ovsdb-tool", "check-cluster", server.files["new"])
    db.well("verify", path, "from-server.db")


def wait_until_cut_off(client: Client) -> None:
    """Return when the server knows that its cluster has no majority."""
    select = {"op": "select", "table": "Database", "where": [["name", "==", NAME]]}
    deadline = time.monotonic() + 60
    while client.transact("_Server", select)[0]["rows"][0]["connected"]:
        assert time.monotonic() < deadline, "it does not notice"
        time.sleep(0.1)


def test_clients_resume_on_the_copy(db: Command, etcd: EtcdCluster) -> None:
    with Server("ovncp", [("things", SCHEMA)]) as server:
        fill(server.client())
        client = server.client()
        transaction_id = monitor(client, "0" * 8 + "-0000-0000-0000-" + "0" * 12)[1]
        client.transact(
            NAME, {"op": "insert", "table": "Thing", "row": {"name": "missed", "choice": "a"}}
        )
        file = server.files["things"]
        db.well("copy", file, etcd.url("resumed"))
        db.well("copy", etcd.url("resumed"), "resumed.db")
    with Server("ovncp", start=False) as server:
        server.files = {"things": db.directory / "resumed.db"}
        server.start()
        found, _, updates = monitor(server.client(), transaction_id)
        assert found
        assert len(updates["Thing"]) == 1


def monitor(client: Client, transaction_id: str) -> Any:
    """The answer of one who knows the state `transaction_id`."""
    requests = {table: [{"columns": [next(iter(body["columns"]))]}]
                for table, body in SCHEMA["tables"].items()}  # fmt: skip
    reply = client.request("monitor_cond_since", [NAME, "m", requests, transaction_id])
    return reply["result"]


def test_an_empty_database_is_made_once(db: Command, url: str) -> None:
    schema = db.directory / "things.ovsschema"
    schema.write_text(json.dumps(SCHEMA))
    db.well("create", url, schema)
    assert db.well("status", url, "--json").json["schema"]["version"] == "1.2.3"
    again = db("create", url, schema)
    assert again.status == 2
    assert "exist" in again.error


def test_an_empty_database_of_the_schema_of_a_server(source: Server, db: Command, url: str) -> None:
    db.well("create", url, source.remote)
    assert db.well("status", url, "--json").json["schema"]["version"] == "1.2.3"
    differences = db("verify", source.remote, url, "--json").json
    assert differences["schema"] == [] and len(differences["rows"]) == 8
    refused = db("create", f"{url}-other", f"{source.remote}?db=Other")
    assert refused.status == 2 and "there is no Other" in refused.error


def test_nothing_takes_the_place_of_a_database(source: Server, db: Command, url: str) -> None:
    db.well("import", source.files["things"], url)
    for verb in ("import", "copy"):
        refused = db(verb, source.files["things"], url)
        assert refused.status == 2
        assert "exist" in refused.error
    db.well("verify", source.files["things"], url)


def test_a_damaged_source_makes_no_database(source: Server, db: Command, url: str) -> None:
    path = db.directory / "damaged.db"
    path.write_bytes(source.files["things"].read_bytes()[:-10])
    refused = db("import", path, url)
    assert refused.status == 2
    assert "damaged.db" in refused.error
    assert db("status", url).status == 2


async def test_a_copy_that_is_not_the_same_is_told(source: Server, url: str) -> None:
    caller = Caller(os.urandom(16).hex, lambda: 0, lambda _: pytest.fail(), lambda *_: None)
    place, target = Place.parse(str(source.files["things"])), Place.parse(url)
    state = await read(place, caller)
    await store(state, target, "", caller)
    [uuid, *_] = state.database.tables["Thing"].rows
    log = await open_log(target.location)
    await log.append(log.next_index, [b'{"Thing":{"%b":{"number":1}}}' % uuid.encode()])
    await log.close()
    moved = Moved("copied", place, target, state, 0, await read_back(state, target, caller))
    assert moved.status == 1
    assert "MUST NOT" in "\n".join(moved.lines()).upper()
    [difference] = moved.to_json()["comparison"]["rows"]
    assert (difference["uuid"], difference["second"]) == (uuid, {"number": 1})


def test_passwords_are_not_shown(source: Server, db: Command, postgres: Postgres) -> None:
    url = postgres.url("password").replace("ovncp@", "ovncp:hidden@")
    done = db.well("import", source.files["things"], url, "--json")
    assert "hidden" not in done.output
    assert "hidden" not in db("import", source.files["things"], url).error
    wrong = url.replace(postgres.host, f"127.0.0.1:{free_port()}")
    assert "hidden" not in db("verify", f"{wrong}&timeout_ms=200").error


def test_progress_is_shown_on_a_terminal(source: Server, db: Command) -> None:
    terminal, stderr = pty.openpty()
    process = subprocess.run(
        [OVNCP, "db", "import", source.files["things"], "copy.db"],
        cwd=db.directory,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )
    os.close(stderr)
    assert process.returncode == 0
    assert "comparing 8 rows" in os.read(terminal, 1 << 16).decode()
    os.close(terminal)
