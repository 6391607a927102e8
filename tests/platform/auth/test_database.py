"""What becomes of requests while PostgreSQL is away, comes back, or is another server by then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from engines import Postgres
from ovncp.auth import database as module
from ovncp.auth.database import Database
from ovncp.auth.errors import (
    BadData,
    Conflict,
    DatabaseUnavailable,
    DatabaseUnusable,
    OutcomeUnknown,
)
from ovncp.auth.migration import migrate
from ovncp.auth.settings import DatabaseSettings, postgres_url
from ovncp.auth.trail import Trail
from ovncp.auth.wanted import Wanted
from ovncp.cluster.background import end
from ovncp.cluster.settings import SettingsError
from ovncp.log.contract.wire import Wire


@pytest.fixture(scope="module")
def server():
    """A server for these tests to harm; each leaves it whole."""
    with Postgres() as server:
        yield server


@pytest.fixture
async def settings(server):
    name = f"d{secrets.token_hex(4)}"
    server.sql(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    return DatabaseSettings(f"postgresql://ovncp@{server.host}/{name}", timeout_s=1.0)


@pytest.fixture
async def open_database(settings):
    async with contextlib.AsyncExitStack() as stack:

        def open_one(settings=settings):
            database = Database(settings)
            stack.push_async_callback(database.close)
            return database

        yield open_one


async def make_table(database):
    await database.write(lambda c: c.execute(text("CREATE TABLE t (n integer)")))


async def put(database, n):
    await database.write(lambda c: c.execute(text("INSERT INTO t VALUES (:n)"), {"n": n}))


async def numbers(read):
    rows = await read(lambda c: c.execute(text("SELECT n FROM t ORDER BY n")))
    return list(rows.scalars())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
async def test_requests_ride_over_a_short_absence(server, open_database, number):
    database = open_database()
    await make_table(database)
    kept = []

    async def write_for_ever():
        for n in range(1_000_000):
            with contextlib.suppress(DatabaseUnavailable, OutcomeUnknown):
                await put(database, n)
                kept.append(n)
            await asyncio.sleep(0.001)

    task = asyncio.create_task(write_for_ever())
    await asyncio.sleep(0.3)
    server.stop(number)
    await asyncio.to_thread(server.start)
    n_before = len(kept)
    async with asyncio.timeout(20):
        while len(kept) < n_before + 50:
            await asyncio.sleep(0.01)
    await end([task])
    found = await numbers(database.read)
    assert len(found) == len(set(found)), "nothing was done twice"
    assert set(kept) <= set(found)
    assert not database.is_away


async def test_a_long_absence_is_told_at_once_and_ends(server, open_database):
    database = open_database()
    await make_table(database)
    server.stop()
    with pytest.raises(DatabaseUnavailable):
        await put(database, 1)
    assert database.is_away and database.breakers[0].state != "closed"
    loop = asyncio.get_running_loop()
    start = loop.time()
    results = await asyncio.gather(*(put(database, n) for n in range(100)), return_exceptions=True)
    assert {type(result) for result in results} == {DatabaseUnavailable}
    assert loop.time() - start < module._PATIENCE_S * 3
    await asyncio.to_thread(server.start)
    async with asyncio.timeout(20):
        while database.is_away:
            with contextlib.suppress(DatabaseUnavailable):
                await put(database, 7)
            await asyncio.sleep(0.05)
    assert await numbers(database.read) == [7]


async def test_a_server_that_stands_still_is_not_waited_for(server, open_database, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_S", 0.1)
    database = open_database()
    await make_table(database)
    for pid in server.pids:
        signal_process(pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            with pytest.raises((DatabaseUnavailable, OutcomeUnknown)):
                await put(database, 1)
        assert database.is_away
    finally:
        for pid in server.pids:
            signal_process(pid, signal.SIGCONT)
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(DatabaseUnavailable, OutcomeUnknown):
                await put(database, 2)
                return
            await asyncio.sleep(0.05)


def signal_process(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


async def test_an_answer_to_a_commit_that_is_lost_is_no_failure(server, open_database, settings):
    wire = Wire([server.host])
    (host,) = await wire.start()
    database = open_database(
        DatabaseSettings(settings.primary.replace(server.host, host), timeout_s=1.0)
    )
    await make_table(database)

    async def put_and_lose(connection):
        await connection.execute(text("INSERT INTO t VALUES (1)"))
        wire.mute()

    with pytest.raises(OutcomeUnknown):
        await database.write(put_and_lose)
    wire.cut()
    wire.mend()
    assert await numbers(open_database().read) == [1]
    await wire.close()


async def test_reading_goes_to_replicas_while_they_answer(server, open_database, settings):
    wire = Wire([server.host])
    (host,) = await wire.start()
    replica = settings.primary.replace(server.host, host)
    database = open_database(DatabaseSettings(settings.primary, (replica,), timeout_s=1.0))
    await make_table(database)
    await put(database, 1)
    assert database.in_use() == {"database": 0, "database replica 1": 0}
    assert not wire._connections
    assert await numbers(database.read_late) == [1]
    assert wire._connections
    wire.cut()
    for _ in range(5):
        assert await numbers(database.read_late) == [1]
    assert [breaker.state for breaker in database.breakers] == ["closed", "open"]
    await wire.close()


async def test_of_several_hosts_the_one_that_takes_writes_is_used(server, open_database, settings):
    with Postgres() as standby:
        name = settings.primary.rpartition("/")[2]
        standby.sql(f"CREATE DATABASE {name}")
        standby.stop()
        standby.start("-c", "default_transaction_read_only=on")
        hosts = f"{standby.host},{server.host}"
        url = settings.primary.replace(server.host, hosts)
        database = open_database(DatabaseSettings(url, timeout_s=2.0))
        await make_table(database)
        await put(database, 1)
    assert await numbers(open_database().read) == [1]


async def test_connections_are_bounded(open_database, settings, server):
    database = open_database(
        DatabaseSettings(settings.primary, max_open=3, max_idle=2, timeout_s=5.0)
    )
    most = 0

    async def look(connection):
        nonlocal most
        most = max(most, database.in_use()["database"])
        await asyncio.sleep(0.01)

    await asyncio.gather(*(database.read(look) for _ in range(20)))
    assert most == 3
    name = settings.primary.rpartition("/")[2]
    left = server.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'")
    assert int(left) == 2


async def test_a_database_that_cannot_be_used_is_refused(server, open_database, settings):
    name = "ascii"
    server.sql(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0")
    with pytest.raises(DatabaseUnusable, match="UTF8"):
        await migrate(open_database(DatabaseSettings(f"postgresql://ovncp@{server.host}/{name}")))
    database = open_database()
    await migrate(database)
    await database.write(lambda c: c.execute(text("UPDATE ovncp_migration SET version_num = 'x'")))
    with pytest.raises(DatabaseUnusable, match="later version"):
        await migrate(database)


async def test_a_server_that_does_not_let_us_in_is_asked_again(server, open_database):
    database = open_database()
    with (
        server.admitting("host all all all reject"),
        pytest.raises(DatabaseUnavailable, match=r"pg_hba\.conf"),
    ):
        await migrate(database)
    async with asyncio.timeout(20):
        while database.is_away:
            with contextlib.suppress(DatabaseUnavailable):
                await migrate(database)
            await asyncio.sleep(0.05)


async def test_what_it_cannot_do_is_told_and_no_reason_to_leave_it(open_database):
    database = open_database()
    await make_table(database)
    await database.write(lambda c: c.execute(text("CREATE UNIQUE INDEX i ON t (n)")))
    await put(database, 1)
    for _ in range(5):
        with pytest.raises(Conflict):
            await put(database, 1)
        with pytest.raises(BadData):
            await database.read(lambda c: c.execute(text("SELECT :x"), {"x": "nul\0"}))
    assert not database.is_away


def record(n):
    texts = ("principal_id", "principal", "request_id", "address", "action", "resource", "result")
    return dict.fromkeys(texts, "x") | {"at": datetime.now(UTC), "target": f"{n}"}


async def test_the_trail_waits_for_the_database(server, open_database, caplog, monkeypatch):
    monkeypatch.setattr("ovncp.auth.trail._AGAIN_S", 0.1)
    monkeypatch.setattr(module, "_PATIENCE_S", 0.2)
    database = open_database()
    await migrate(database)
    trail = Trail(database)
    task = asyncio.create_task(trail.run())
    await trail.keep([record(1)])
    server.stop()
    for n in (2, 3):
        await trail.keep([record(n)])
    assert trail.n_late == 2
    assert "'target': '2'" in caplog.text, "the log has it meanwhile"
    await asyncio.to_thread(server.start)
    async with asyncio.timeout(20):
        while trail.n_late:
            await asyncio.sleep(0.01)
    await trail.keep([record(4)])
    assert [r["target"] for r in await trail.read(Wanted(), 10)] == ["4", "3", "2", "1"]
    await end([task])


@pytest.mark.parametrize(
    "settings",
    [
        {"primary": "mysql://x/y"},
        {"primary": "sqlite:///x", "replicas": ("postgresql://x/y",)},
        {"primary": "postgresql://x/y", "max_open": 3, "max_idle": 4},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(SettingsError):
        DatabaseSettings(**settings)


def test_passwords_are_not_shown():
    url = postgres_url("h", 1, "d", "u@", "p:/@ss")
    assert url == "postgresql://u%40:p%3A%2F%40ss@h:1/d"
    assert "%40" not in repr(DatabaseSettings(url, (url,)))
