"""What happens to a log in PostgreSQL when the server restarts, crashes, or is set up unsafely."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import asyncpg
import pytest

from engines import Postgres, make_certificate
from log_contract.faults import load, opened
from ovncp.log.base import LeaseLost, LogError
from ovncp.log.contract.bench import SCHEMA
from ovncp.log.contract.case import entries_from, expected, fill, text
from ovncp.log.location import Location
from ovncp.log.postgres import PostgresLog
from ovncp.log.postgres_client import Line
from ovncp.log.postgres_schema import MIGRATIONS


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server for these tests to harm; each leaves it whole."""
    with Postgres() as server:
        yield server


async def connect(server: Postgres) -> asyncpg.Connection:
    return await asyncpg.connect(f"postgresql://ovncp@{server.host}/postgres")


async def test_first_openers_make_the_tables_together(server):
    await asyncio.gather(*(PostgresLog.create(server.url(f"first_{i}"), SCHEMA) for i in range(5)))
    with pytest.raises(LogError, match="exists already"):
        await PostgresLog.create(server.url("first_0"), SCHEMA)
    with pytest.raises(LogError, match="no such database"):
        await PostgresLog.open(server.url("never_made"))
    await PostgresLog.drop(server.url("first_0"))
    with pytest.raises(LogError, match="no such database"):
        await PostgresLog.open(server.url("first_0"))


async def test_tables_of_a_later_version_are_left_alone(server):
    async with opened(server.url("later")):
        connection = await connect(server)
        later = max(MIGRATIONS) + 1
        await connection.execute("INSERT INTO ovncp.migration VALUES ($1)", later)
        with pytest.raises(LogError, match="later version"):
            await PostgresLog.open(server.url("later"))
        await connection.execute("DELETE FROM ovncp.migration WHERE version = $1", later)
        await connection.close()


async def test_tables_of_before_the_first_release_are_left_alone(server):
    async with opened(server.url("earlier")):
        connection = await connect(server)
        await connection.execute("DELETE FROM ovncp.migration")
        await connection.execute("INSERT INTO ovncp.migration (version) VALUES (3)")
        with pytest.raises(LogError, match="version 3, made before the first release"):
            await PostgresLog.open(server.url("earlier"))
        await connection.execute("DELETE FROM ovncp.migration")
        versions = [(version,) for version in MIGRATIONS]
        await connection.executemany("INSERT INTO ovncp.migration (version) VALUES ($1)", versions)
        await connection.close()


@pytest.mark.parametrize("fault", ["restart", "crash", "backend killed"])
async def test_a_server_that_goes_and_comes_costs_no_entry(server, fault):
    async with load(server.url(fault.replace(" ", "_"))):
        if fault == "backend killed":
            server.kill_backend()
        else:
            server.stop(signal.SIGINT if fault == "restart" else signal.SIGQUIT)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.start)


async def test_a_commit_is_durable_whatever_the_default(server):
    server.stop()
    server.start("-c", "synchronous_commit=off")
    async with opened(server.url("durable")) as log:
        await fill(log, 1)
        connection = await connect(server)
        lost = "SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()"
        await fill(log, 1)
        assert not await connection.fetchval(lost)
        await connection.close()
    server.stop()
    server.start("-c", "fsync=off")
    with pytest.raises(LogError, match="fsync"):
        await PostgresLog.open(server.url("durable"))
    server.stop()
    server.start()
    reopened = await PostgresLog.open(server.url("durable"))
    assert await entries_from(reopened, 1) == expected(1, 2)
    await reopened.close()


async def test_reading_the_end_is_no_scan_of_all_even_if_planned_on_an_empty_table():
    with Postgres() as fresh:
        async with opened(fresh.url("end")) as log:
            await fill(log, 1)
            assert await entries_from(log, 1) == expected(1, 1)
            await fill(log, 300)
            before = await n_looked_at(log)
            assert await entries_from(log, 301) == expected(301, 301)
            assert await n_looked_at(log) < before + 20


async def test_what_others_append_is_at_hand_once_it_is_heard_of(server):
    url = server.url("at_hand")
    async with opened(url) as log:
        other = await PostgresLog.open(url)
        try:
            # From here on it listens.
            await fill(log, 1)
            await other.grown(1)
            await fill(log, 3)
            await other.grown(4)
            before = await n_looked_at(other)
            read = [entry async for batch in other.read_known(2) for entry in batch]
            assert read == expected(2, 4)
            assert await n_looked_at(other) == before
        finally:
            await other.close()


async def n_looked_at(log: PostgresLog) -> int:
    """How many entries of indexes were read in search of batches, by the one that reads too."""
    await log._reader.fetch("SELECT pg_stat_force_next_flush()")
    index = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'batch_pkey'"
    return (await log._reader.fetch(index))[0][0]


async def test_pieces_that_came_to_nothing_are_swept_up(server):
    async with opened(server.url("swept")) as log:
        large = [b'"%s"' % (b"x" * 3_000_000), text(2)]
        await log.append(1, large)
        await log.append(3, [text(3)])
        await log.save_snapshot(1, b"{}")
        connection = await connect(server)
        await connection.execute(
            "UPDATE ovncp.piece SET staged = now() - interval '2 hours' WHERE database = 'swept'; "
            "INSERT INTO ovncp.piece VALUES "
            "('swept', 'dead', 0, '', now() - interval '2 hours'), ('swept', 'alive', 0, '', now())"
        )
        await log.compact(1)
        assert await pieces(connection, "swept") == {"batch": 3, "snapshot": 1, "alive": 1}
        assert (await entries_from(log, 2))[0].data == large[1]
        await log.save_snapshot(3, b"{}")
        await log.compact(3)
        assert await pieces(connection, "swept") == {"snapshot": 1, "alive": 1}
        n_batches = "SELECT count(*) FROM ovncp.batch WHERE database = 'swept'"
        assert await connection.fetchval(n_batches) == 0
        await connection.close()
        assert (await log.usage()).used > 1_000_000


