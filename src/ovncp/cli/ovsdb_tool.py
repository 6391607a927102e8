"""`ovncp ovsdb-tool`: the command line of ovsdb-tool(1).

Its verbs are a table, as `list-commands` prints it. Scripts call the tool many times over, so each
verb imports what it needs when it runs.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn

from ovncp.cli import options, version
from ovncp.cli.options import Argument, Option, OptionError
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.errors import UNKNOWN_TAG, OvsdbError
from ovncp.server import dirs

if TYPE_CHECKING:
    from ovncp.ops.database_file import UuidSource
    from ovncp.ops.raft_record import Header
    from ovncp.ovsdb.schema import DatabaseSchema
    from ovncp.server.vlog import Vlog

PROGRAM = "ovsdb-tool"

# Of compare-versions and the tests of a file's kind; 1 is for errors.
FALSE_STATUS = 2
# Of db-cid, while the server has not joined its cluster.
UNKNOWN_STATUS = 2

_ELECTION_TIMERS_MSEC = range(100, 600_001)

TOOL_OPTIONS = (
    Option("more", short="m", help="increase show-log verbosity"),
    Option("rbac-role", Argument.REQUIRED, metavar="ROLE", help="RBAC role for transact and query"),
    Option("cid", Argument.REQUIRED, metavar="UUID", help="the cluster for join-cluster"),
    Option("election-timer", Argument.REQUIRED, metavar="MS", help="for create-cluster"),
    Option("option", short="o", help="list the options, one on each line"),
)
TABLE = (
    *TOOL_OPTIONS,
    *options.VLOG_OPTIONS,
    *options.GENERAL_OPTIONS,
)


class Call(NamedTuple):
    """One run of a verb: its arguments, and the options that verbs look at."""

    arguments: list[str]
    verbosity: int
    role: str
    cluster_id: str | None
    election_timer_msec: int

    def argument(self, place: int, default: Callable[[], str]) -> str:
        """The argument at `place`, or the default where there is none."""
        return self.arguments[place] if len(self.arguments) > place else default()

    def target(self, place: int) -> str | None:
        """The name of the file to write at `place`; None is in place."""
        return self.arguments[place] if len(self.arguments) > place else None


def default_db() -> str:
    """The database that is meant when none is named."""
    return f"{dirs.dbdir()}/conf.db"


def default_schema() -> str:
    """The schema that is meant when none is named."""
    return f"{dirs.pkgdatadir()}/vswitch.ovsschema"


def main(argv: Sequence[str]) -> int:
    """Run one verb; `argv` is without the program's name. Returns the exit status."""
    try:
        status = _run(argv)
        sys.stdout.flush()
    except (OptionError, OvsdbError, Refusal) as error:
        sys.stdout.flush()
        _put(f"{PROGRAM}: {error}\n", sys.stderr.buffer)
        return 1
    except BrokenPipeError:
        # Whoever reads has seen enough. Python would try to flush once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _run(argv: Sequence[str]) -> int:
    log = _LazyLog()
    parsed = options.parse(argv, TABLE, {**log.hooks(), **_TEXT_HOOKS})
    if not parsed.arguments:
        raise OptionError("missing command name; use --help for help")
    name, *arguments = parsed.arguments
    command = COMMANDS.get(name)
    if command is None:
        raise OptionError(f"unknown command '{name}'; use --help for help")
    command.check(name, len(arguments))
    if command.writes:
        log.install()
    verbosity = sum(option == "more" for option, _ in parsed.options)
    call = Call(
        arguments,
        verbosity,
        parsed.last("rbac-role") or "",
        _cluster_id(parsed.last("cid")),
        _election_timer(parsed.last("election-timer")),
    )
    return command.run(call) or 0


def _cluster_id(text: str | None) -> str | None:
    if text is None:
        return None
    from ovncp.ovsdb.atom import uuid_from_string

    uuid = uuid_from_string(text)
    if uuid is None or not uuid.strip("0-"):
        raise Refusal(f"{text}: not a valid UUID")
    return uuid


