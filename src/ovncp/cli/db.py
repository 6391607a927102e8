"""`ovncp db VERB ...`: the command line of what is done to whole databases, as a table of verbs."""

import gc
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

import orjson
import uvloop

from ovncp.cli import db_disaster, db_past, options
from ovncp.cli.agreement import is_agreed
from ovncp.cli.connect import connector, tls_files
from ovncp.cli.options import Argument, Option, OptionError, Parsed
from ovncp.cli.progress import Progress
from ovncp.cli.signals import ended_by_signal
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.report import FAILED, Report, refusals
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.errors import OvsdbError
from ovncp.server import uuids

PROGRAM = "ovncp db"
PLACES = """
A URL is where a log is kept:
  etcd://HOST:PORT,.../PREFIX?db=NAME, etcds://... with TLS
  postgresql://[USER[:PASSWORD]@]HOST:PORT/DBNAME?db=NAME
  PATH of a database file
A SOURCE is one too, or a running server's database:
  tcp:HOST:PORT[?db=NAME], ssl:HOST:PORT[?db=NAME], unix:FILE[?db=NAME]
  REMOTE,REMOTE,...[?db=NAME] of a cluster: the one that leads
The exit status is 0 when all is well, 1 when something was found, such as a difference, and 2
when it could not be done.
"""
COMMON_OPTIONS = (
    Option("json", help="print the report as JSON"),
    options.GENERAL_OPTIONS[0],
)
CREATE_OPTIONS = (Option("if-absent", help="leave one that is there as it is"),)
DROP_OPTIONS = (Option("yes", short="y", help="do not ask"),)
IMPORT_OPTIONS = (Option("follow", help="and what changes in a server, until SIGINT or SIGTERM"),)
EXPORT_OPTIONS = (
    Option("format", Argument.REQUIRED, "", "FORMAT", "standalone (default) or cluster"),
    Option("address", Argument.REQUIRED, "", "tcp:HOST:PORT", "of the cluster's one member"),
)


_ANY_NUMBER = 1 << 30
_INTERRUPTED_STATUS = 130  # as a shell has it for a program that SIGINT ended


class Call(NamedTuple):
    """One run of a verb: its arguments and its options."""

    arguments: list[str]
    parsed: Parsed


# Verbs. Each imports what it needs when it runs.


async def _create(call: Call, caller: Caller) -> Report:
    from ovncp.ops.db.create import create

    url, source = call.arguments
    return await create(url, source, caller.connect, if_absent=call.parsed.has("if-absent"))


async def _import(call: Call, caller: Caller) -> Report:
    from ovncp.ops.db.follow import follow
    from ovncp.ops.db.import_ import import_

    source, url = call.arguments
    if not call.parsed.has("follow"):
        return await import_(source, url, caller)
    # What is for people is not to be among the JSON.
    output = sys.stderr if call.parsed.has("json") else sys.stdout

    def say(line: str) -> None:
        caller.progress.clear()
        print(line, file=output, flush=True)

    return await follow(source, url, ended_by_signal(), say, caller)


async def _export(call: Call, caller: Caller) -> Report:
    from ovncp.ops.db.export import FORMATS, export

    source, path = call.arguments
    kind = call.parsed.last("format", FORMATS[0]) or ""
    return await export(source, path, kind, call.parsed.last("address"), caller)


async def _copy(call: Call, caller: Caller) -> Report:
    from ovncp.ops.db.copy import copy

    source, target = call.arguments
    return await copy(source, target, caller)


async def _drop(call: Call, _: Caller) -> Report:
    from ovncp.ops.db.drop import drop

    def confirm(what: str, name: str) -> bool:
        return call.parsed.has("yes") or is_agreed(f"{what}. Its name, to agree: ", name)

    return await drop(call.arguments[0], confirm)


async def _verify(call: Call, caller: Caller) -> Report:
    from ovncp.ops.db import verify

    first, *others = call.arguments
    if others:
        return await verify.compare_places(first, others[0], caller)
    return await verify.check(first, caller)


async def _status(call: Call, _: Caller) -> Report:
    from ovncp.ops.db.status import status

    return await status(call.arguments[0])


class Verb(NamedTuple):
    """A verb: what runs it, its arguments as words for `--help`, and how many it takes."""

    run: Callable[[Call, Caller], Awaitable[Report]]
    usage: str
    n_min: int
    n_max: int
    help: str
    options: tuple[Option, ...] = ()

    @property
    def table(self) -> tuple[Option, ...]:
        """All its options."""
        return (*self.options, *COMMON_OPTIONS, *options.TLS_OPTIONS)