async def pieces(connection: asyncpg.Connection, database: str) -> dict[str, int]:
    """How many pieces there are, by what they belong to, or by the stage if to nothing."""
    rows = await connection.fetch(
        """
        SELECT CASE WHEN stage IN (SELECT stage FROM ovncp.snapshot) THEN 'snapshot'
            WHEN stage IN (SELECT stage FROM ovncp.batch) THEN 'batch' ELSE stage END AS owner,
            count(*)
        FROM ovncp.piece WHERE database = $1 GROUP BY owner
        """,
        database,
    )
    return {row["owner"]: row["count"] for row in rows}


async def test_a_large_batch_whose_pieces_are_gone_is_not_appended(server, monkeypatch):
    async with opened(server.url("gone")) as log:
        connection = await connect(server)
        propose = PostgresLog._propose

        async def propose_late(log, *arguments):
            await connection.execute("DELETE FROM ovncp.piece WHERE database = 'gone'")
            return await propose(log, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(PostgresLog, "_propose", propose_late)
            with pytest.raises(LogError, match="deleted meanwhile"):
                await log.append(1, [b'"%s"' % (b"x" * 3_000_000)])
        await connection.close()
        await fill(log, 1)
        assert await entries_from(log, 1) == expected(1, 1)


async def test_a_guard_is_held_until_the_append_is_over(server):
    """Whoever seizes it waits for an append that has begun with it, however long that takes."""
    async with opened(server.url("guard")) as log:
        thief = await PostgresLog.open(server.url("guard"))
        lease = await log.acquire("a", 60_000)
        connection = await connect(server)
        blocking = connection.transaction()
        await blocking.start()
        await connection.execute("SELECT FROM ovncp.head WHERE database = 'guard' FOR UPDATE")

        async def steal():
            await thief.seize("a", 60_000)
            return await entries_from(thief, 1)

        append = asyncio.create_task(log.append(1, [text(1)], [lease]))
        await until_waiting(connection, 1)
        theft = asyncio.create_task(steal())
        await until_waiting(connection, 2)
        await blocking.rollback()
        assert await theft == expected(1, 1)
        await append
        with pytest.raises(LeaseLost):
            await log.append(2, [text(2)], [lease])
        await connection.close()
        await thief.close()


async def until_waiting(connection: asyncpg.Connection, count: int) -> None:
    """Return when so many wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with asyncio.timeout(20):
        while await connection.fetchval(waiting) != count:
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0.01)


async def test_what_is_notified_while_nobody_listens_is_heard_later(server):
    line = Line(Location.parse(server.url("heard")))
    listening = line.listen()
    assert await anext(listening) == []
    connection = await connect(server)
    heard = []
    for notification in ("a", "b", "c"):
        await connection.execute("SELECT pg_notify('ovncp', $1)", notification)
        heard += await anext(listening)
        await connection.execute("SELECT pg_notify('ovncp', $1)", notification.upper())
        await line._connection.execute("SELECT 'and what came before'")
    heard += await anext(listening)
    assert heard == list("aAbBcC")
    line.drop()
    await connection.close()


async def test_notifications_that_others_make_up_do_no_harm(server):
    async with opened(server.url("woken")) as log:
        other = await PostgresLog.open(server.url("woken"))
        connection = await connect(server)
        later = log._head.version + 1000
        for notification in (
            "",
            "log",
            "1",
            '["log"]',
            '["log","woken"]',
            '[["log"],"woken"]',
            '["log","woken","x"]',
            f'["log","woken",{later}]',
            f'["log","wo ken",{later}]',
        ):
            await connection.execute("SELECT pg_notify('ovncp', $1)", notification)
        await other.append(1, [text(1)])
        await log.grown(1)
        await log.append(2, [text(2)])
        assert await entries_from(other, 1) == expected(1, 2)
        await connection.close()
        await other.close()


async def test_a_password_is_asked_for_and_never_shown(server):
    connection = await connect(server)
    await connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    await connection.close()
    with server.admitting("host all all 127.0.0.1/32 scram-sha-256"):
        place = server.url("guarded").partition("@")[2]
        for user in ("guarded:wrong", "guarded"):
            with pytest.raises(LogError) as refused:
                await PostgresLog.open(f"postgresql://{user}@{place}")
            assert "wrong" not in str(refused.value)
        with pytest.raises(LogError, match=r"no such database|permission denied"):
            await PostgresLog.open(f"postgresql://guarded:right@{place}")


async def test_tls(server, tmp_path):
    certificate = make_certificate(tmp_path)
    server.stop()
    server.start(*server.use_certificate(certificate))
    safe = {"sslmode": "verify-full", "sslrootcert": certificate.ca}
    with server.admitting("hostssl all all 127.0.0.1/32 trust"):
        async with opened(server.url("tls", **safe)) as log:
            await fill(log, 2)
            assert await entries_from(log, 1) == expected(1, 2)
        with pytest.raises(LogError):
            await PostgresLog.open(server.url("tls", sslmode="disable"))
