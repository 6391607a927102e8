"""A standalone database file as a whole, worked on while no server has it (ovsdb-tool(1)).

Reading takes no lock, so that it may be done beside a running server; writing takes it. Either
wants the file to be whole: a torn or damaged record is an error here, since a tool that cut it off
would hide from its user what a server warns of. Errors are OvsdbError with the C server's words.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import orjson

from ovncp.log import lockfile, standalone
from ovncp.log.base import Locked, LogError
from ovncp.log.logfile import LogFile
from ovncp.log.record import STANDALONE, Record
from ovncp.log.rewrite import rewrite
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.wire.json_stream import JsonError, parse

if TYPE_CHECKING:
    # An execution engine takes a while to import, and most verbs only look at the schema.
    from ovncp.ovsdb.database import Database

UuidSource = Callable[[], str]


@contextlib.contextmanager
def log_errors() -> Iterator[None]:
    """Turn the errors of the log into those of the database."""
    try:
        yield
    except LogError as error:
        raise OvsdbError(error.tag, error.details, io_error=error.io_error) from error


def is_standalone(path: str) -> bool:
    """Whether the database file `path` is a standalone one; the others are clustered."""
    with log_errors():
        return standalone.magic(path) == STANDALONE


def records(path: str) -> Iterator[Any]:
    """The JSON values in the file `path`: its schema, then its transactions."""
    with log_errors():
        for record in standalone.read_records(path):
            yield parse_record(path, record)


def parse_record(path: str, record: Record) -> Any:
    """The JSON object in `record` of the file `path`. Raises OvsdbError."""
    where = f"{path}: {record.end - record.start} bytes starting at offset {record.start}"
    try:
        json = parse(record.data)
    except JsonError as error:
        raise OvsdbError("syntax error", f"{where} are not valid JSON ({error})") from error
    if type(json) is not dict:
        raise OvsdbError("syntax error", f"{where} are not a JSON object")
    return json


def read_schema(path: str) -> DatabaseSchema:
    """The schema in the database file `path`."""
    return DatabaseSchema.from_json(next(records(path)))


def read_name(path: str) -> str:
    """The name of the database in the file `path`, which may be a clustered one too."""
    if is_standalone(path):
        return read_schema(path).name
    from ovncp.ops import raft_file

    return raft_file.read_header(path).name


def read(path: str, new_uuid: UuidSource, schema: DatabaseSchema | None = None) -> "Database":
    """The database in the file `path`; with `schema`, what fits of it in place of its own."""
    from ovncp.ovsdb.database import Database

    with log_errors():
        stored = standalone.read_records(path)
        own = DatabaseSchema.from_json(parse_record(path, next(stored)))
        database = Database(schema or own, new_uuid)
        for record in stored:
            json = parse_record(path, record)
            database.replay(json, record.data, converting=schema is not None)
    return database


def create(path: str, schema: DatabaseSchema) -> None:
    """Make the file `path`, of an empty database."""
    with log_errors():
        standalone.create(path, _schema_data(schema))


def _schema_data(schema: DatabaseSchema) -> bytes:
    return orjson.dumps(schema.to_json())


@contextlib.contextmanager
def open_to_write(path: str) -> Iterator[LogFile]:
    """The file `path`, locked; it may be read while it is open, and does not change meanwhile."""
    with log_errors():
        log = LogFile(path, strict=True)
        try:
            yield log
        finally:
            log.close()


def compact(
    path: str, target: str | None, comment: str, new_uuid: UuidSource, now_msec: int
) -> None:
    """Replace the transactions of `path` by one, in place or in the new file `target`."""
    with _locked(path, target) as (source, log):
        database = read(source, new_uuid)
        rows = snapshot(database, comment, now_msec)
        if log is not None:
            rewrite(log, log.next_index - 1, rows)
        else:
            _create_copy(target or "", database, rows)


def convert(
    path: str,
    target: str | None,
    schema: DatabaseSchema,
    comment: str,
    new_uuid: UuidSource,
    now_msec: int,
) -> None:
    """Give `path` another schema, in place or in the new file `target`, keeping what fits."""
    with _locked(path, target) as (source, log):
        database = read(source, new_uuid, schema)
        rows = snapshot(database, comment, now_msec)
        if log is not None:
            rewrite(log, log.next_index, rows, _schema_data(schema))
        else:
            _create_copy(target or "", database, rows)


def _create_copy(target: str, database: "Database", rows: Iterator[bytes]) -> None:
    standalone.create(target, _schema_data(database.schema), [b"".join(rows)])


@contextlib.contextmanager
def _locked(path: str, target: str | None) -> Iterator[tuple[str, LogFile | None]]:
    """The name of the source, and its log if it is to be replaced."""
    source = lockfile.follow_symlinks(path)
    try:
        lockfile.lock(source if target is None else target).release()
    except Locked as error:
        raise Refusal(f"{error.details} ({error.io_error})") from error
    if target is None:
        with open_to_write(source) as log:
            yield source, log
    else:
        with log_errors():
            yield source, None


def snapshot(database: "Database", comment: str, date_msec: int) -> Iterator[bytes]:
    """The JSON text, in pieces, of a transaction that inserts every row of `database`."""
    from ovncp.ovsdb import snapshot_entry

    content = snapshot_entry.rows_of(database.tables.values())
    return snapshot_entry.encode(content, comment, date_msec, is_diff=False)