VERBS = {
    "create": Verb(
        _create, "URL SCHEMA", 2, 2, "make an empty one of a schema file or server", CREATE_OPTIONS
    ),
    "import": Verb(
        _import, "SOURCE URL", 2, 2, "make a database of what SOURCE has", IMPORT_OPTIONS
    ),
    "export": Verb(
        _export, "SOURCE FILE", 2, 2, "make a file that C's programs open", EXPORT_OPTIONS
    ),
    "copy": Verb(_copy, "URL URL", 2, 2, "copy a database with its latest transactions"),
    "drop": Verb(_drop, "URL", 1, 1, "delete a database for good", DROP_OPTIONS),
    "verify": Verb(_verify, "SOURCE [SOURCE]", 1, 2, "check one database, or compare two"),
    "status": Verb(_status, "URL", 1, 1, "show what a log has, and how full its engine is"),
    "backup": Verb(
        db_disaster.backup,
        "SOURCE FOLDER|FILE",
        2,
        2,
        "back a database up, once or again and again",
        db_disaster.BACKUP_OPTIONS,
    ),
    "restore": Verb(
        db_disaster.restore,
        "BACKUP URL",
        2,
        2,
        "make a database of a backup",
        db_disaster.RESTORE_OPTIONS,
    ),
    "recover": Verb(
        db_disaster.recover,
        "URL SOURCE...",
        2,
        _ANY_NUMBER,
        "make a database of what is left of a lost one",
        db_disaster.RECOVER_OPTIONS,
    ),
    "log": Verb(db_past.log, "URL", 1, 1, "list the transactions kept", db_past.LOG_OPTIONS),
    "diff": Verb(
        db_past.diff, "URL --from=T", 1, 1, "show what changed since T", db_past.DIFF_OPTIONS
    ),
    "at": Verb(db_past.at, "URL T", 2, 2, "dump the state at T", db_past.AT_OPTIONS),
}


def usage() -> str:
    """The text of `ovncp db --help`."""
    verbs = "".join(f"  {f'{name} {verb.usage}':<24} {verb.help}\n" for name, verb in VERBS.items())
    return (
        f"usage: {PROGRAM} VERB [OPTION...] ARGUMENT...\n"
        "Works on whole databases, wherever they are kept.\n"
        f"\nVerbs:\n{verbs}{PLACES}\n`{PROGRAM} VERB --help` has the options of each.\n"
    )


def _usage_of(name: str, verb: Verb) -> str:
    what = f"{verb.help[0].upper()}{verb.help[1:]}.\n"
    head = f"usage: {PROGRAM} {name} [OPTION...] {verb.usage}\n{what}"
    tables = (("Options", verb.options + COMMON_OPTIONS), ("TLS to servers", options.TLS_OPTIONS))
    return head + PLACES + "".join(options.describe(title, table) for title, table in tables)


def main(argv: Sequence[str]) -> int:
    """Run one verb; `argv` is without `db`. Returns the exit status."""
    progress = Progress()
    try:
        return _run(argv, progress)
    except (OptionError, Refusal, OvsdbError, OSError) as error:
        progress.clear()
        print(f"{PROGRAM}: {_words(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        progress.clear()
        return _INTERRUPTED_STATUS


def _run(argv: Sequence[str], progress: Progress) -> int:
    name, *rest = argv or ["--help"]
    if name in ("--help", "-h", "help"):
        print(usage(), end="")
        return 0
    if name not in VERBS:
        raise OptionError(f"there is no verb {name!r}; the verbs are {', '.join(VERBS)}")
    verb = VERBS[name]
    parsed = options.parse(rest, verb.table, negative=True)
    if parsed.has("help"):
        print(_usage_of(name, verb), end="")
        return 0
    if not verb.n_min <= len(parsed.arguments) <= verb.n_max:
        raise OptionError(f"usage: {PROGRAM} {name} [OPTION...] {verb.usage}")
    # Rows are in no cycles; to look for some among all of them takes as long as the work itself.
    gc.disable()
    report = uvloop.run(_awaited(verb, Call(parsed.arguments, parsed), _caller(parsed, progress)))
    progress.clear()
    _print(report, parsed.has("json"))
    return report.status


async def _awaited(verb: Verb, call: Call, caller: Caller) -> Report:
    with refusals():
        return await verb.run(call, caller)


def _caller(parsed: Parsed, progress: Progress) -> Caller:
    return Caller(
        new_uuid=uuids.make_source(os.urandom(32)),
        now_msec=lambda: time.time_ns() // 1_000_000,
        connect=partial(connector, files=tls_files(parsed)),
        progress=progress,
    )


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        for line in report.lines():
            print(line)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
