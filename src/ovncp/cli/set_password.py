"""`ovncp api set-password`: another password for a user, such as the first one who lost theirs.

It works on the database of accounts itself, so it takes what may read that, and no node.
"""

import asyncio
import getpass
import os
import pwd
import socket
import sys
import uuid
from collections.abc import Sequence

from sqlalchemy import Connection, inspect

from ovncp.api import audit
from ovncp.api.audit import Record
from ovncp.auth.database import Database
from ovncp.auth.errors import DatabaseUnavailable, OutcomeUnknown, Refused
from ovncp.auth.passwords import Passwords, new_password
from ovncp.auth.principal import Principal, Role
from ovncp.auth.schema import USER
from ovncp.auth.settings import DatabaseSettings
from ovncp.auth.trail import Trail
from ovncp.auth.users import User, Users
from ovncp.cli import api, options, parts
from ovncp.cli.config import ConfigError
from ovncp.cli.options import Option, OptionError, Parsed
from ovncp.cluster.background import end
from ovncp.cluster.settings import SettingsError
from ovncp.ops.refusal import Refusal

PROGRAM = "ovncp api set-password"
STDIN = "stdin"
TABLE = (
    api.FILE_OPTION,
    Option(STDIN, help="take the password from standard input, in place of one that is made up"),
    options.GENERAL_OPTIONS[0],
)


def usage() -> str:
    """The text of --help."""
    head = (
        f"usage: {PROGRAM} [OPTION...] USER\n"
        "Gives a user another password, which is printed this once, and logs them out everywhere.\n"
        "The database is the one that `ovncp api` would use here: DATABASE_URL, or config.yaml.\n"
    )
    return head + options.describe("Options", TABLE)


def main(argv: Sequence[str]) -> int:
    """Set the password; `argv` is without the verbs. Returns the exit status."""
    try:
        parsed = options.parse(argv, TABLE)
        if parsed.has("help"):
            print(usage(), end="")
            return 0
        name = _name(parsed)
        settings = _settings(parsed)
        password = _read() if parsed.has(STDIN) else new_password()
        user = asyncio.run(set_password(settings, name, password))
    except OutcomeUnknown as error:
        print(f"{PROGRAM}: {error}: try again", file=sys.stderr)
        return 1
    except (
        OptionError,
        ConfigError,
        SettingsError,
        Refusal,
        Refused,
        DatabaseUnavailable,
        OSError,
    ) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    which = "the password that was given" if parsed.has(STDIN) else f"the password {password}"
    print(f"The user {user.name} has {which}")
    if not user.is_active:
        print(f"{PROGRAM}: {user.name} is not active, and cannot log in", file=sys.stderr)
    return 0


def _name(parsed: Parsed) -> str:
    if len(parsed.arguments) != 1:
        raise OptionError("one user is wanted; --help says more")
    return parsed.arguments[0]


def _settings(parsed: Parsed) -> DatabaseSettings:
    """Where the accounts are. Raises ConfigError, SettingsError, Refusal."""
    loaded = api.load(parsed._replace(arguments=[]))
    settings = parts.database_settings(loaded.config)
    file = settings.sqlite_file
    if file is not None and not file.exists():
        raise Refusal(f"there are no accounts: no {file.absolute()}, and no DATABASE_URL")
    return settings


def _read() -> str:
    """The password that somebody types, or has a program write."""
    if sys.stdin.isatty():
        return getpass.getpass("New password: ")
    return sys.stdin.readline().rstrip("\r\n")


async def set_password(settings: DatabaseSettings, name: str, password: str) -> User:
    """Give the user `name` that password, end their logins, and tell the audit trail of it.

    Raises Refused, Refusal, DatabaseUnavailable, OutcomeUnknown.
    """
    database = Database(settings)
    trail = Trail(database)
    keeping = asyncio.create_task(trail.run())
    try:
        if not await database.read(lambda c: c.run_sync(_has_users)):
            raise Refusal("the database has no accounts: no node was started with it yet")
        users = Users(database, Passwords())
        before, after = await users.change(name, {"password": password})
        await trail.keep([audit.fields(_record(before, after))])
        return after
    finally:
        await end([keeping])
        await database.close()


def _has_users(connection: Connection) -> bool:
    return inspect(connection).has_table(USER.name)


def _record(before: User, after: User) -> Record:
    # No user of the platform can have a name with a colon.
    me = Principal("console", f"console:{_account()}", Role.ADMIN)
    return Record(
        me,
        uuid.uuid4().hex,
        socket.gethostname(),
        "change",
        "users",
        after.id,
        audit.shown(before),
        audit.shown(after),
        audit.DONE,
    )


def _account() -> str:
    """Whose this process is, whatever the environment says."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
