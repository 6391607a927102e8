"""Databases of users, of both kinds."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from engines import Postgres
from everybody import quick_passwords
from ovncp.auth.accounts import Accounts
from ovncp.auth.settings import AuthSettings, DatabaseSettings
from ovncp.cluster.memory import Memory, MemoryStore
from ovncp.cluster.node import Node
from ovncp.cluster.settings import ClusterSettings

KINDS = ("sqlite", "postgresql")

PASSWORD = "correct horse battery"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server that no test here may harm, and that need not outlive a crash."""
    with Postgres() as server:
        server.stop()
        server.start("-c", "fsync=off", "-c", "full_page_writes=off")
        yield server


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Either kind in turn."""
    return request.param


@pytest.fixture
def database_settings(
    kind: str, new_database: Callable[[str], DatabaseSettings]
) -> DatabaseSettings:
    """A new database."""
    return new_database(kind)


@pytest.fixture(scope="session")
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], DatabaseSettings]:
    """Makes a database of a kind."""

    def new(kind: str) -> DatabaseSettings:
        if kind == "sqlite":
            return DatabaseSettings(f"sqlite:///{tmp_path_factory.mktemp('users')}/users.db")
        return DatabaseSettings(_new_postgres_database(request.getfixturevalue("postgres")))

    return new


def _new_postgres_database(server: Postgres) -> str:
    """The URL of a database of its own on a server."""
    name = f"auth_{secrets.token_hex(4)}"
    server.sql(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    return f"postgresql://ovncp@{server.host}/{name}"


@pytest.fixture
async def open_accounts(database_settings: DatabaseSettings) -> AsyncIterator[Callable]:
    """Opens the accounts of a further node, over one database; `said` has what they announced."""
    memory = Memory()
    async with AsyncExitStack() as stack:

        async def open_one(**settings) -> Accounts:
            node = Node(ClusterSettings(secrets.token_hex(4)), MemoryStore(memory), "1.0")
            said: list[str] = []
            accounts = Accounts(
                AuthSettings(database_settings, **settings), node, said.append, quick_passwords()
            )
            accounts.said = said
            accounts.node = node
            await accounts.prepare()
            await accounts.start()
            stack.push_async_callback(accounts.close)
            return accounts

        yield open_one


@pytest.fixture
async def accounts(open_accounts: Callable) -> Accounts:
    """Those of one node."""
    return await open_accounts()