def _election_timer(text: str | None) -> int:
    """In milliseconds, 0 where none is given."""
    if text is None:
        return 0
    if not text.isdecimal() or int(text) not in _ELECTION_TIMERS_MSEC:
        limits = f"{_ELECTION_TIMERS_MSEC.start} and {_ELECTION_TIMERS_MSEC.stop - 1}"
        message = f"election timer must be between {limits}, in msec."
        raise OvsdbError(UNKNOWN_TAG, message)
    return int(text)


def _put(text: str, stream: BinaryIO | None = None) -> None:
    """Print `text`, whose lone surrogates stand for bytes that are not UTF-8."""
    (stream or sys.stdout.buffer).write(text.encode("utf-8", "surrogateescape"))


class _LazyLog:
    """The log of the process, which most runs do without."""

    def __init__(self) -> None:
        self._log: Vlog | None = None

    def install(self) -> "Vlog":
        """Log from now on: what keeps a file from being locked is said there."""
        from ovncp.server import vlog

        if self._log is None:
            self._log = vlog.install(PROGRAM)
        return self._log

    def hooks(self) -> dict[str, options.Hook]:
        """What each of VLOG_OPTIONS does."""
        return {row.name: partial(self._obey, row.name) for row in options.VLOG_OPTIONS}

    def _obey(self, option: str, value: str | None) -> None:
        from ovncp.server.syslog import SpecError

        try:
            self.install().hooks()[option](value)
        except SpecError as error:
            raise OptionError(str(error)) from error


# Texts


def usage() -> str:
    """The text of --help."""
    lines = [
        f"{PROGRAM}: Open vSwitch database management utility\n",
        f"usage: {PROGRAM} [OPTIONS] COMMAND [ARG...]\n",
        *(
            f"  {f'{name} {command.usage.upper()}':<29} {command.help}\n"
            for name, command in COMMANDS.items()
            if command.help
        ),
        f"The default DB is {default_db()}.\n",
        f"The default SCHEMA is {default_schema()}.\n",
        options.describe("Logging options", options.VLOG_OPTIONS),
        options.describe("Other options", TOOL_OPTIONS + options.GENERAL_OPTIONS),
    ]
    return "".join(lines)


def _exit_with(text: Callable[[], str]) -> options.Hook:
    def show(_: str | None) -> NoReturn:
        _put(text())
        raise SystemExit(0)

    return show


def _help(_: Call) -> None:
    _put(usage())


def _list_commands(_: Call) -> None:
    _put("The available commands are:\n")
    for name, command in COMMANDS.items():
        _put(f"  {name:<23} {command.usage}\n")


# Verbs that make or change a file


def _create(call: Call) -> None:
    from ovncp.ops import database_file

    schema = _schema_file(call, 1)
    database_file.create(call.argument(0, default_db), schema)


def _compact(call: Call) -> None:
    from ovncp.ops import database_file

    database_file.compact(
        call.argument(0, default_db),
        call.target(1),
        f"compacted by {PROGRAM} {version.OVS_VERSION}",
        _uuid_source(),
        _now_msec(),
    )


def _convert(call: Call) -> None:
    from ovncp.ops import database_file

    database_file.convert(
        call.argument(0, default_db),
        call.target(2),
        _schema_file(call, 1),
        f"converted by {PROGRAM} {version.OVS_VERSION}",
        _uuid_source(),
        _now_msec(),
    )


def _query(call: Call) -> None:
    from ovncp.ops import offline_transaction

    _execute(call, offline_transaction.query)


def _transact(call: Call) -> None:
    from ovncp.ops import offline_transaction

    _execute(call, offline_transaction.transact)


