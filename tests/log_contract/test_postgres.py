"""What happens to a log in PostgreSQL when the server restarts, crashes, or is set up unsafely."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import asyncpg
import pytest

from engines import Postgres, make_certificate
from log_contract.faults import load, opened
from ovncp.log import postgres as backend
from ovncp.log.base import Entry, LogError
from ovncp.log.contract.bench import SCHEMA
from ovncp.log.contract.case import entries_from, expected, fill
from ovncp.log.postgres import PostgresLog
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
        later = len(MIGRATIONS) + 1
        await connection.execute("INSERT INTO ovncp.migration VALUES ($1)", later)
        with pytest.raises(LogError, match="later version"):
            await PostgresLog.open(server.url("later"))
        await connection.execute("DELETE FROM ovncp.migration WHERE version = $1", later)
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


async def test_an_append_too_large_for_a_statement_takes_several(server, monkeypatch):
    monkeypatch.setattr(backend, "_PART_BYTES", 1000)
    large = [b'"%d"' % n + b"x" * size for n, size in enumerate((10, 2500, 990, 1, 4000))]
    async with opened(server.url("large")) as log:
        await fill(log, 1)
        await log.append(2, large)
        await log.append(7, [b"y" * 3000])
        wanted = [Entry(i, data) for i, data in enumerate([*large, b"y" * 3000], 2)]
        assert (await entries_from(log, 1))[1:] == wanted
        assert await entries_from(log, 3) == wanted[1:]


async def test_pieces_of_a_snapshot_that_came_to_nothing_are_swept_up(server):
    async with opened(server.url("swept")) as log:
        await fill(log, 2)
        await log.save_snapshot(1, b"{}")
        await log.save_snapshot(2, b"{}")
        connection = await connect(server)
        await connection.execute(
            "INSERT INTO ovncp.piece VALUES ('swept', 'dead', 0, '', now() - interval '2 hours'), "
            "('swept', 'alive', 0, '', now())"
        )
        await log.compact(2)
        left = await connection.fetch("SELECT snapshot FROM ovncp.piece WHERE database = 'swept'")
        assert len(left) == 2 and ("alive",) in left
        assert not await connection.fetchval(
            "SELECT count(*) FROM ovncp.entry WHERE database = 'swept'"
        )
        await connection.close()
    usage_log = await PostgresLog.open(server.url("swept"))
    assert (await usage_log.usage()).used > 1_000_000
    await usage_log.close()


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
