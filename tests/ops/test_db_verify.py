"""`ovncp db verify` and `status`: what is wrong with a database is found, what is in it told."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engines import EtcdCluster, Postgres, make_certificate
from ops.conftest import Command
from ops.content import NAME, SCHEMA, fill
from ovncp.log.base import Log
from ovncp.log.registry import open_log
from servers import Server

NEW = "11111111-1111-4111-8111-111111111111"
NOWHERE = "22222222-2222-4222-8222-222222222222"


@pytest.fixture(scope="module")
def file() -> Iterator[Path]:
    """A database file with the content, which no test may change."""
    with Server("c", [("things", SCHEMA)]) as server:
        fill(server.client())
        yield server.files["things"]


@pytest.fixture
def log_url(file: Path, db: Command, url: str) -> str:
    """A log with the content, on each kind of engine."""
    db.well("import", file, url)
    return url


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Log]:
    log = await open_log(url)
    try:
        yield log
    finally:
        await log.close()


async def append(url: str, *entries: Any) -> None:
    """Append what no server would: bytes as they are, and others as JSON."""
    async with opened(url) as log:
        texts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in entries]
        await log.append(log.next_index, texts)


def problems(db: Command, url: str) -> list[str]:
    """What `verify` finds, which has to be something."""
    done = db("verify", url, "--json")
    assert done.status == 1, done
    found: list[str] = done.json["problems"]
    return found


async def test_what_is_whole_is_well(log_url: str, db: Command) -> None:
    await append(log_url, {"Thing": {NEW: {"name": "new", "choice": "a"}}, "_date": 1})
    done = db.well("verify", log_url, "--json").json
    assert (done["rows"], done["entries"], done["problems"]) == (9, 1, [])


@pytest.mark.parametrize(
    "entry, found",
    [
        ({"Thing": {NEW: {"name": "thing 0", "choice": "a"}}}, "have identical values"),
        ({"Thing": {NEW: {"parts": ["uuid", NOWHERE]}}}, "referential integrity violation"),
        ({"Thing": {NEW: None}}, "that does not exist"),
        ({"Thing": {NEW: {"number": "five"}}}, "expected integer"),
        ({"Thing": {NEW: {"number": -5}}}, "less than minimum"),
        ({"Nothing": {}}, "No table named Nothing"),
        (b"not JSON", "not valid JSON"),
    ],
)
async def test_an_entry_that_is_wrong(entry: Any, found: str, file: Path, db: Command) -> None:
    path = shutil.copy(file, db.directory)
    await append(path, entry)
    [problem] = problems(db, path)
    assert found in problem


async def test_an_entry_that_servers_leave_out_does_not_hide_the_next(
    log_url: str, db: Command
) -> None:
    double = {"Thing": {NEW: {"name": "thing 0", "choice": "a"}}}
    await append(log_url, double, double, {"Thing": {NEW: {"name": "new", "choice": "a"}}})
    first, second = db("verify", log_url, "--json").json["problems"]
    summary, *told = db("verify", log_url).output.splitlines()
    assert "9 rows" in summary
    assert told == [first, second]


async def test_a_difference_that_leads_to_what_the_schema_forbids(file: Path, db: Command) -> None:
    path = shutil.copy(file, db.directory)
    one = {"Thing": {NEW: {"name": "new", "choice": "a", "maybe": 1}}}
    more = {"Thing": {NEW: {"maybe": ["set", [2, 3]]}}, "_is_diff": True}
    await append(path, one, more)
    assert problems(db, path)


async def test_a_history_that_does_not_lead_to_the_snapshot(log_url: str, db: Command) -> None:
    async with opened(log_url) as log:
        found = await log.snapshot()
        wrong = found.history.replace(b'"thing 4"', b'"thing 5"')
        assert wrong != found.history
        await log.save_snapshot(log.next_index - 1, found.data, wrong)
    [problem] = problems(db, log_url)
    assert "history" in problem


def test_a_file_that_is_damaged(file: Path, db: Command) -> None:
    path, whole = db.directory / "damaged.db", file.read_bytes()
    for damaged in (whole[:-10], whole[:-10] + b"x" + whole[-9:], whole + b"x"):
        path.write_bytes(damaged)
        [problem] = problems(db, str(path))
        assert "damaged.db" in problem
    path.write_bytes(b"something else")
    assert db("verify", path).status == 2


async def test_two_that_differ(file: Path, log_url: str, db: Command) -> None:
    [uuid] = [
        difference["uuid"]
        for difference in db("verify", file, await emptied(db, file), "--json").json["rows"]
        if (difference["first"] or {}).get("name") == "thing 0"
    ]
    await append(
        log_url,
        {"Thing": {uuid: {"map": ["map", [["k", "w"]]]}, NEW: {"name": "new", "choice": "b"}}},
    )
    done = db("verify", file, log_url, "--json")
    assert done.status == 1
    new, changed = sorted(done.json["rows"], key=lambda difference: difference["uuid"] != NEW)
    assert (new["first"], new["second"]["name"]) == (None, "new")
    assert changed == {
        "table": "Thing",
        "uuid": uuid,
        "first": {"map": ["map", [["k", "v"]]]},
        "second": {"map": ["map", [["k", "w"]]]},
    }
    words = db("verify", file, log_url).output
    assert f'Thing {uuid}: map: -["k","v"] +["k","w"]' in words
    assert f"Thing {NEW}: only in" in words


async def emptied(db: Command, file: Path) -> Path:
    """A database of the same schema with no rows."""
    path = db.directory / "empty.db"
    schema = db.directory / "things.ovsschema"
    schema.write_text(json.dumps(SCHEMA))
    db.well("create", path, schema)
    return path


def test_two_schemas_that_differ(file: Path, db: Command) -> None:
    other = json.loads(json.dumps(SCHEMA))
    other["version"] = "1.2.4"
    other["tables"]["Thing"]["columns"]["more"] = {"type": "string"}
    del other["tables"]["Thing"]["columns"]["flag"]
    other["tables"]["Thing"]["columns"]["number"] = {"type": "integer"}
    other["tables"]["Thing"]["maxRows"] = 100
    schema = db.directory / "other.ovsschema"
    schema.write_text(json.dumps(other))
    db.well("create", "other.db", schema)
    found = db("verify", file, "other.db", "--json").json["schema"]
    assert [words.split(":")[0] for words in found] == [
        "schema version",
        "column Thing.flag",
        "column Thing.more",
        "column Thing.number",
        "table Thing",
    ]


def test_a_server_that_has_several_databases(file: Path, db: Command) -> None:
    other = SCHEMA | {"name": "Others"}
    with Server("ovncp", [("things", file), ("others", other)]) as server:
        assert "Others, Things" in db("verify", server.remote).error
        assert "there is no None" in db("verify", f"{server.remote}?db=None").error
        db.well("verify", f"{server.remote}?db={NAME}", file)


def test_a_server_behind_tls(file: Path, db: Command) -> None:
    own = make_certificate(db.directory)
    tls = [f"--private-key={own.key}", f"--certificate={own.cert}", f"--ca-cert={own.ca}"]
    with Server("c", [("things", file)], options=[*tls, "--remote=pssl:0:127.0.0.1"]) as server:
        remote = f"ssl:127.0.0.1:{server.port}"
        db.well("verify", *tls, remote, file)
        assert db("verify", remote, file).status == 2


def test_what_cannot_be_reached(db: Command, etcd: EtcdCluster, postgres: Postgres) -> None:
    for url in (
        etcd.url("missing"),
        postgres.url("missing"),
        "missing.db",
        "tcp:127.0.0.1:1",
        "unix:missing",
        "nosuch://127.0.0.1/x?db=y",
        "etcd://127.0.0.1:1/x",
    ):
        done = db("verify", url)
        assert (done.status, done.output) == (2, "")
        assert done.error.startswith("ovncp db: ")


async def test_the_status_of_a_log(file: Path, log_url: str, db: Command) -> None:
    await append(log_url, {"_date": 1700000000000}, {"_date": 1700000001000})
    async with opened(log_url) as log:
        first = log.next_index - 2
    status = db.well("status", log_url, "--json").json
    assert status["schema"]["name"] == NAME
    assert (status["first_index"], status["last_index"]) == (first, first + 1)
    assert status["snapshot"]["index"] == first - 1
    assert status["snapshot"]["bytes"] > 500
    assert status["snapshot"]["history_bytes"] > 500
    assert status["entries"] == {
        "number": 2,
        "bytes": 2 * len('{"_date": 1700000000000}'),
        "first_date": "2023-11-14T22:13:20.000Z",
        "last_date": "2023-11-14T22:13:21.000Z",
    }
    assert status["storage"]["used"] > 0


async def test_the_status_tells_of_leases(
    file: Path, db: Command, etcd: EtcdCluster, postgres: Postgres
) -> None:
    for url in (etcd.url("leases"), postgres.url("leases")):
        db.well("import", file, url)
        async with opened(url) as log:
            lease = await log.acquire("some lock", 30_000)
            [held] = db.well("status", url, "--json").json["leases"]
            assert (held["name"], held["token"]) == ("some lock", lease.token)
            assert "some lock" in db.well("status", url).output
            await lease.release()
            assert db.well("status", url, "--json").json["leases"] == []