def _execute(call: Call, execute: Callable[..., Any]) -> None:
    import json

    from ovncp.ops.offline_transaction import User

    *paths, request = call.arguments
    path = paths[0] if paths else default_db()
    result = execute(path, request, User(call.role), _uuid_source(), _now_msec())
    _put(json.dumps(result, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n")


def _uuid_source() -> "UuidSource":
    from ovncp.server import uuids

    return uuids.make_source(os.urandom(32))


def _now_msec() -> int:
    return time.time_ns() // 1_000_000


# Verbs that look


def _schema_file(call: Call, place: int) -> "DatabaseSchema":
    from ovncp.ops import schema_file

    return schema_file.read(call.argument(place, default_schema))


def _database_schema(call: Call) -> "DatabaseSchema":
    from ovncp.ops import database_file

    return database_file.read_schema(call.argument(0, default_db))


def _db_name(call: Call) -> None:
    from ovncp.ops import database_file

    _put(f"{database_file.read_name(call.argument(0, default_db))}\n")


def _of_database(attribute: str) -> "Run":
    return lambda call: _put(f"{getattr(_database_schema(call), attribute)}\n")


def _of_schema(attribute: str) -> "Run":
    return lambda call: _put(f"{getattr(_schema_file(call, 0), attribute)}\n")


def _needs_conversion(call: Call) -> None:
    now, then = _database_schema(call), _schema_file(call, 1)
    _put("no\n" if now.to_json() == then.to_json() else "yes\n")


def _is_standalone(call: Call) -> int:
    from ovncp.ops import database_file

    return 0 if database_file.is_standalone(call.arguments[0]) else FALSE_STATUS


def _is_clustered(call: Call) -> int:
    return FALSE_STATUS - _is_standalone(call)


def _compare_versions(call: Call) -> int:
    from ovncp.ops import schema_version

    return 0 if schema_version.compare(*call.arguments) else FALSE_STATUS


def _show_log(call: Call) -> None:
    from ovncp.ops import show_log

    for text in show_log.show(call.argument(0, default_db), call.verbosity):
        _put(text)


# Verbs of clustered databases


def _create_cluster(call: Call) -> None:
    from ovncp.ops import raft_create

    path, source, address = call.arguments
    schema, content = _content(source)
    raft_create.persist(schema, source)
    raft_create.create_cluster(
        path, schema, content, address, _uuid_source(), call.election_timer_msec
    )


def _content(path: str) -> "tuple[DatabaseSchema, Iterable[bytes]]":
    """The schema and the content for a new cluster, from a schema file or a standalone one."""
    from ovncp.ops import database_file, schema_file

    try:
        return schema_file.read(path), (b"{}",)
    except OvsdbError:  # Then it is a database file, or what is wrong with it is told as of one.
        database = database_file.read(path, _uuid_source())
    comment = f"created from {path}"
    return database.schema, database_file.snapshot(database, comment, _now_msec())


def _join_cluster(call: Call) -> None:
    from ovncp.ops import raft_create

    path, name, address, *remotes = call.arguments
    raft_create.join_cluster(path, name, address, remotes, _uuid_source(), call.cluster_id)


def _cluster_to_standalone(call: Call) -> None:
    from ovncp.ops import cluster_to_standalone

    damage = cluster_to_standalone.convert(*call.arguments)
    if damage is not None:
        raise Refusal(damage)


def _check_cluster(call: Call) -> None:
    from ovncp.ops import check_cluster

    for text in check_cluster.check(call.arguments):
        _put(text)


def _cluster_header(call: Call) -> "Header":
    from ovncp.ops import raft_file

    if _is_standalone(call) == 0:
        raise Refusal(f"{call.arguments[0]}: not a clustered database")
    return raft_file.read_header(call.arguments[0])


def _db_cid(call: Call) -> int:
    cluster_id = _cluster_header(call).cluster_id
    if cluster_id is None:
        _put(f"{call.arguments[0]}: cluster ID not yet known\n", sys.stderr.buffer)
        return UNKNOWN_STATUS
    _put(f"{cluster_id}\n")
    return 0


def _of_cluster(attribute: str) -> "Run":
    return lambda call: _put(f"{getattr(_cluster_header(call), attribute)}\n")


Run = Callable[[Call], int | None]


class Command(NamedTuple):
    """A verb: what runs it, how many arguments it takes, and its words in listings.

    One with no `help` is left out of the help. `n_max` None is any number.
    """

    run: Run
    usage: str
    n_min: int
    n_max: int | None
    help: str = ""
    writes: bool = False

    def check(self, name: str, n_arguments: int) -> None:
        """Refuse a number of arguments that the verb does not take. Raises OptionError."""
        if n_arguments < self.n_min:
            raise OptionError(f"'{name}' command requires at least {self.n_min} arguments")
        if self.n_max is not None and n_arguments > self.n_max:
            raise OptionError(f"'{name}' command takes at most {self.n_max} arguments")


_DB, _SCHEMA = "[db]", "[schema]"

COMMANDS = {
    "create": Command(_create, "[db [schema]]", 0, 2, "create DB with the given SCHEMA", True),
    "create-cluster": Command(
        _create_cluster, "db contents local", 3, 3, "create first DB of a C cluster", True
    ),
    "join-cluster": Command(
        _join_cluster, "db name local remote...", 4, None, "create DB that joins a cluster", True
    ),
    "compact": Command(_compact, "[db [dst]]", 0, 2, "compact DB in place (or to DST)", True),
    "convert": Command(
        _convert, "[db [schema [dst]]]", 0, 3, "convert DB to SCHEMA (to DST)", True
    ),
    "needs-conversion": Command(_needs_conversion, "", 0, 2),
    "db-name": Command(_db_name, _DB, 0, 1, "report name of DB's schema"),
    "db-version": Command(_of_database("version"), _DB, 0, 1, "report version of DB's schema"),
    "db-cksum": Command(_of_database("cksum"), _DB, 0, 1, "report checksum of DB's schema"),
    "db-cid": Command(_db_cid, "db", 1, 1, "report DB's cluster ID"),
    "db-sid": Command(_of_cluster("server_id"), "db", 1, 1, "report DB's server ID"),
    "db-local-address": Command(
        _of_cluster("local_address"), "db", 1, 1, "report DB's address within its cluster"
    ),
    "db-is-clustered": Command(_is_clustered, "db", 1, 1, "test whether DB is clustered"),
    "db-is-standalone": Command(_is_standalone, "db", 1, 1, "test whether DB is standalone"),
    "schema-name": Command(_of_schema("name"), _SCHEMA, 0, 1, "report SCHEMA's name"),
    "schema-version": Command(_of_schema("version"), _SCHEMA, 0, 1, "report SCHEMA's version"),
    "schema-cksum": Command(_of_schema("cksum"), _SCHEMA, 0, 1, "report SCHEMA's checksum"),
    "query": Command(_query, "[db] trns", 1, 2, "execute read-only transaction on DB"),
    "transact": Command(_transact, "[db] trns", 1, 2, "execute read/write transaction on DB", True),
    "show-log": Command(_show_log, _DB, 0, 1, "print DB's log entries"),
    "check-cluster": Command(_check_cluster, "db...", 1, None, "check DBs of a cluster"),
    "compare-versions": Command(_compare_versions, "a op b", 3, 3, "compare schema versions"),
    "help": Command(_help, "", 0, None),
    "list-commands": Command(_list_commands, "", 0, None),
    "cluster-to-standalone": Command(
        _cluster_to_standalone, "db clusterdb", 2, 2, "create DB from a cluster's CLUSTERDB", True
    ),
}
_TEXT_HOOKS = {
    "help": _exit_with(usage),
    "option": _exit_with(lambda: options.listing(TABLE)),
    "version": _exit_with(lambda: version.text(PROGRAM)),
}
