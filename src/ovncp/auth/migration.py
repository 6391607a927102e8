"""The tables of accounts are made what this version wants, by the steps in `migrations`."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from ovncp.auth.database import Database, in_short, is_away
from ovncp.auth.errors import DatabaseUnusable

_LOCK = 0x6F766E61  # "ovna"


async def migrate(database: Database) -> None:
    """Make the tables; nodes that start together take turns.

    Raises DatabaseUnavailable, OutcomeUnknown, DatabaseUnusable.
    """
    await database.write(_make_tables)


async def _make_tables(connection: AsyncConnection) -> None:
    if connection.dialect.name == "postgresql":
        encoding = await connection.scalar(text("SHOW server_encoding"))
        if encoding != "UTF8":
            raise DatabaseUnusable(f"the database's encoding is {encoding}, and has to be UTF8")
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    try:
        await connection.run_sync(_upgrade)
    except CommandError as error:
        raise DatabaseUnusable(f"the tables are of a later version: {error}") from error
    except DBAPIError as error:
        if is_away(error):
            raise
        raise DatabaseUnusable(f"the tables cannot be made: {in_short(error)}") from error


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "ovncp.auth:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
