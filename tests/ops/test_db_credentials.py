"""`backup`, `restore` and `recover` where engines want certificates, users and passwords.

And where what is left is a PostgreSQL's standby, that runs or not.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from engines import EtcdCluster, Postgres, PostgresStandby, make_certificate
from ops.conftest import Command
from ops.test_db_recover import NAME, create, member_folder, numbers_in, write
from servers import Server

PASSWORD = "a b/%"
QUOTED = "a%20b%2F%25"


@contextmanager
def served(url: str) -> Iterator[Server]:
    with Server("ovncp", options=[url]) as server:
        yield server


@pytest.fixture
def guarded_etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    """One member that wants TLS on both sides, and a user with a password."""
    with EtcdCluster(1, tls=make_certificate(tmp_path)) as etcd:
        for command in (
            ("user", "add", "root:root"),
            ("user", "grant-role", "root", "root"),
            ("role", "add", "ovn"),
            ("role", "grant-permission", "ovn", "--prefix=true", "readwrite", "test/"),
            ("user", "add", f"owner:{PASSWORD}"),
            ("user", "grant-role", "owner", "ovn"),
            ("auth", "enable"),
        ):
            etcd.ctl(*command)
        yield etcd


@pytest.fixture
def guarded_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """One that wants TLS, and a user with a password."""
    certificate = make_certificate(tmp_path)
    with Postgres() as postgres:
        asyncio.run(make_role(postgres))
        postgres.stop()
        postgres.start(*postgres.use_certificate(certificate))
        with postgres.admitting("hostssl all owner 127.0.0.1/32 scram-sha-256"):
            yield postgres


async def make_role(postgres: Postgres) -> None:
    connection = await asyncpg.connect(f"postgresql://ovncp@{postgres.host}/postgres")
    await connection.execute(f"CREATE ROLE owner LOGIN PASSWORD '{PASSWORD}'")
    await connection.execute("GRANT CREATE ON DATABASE postgres TO owner")
    await connection.close()


def etcd_url(etcd: EtcdCluster, database: str, password: str = QUOTED) -> str:
    return etcd.url(database).replace("etcds://", f"etcds://owner:{password}@")


def postgres_url(postgres: Postgres, tmp_path: Path, database: str, password: str = QUOTED) -> str:
    url = postgres.url(database, sslmode="verify-full", sslrootcert=tmp_path / "cert.pem")
    return url.replace("ovncp@", f"owner:{password}@")


def check_backup_and_restore(db: Command, first: str, second: str, wrong: str) -> None:
    """Back `first` up, and restore that at `second`; at `wrong`, the password is wrong."""
    create(db, first)
    with served(first) as server:
        write(server.client(), range(10))
        backed_up = db.well("backup", first, "first.backup.zip")
        write(server.client(), range(10, 20))
    restored = db.well("restore", "first.backup.zip", second)
    assert numbers_in(db, second) == list(range(10))
    db.well("restore", "first.backup.zip", second, "--replace")
    assert QUOTED not in backed_up.output + restored.output
    refused = db("backup", wrong, "wrong.backup.zip")
    assert refused.status == 2 and "secret" not in refused.error


def test_etcd_with_tls_and_a_password(guarded_etcd: EtcdCluster, db: Command) -> None:
    lost = etcd_url(guarded_etcd, NAME)
    wrong = etcd_url(guarded_etcd, NAME, "secret")
    check_backup_and_restore(db, lost, etcd_url(guarded_etcd, "Second"), wrong)
    third = etcd_url(guarded_etcd, "Third")
    recovered = db.well("recover", third, lost, f"--lost={lost}", "--work=other", "--yes")
    assert numbers_in(db, third) == list(range(20))
    assert QUOTED not in recovered.output
    guarded_etcd.kill(0)
    db.well("recover", "new.db", member_folder(guarded_etcd, 0), f"--lost={lost}", "--yes")
    assert numbers_in(db, "new.db") == list(range(20))
    assert QUOTED not in (db.directory / "recovery" / "recovery.json").read_text()


def test_the_data_of_an_etcd_with_users_and_no_password(
    guarded_etcd: EtcdCluster, db: Command
) -> None:
    url = etcd_url(guarded_etcd, NAME)
    create(db, url)
    guarded_etcd.kill(0)
    lost = url.replace(f"owner:{QUOTED}@", "")
    refused = db("recover", "new.db", member_folder(guarded_etcd, 0), f"--lost={lost}", "--yes")
    assert refused.status == 2 and "user name is empty" in refused.error


def test_postgresql_with_tls_and_a_password(
    guarded_postgres: Postgres, db: Command, tmp_path: Path
) -> None:
    lost = postgres_url(guarded_postgres, tmp_path, NAME)
    wrong = postgres_url(guarded_postgres, tmp_path, NAME, "secret")
    check_backup_and_restore(db, lost, postgres_url(guarded_postgres, tmp_path, "Second"), wrong)
    guarded_postgres.stop(signal.SIGQUIT)
    done = db.well("recover", "new.db", guarded_postgres.data, f"--lost={lost}", "--yes")
    assert numbers_in(db, "new.db") == list(range(20))
    assert QUOTED not in done.output
    guarded_postgres.start(*guarded_postgres.use_certificate(make_certificate(tmp_path)))


async def set_up(postgres: Postgres, *settings: str) -> None:
    connection = await asyncpg.connect(f"postgresql://ovncp@{postgres.host}/postgres")
    for setting in settings:
        await connection.execute(f"ALTER SYSTEM SET {setting}")
    await connection.close()


async def wait_until_replayed(primary: Postgres, standby: Postgres) -> None:
    """Return when the standby has all that the primary has."""
    one = await asyncpg.connect(f"postgresql://ovncp@{primary.host}/postgres")
    other = await asyncpg.connect(f"postgresql://ovncp@{standby.host}/postgres")
    end = await one.fetchval("SELECT pg_current_wal_insert_lsn()")
    async with asyncio.timeout(60):
        while not await other.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", end):
            await asyncio.sleep(0.05)
    await one.close()
    await other.close()


def test_what_the_standby_of_a_postgresql_has(db: Command) -> None:
    with Postgres() as primary:
        # What a primary waits for, and how it is reached, is not to be so on a copy.
        asyncio.run(set_up(primary, "archive_command = 'false'", "listen_addresses = '127.0.0.9'"))
        url = primary.url(NAME)
        create(db, url)
        with PostgresStandby(primary) as standby:
            with served(url) as server:
                write(server.client(), range(20))
                asyncio.run(wait_until_replayed(primary, standby))
                primary.stop(signal.SIGQUIT)
            sources = (standby.url(NAME, timeout_ms=20_000), standby.data)
            refused = db("recover", "new.db", *sources, f"--lost={url}", "--work=w", "--yes")
            assert "takes no writes, as a standby" in refused.error
            assert "PostgreSQL runs on it" in refused.error
            standby.stop(signal.SIGQUIT)
            shutil.rmtree(primary.data)
            db.well("recover", "new.db", standby.data, f"--lost={url}", "--yes")
            assert numbers_in(db, "new.db") == list(range(20))
            assert (standby.data / "standby.signal").exists()
