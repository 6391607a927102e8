"""A "transact" request executed on a database file with no server (ovsdb-tool(1), "query")."""

from typing import Any

from ovncp.log.base import LogError
from ovncp.ops import database_file
from ovncp.ops.database_file import UuidSource
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.database import Database, Outcome
from ovncp.ovsdb.errors import OvsdbError, syntax_error
from ovncp.wire.json_stream import JsonError, parse


class User:
    """Who runs the tool, as `ovsdb.database.Client`: may do everything unless given a `role`."""

    read_only = False
    identity = None

    def __init__(self, role: str = "") -> None:
        self.role = role

    def owns_lock(self, name: str) -> bool:
        """Locks belong to the sessions of a server."""
        return False


def query(path: str, request: str, user: User, new_uuid: UuidSource, now_msec: int) -> Any:
    """The result of `request`, JSON text, on the database file `path`, which stays as it is.

    Raises OvsdbError for a file that cannot be read, and Refusal for a request that is not JSON.
    """
    database = database_file.read(path, new_uuid)
    return _execute(database, request, user, now_msec).results


def transact(path: str, request: str, user: User, new_uuid: UuidSource, now_msec: int) -> Any:
    """As `query`, but the changes are durable in the file when this returns."""
    with database_file.open_to_write(path) as log:
        outcome = _execute(database_file.read(path, new_uuid), request, user, now_msec)
        if outcome.commit is not None and outcome.commit.data is not None:
            try:
                log.append(log.next_index, [outcome.commit.data])
            except LogError as error:
                failure = OvsdbError(error.tag, error.details, io_error=error.io_error)
                outcome.results.append(failure.to_json())
    return outcome.results


def _execute(database: Database, text: str, user: User, now_msec: int) -> Outcome:
    try:
        request = parse(text)
    except JsonError as error:
        raise Refusal(f'"{text}": {error}') from error
    try:
        operations = _operations(database, request)
    except OvsdbError as error:
        return Outcome(error.to_json())
    return database.transact(operations, user, now_msec=now_msec, may_wait=False)


def _operations(database: Database, request: Any) -> list[Any]:
    if type(request) is not list:
        raise syntax_error(request, "array expected")
    if not request or request[0] != database.name:
        raise syntax_error(request, "database name expected as first parameter")
    return request[1:]
