"""`ovncp ovsdb-server`: the command line of ovsdb-server(1), and the wiring of the server."""

import asyncio
import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import uvloop

import ovncp
from ovncp.cli import options, version
from ovncp.cli.options import Argument, Option, OptionError, Parsed
from ovncp.ovsdb import database
from ovncp.ovsdb.errors import OvsdbError
from ovncp.server import config_file, daemon, dirs, uuids, vlog
from ovncp.server.clock import Clock
from ovncp.server.config_file import SavedConfiguration
from ovncp.server.configuration import (
    Configuration,
    ConfigurationError,
    RemoteOptions,
    TlsSettings,
)
from ovncp.server.daemon import Daemon
from ovncp.server.database_remotes import PREFIX
from ovncp.server.limits import Limits
from ovncp.server.runtime import Runtime
from ovncp.server.runtime_commands import commands, time_commands
from ovncp.server.server import Server
from ovncp.server.subject import Subject
from ovncp.server.syslog import SpecError
from ovncp.server.tls import NO_CA
from ovncp.server.unixctl import ControlSocketError, Unixctl
from ovncp.server.vlog import Vlog
from ovncp.server.watch import Watch
from ovncp.server.workers import CommandLine, WorkerError
from ovncp.wire.json_strict import MAX_DEPTH

PROGRAM = "ovsdb-server"
_LOG = logging.getLogger("ovncp.ovsdb_server")

SERVER_OPTIONS = (
    Option("remote", Argument.REQUIRED, metavar="REMOTE", help="connect to or listen on REMOTE"),
    Option("run", Argument.REQUIRED, metavar="COMMAND", help="serve while COMMAND runs"),
    Option("disable-file-column-diff", help="store whole columns instead of their differences"),
    Option("no-dbs", help="start with no database at all"),
    Option("no-fsync", help="answer before the disk has it, as the C server does"),
    Option("config-file", Argument.REQUIRED, metavar="FILE", help="read what to serve from FILE"),
    Option("workers", Argument.REQUIRED, "", "N", "serve clients from N processes"),
    Option(
        "history-bytes", Argument.REQUIRED, metavar="N", help="memory for what clients resume from"
    ),
    Option("limit", Argument.REQUIRED, metavar="NAME=N", help="bound what clients may have"),
    Option("metrics", Argument.REQUIRED, metavar="HOST:PORT", help="show metrics there"),
)
LATER_OPTIONS = (
    Option("sync-from", Argument.REQUIRED, metavar="SERVER"),
    Option("sync-exclude-tables", Argument.REQUIRED, metavar="DB:TABLE,..."),
    Option("active"),
)
TABLE = (
    *SERVER_OPTIONS,
    *LATER_OPTIONS,
    *options.TLS_OPTIONS,
    *options.DAEMON_OPTIONS,
    *options.VLOG_OPTIONS,
    *options.UNIXCTL_OPTIONS,
    *options.GENERAL_OPTIONS,
)
_TLS_FILES = ("private_key", "certificate", "ca_cert", "peer_ca_cert", "bootstrap_ca_cert")
DEFAULT_HISTORY_BYTES = 64 << 20
_YOUNG_OBJECTS = 10_000
_NEVER = 2**31 - 1
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class Settings:
    """The command line, checked. `run` is a shell command, or None.

    `saved` keeps what runtime commands change, where a monitor may start the server again.
    `metrics` is HOST:PORT, or None.
    """

    configuration: Configuration
    config_file: str | None
    unixctl: str | None
    run: str | None
    saved: SavedConfiguration | None
    fsync: bool
    storing: database.Settings
    limits: Limits
    n_workers: int
    metrics: str | None


def usage() -> str:
    """The text of --help."""
    tables = (
        ("Server options", SERVER_OPTIONS),
        ("TLS options", options.TLS_OPTIONS),
        ("Daemon options", options.DAEMON_OPTIONS),
        ("Logging options", options.VLOG_OPTIONS),
        ("Other options", options.UNIXCTL_OPTIONS + options.GENERAL_OPTIONS),
    )
    head = (
        f"{PROGRAM}: Open vSwitch database server\n"
        f"usage: {PROGRAM} [OPTIONS] [DATABASE...]\n"
        "where each DATABASE is a database file in ovsdb format, or relay:NAME:REMOTE[,REMOTE...]\n"
        "for a database that is relayed from another server.\n"
        f"The default DATABASE, if none is given, is\n{dirs.dbdir()}/conf.db.\n"
    )
    return head + "".join(options.describe(title, table) for title, table in tables)


def settings_of(parsed: Parsed) -> Settings:
    """Check the parsed command line. Raises ConfigurationError."""
    for row in LATER_OPTIONS:
        if parsed.has(row.name):
            raise ConfigurationError(f"--{row.name}: active-backup replication comes later")
    databases = parsed.arguments
    file = parsed.last("config-file")
    if file is not None:
        if parsed.has("remote"):
            raise ConfigurationError("--config-file is mutually exclusive with --remote")
        if databases:
            raise ConfigurationError("Databases should be specified in a config file")
        file = dirs.abs_file_name(dirs.dbdir(), file)
    if not databases and not parsed.has("no-dbs") and not parsed.has("config-file"):
        databases = [os.path.join(dirs.dbdir(), "conf.db")]
    tls = {row.name.replace("-", "_"): parsed.last(row.name) for row in options.TLS_OPTIONS}
    tls |= {name: _absolute(tls[name]) for name in _TLS_FILES}
    return Settings(
        configuration=Configuration(
            databases=tuple(dict.fromkeys(databases)),
            remotes=dict.fromkeys(parsed.values("remote"), RemoteOptions()),
            tls=TlsSettings(**tls),
        ),
        config_file=file,
        unixctl=parsed.last("unixctl"),
        run=parsed.last("run"),
        saved=SavedConfiguration() if parsed.has("monitor") else None,
        fsync=not parsed.has("no-fsync"),
        storing=database.Settings(
            _number(parsed, "history-bytes", DEFAULT_HISTORY_BYTES),
            not parsed.has("disable-file-column-diff"),
        ),
        limits=Limits.parse(parsed.values("limit")),
        n_workers=_number(parsed, "workers", 0),
        metrics=parsed.last("metrics"),
    )


def _absolute(file: str | None) -> str | None:
    """`file`, of which the daemon is to know what it was where that was started."""
    if not file or file.startswith(PREFIX) or file == NO_CA:
        return file
    return os.path.abspath(file)


_PROCESS = (
    "import sys; sys.path[:] = {path!r}; from ovncp.cli import {module}; "
    "sys.exit({module}.main({arguments}))"
)


def worker_command_line(argv: Sequence[str]) -> CommandLine:
    """How to start a worker of a server that was started with `argv`."""

    def of(channel: int, connection: int) -> Sequence[str]:
        return [*_command("worker", f"{channel}, {connection}, sys.argv[1:]"), *argv]

    return of


def _command(module: str, arguments: str) -> list[str]:
    """How to start a process of the `main` of a module of this package."""
    script = _PROCESS.format(path=sys.path, module=module, arguments=arguments)
    # As with the shims, nothing but that path says where modules come from.
    return [sys.executable, "-IS", "-c", script]


def _number(parsed: Parsed, name: str, default: int) -> int:
    text = parsed.last(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()):
        raise ConfigurationError(f"--{name}: {text} is not a number")
    return int(text)


def main(argv: Sequence[str]) -> int:
    """Run the server; `argv` is without the program's name. Returns the exit status."""
    log = vlog.install(PROGRAM)
    hooks = {**log.hooks(), "help": _show(usage), "version": _show(lambda: version.text(PROGRAM))}
    try:
        parsed = options.parse(argv, TABLE, hooks)
        settings = settings_of(parsed)
        started = daemon.start(daemon.settings(PROGRAM, parsed.options), log)
        return run_loop(_serve(settings, log, started, argv))
    except (OptionError, SpecError, ConfigurationError, ControlSocketError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1


def _show(text: Callable[[], str]) -> Callable[[str | None], NoReturn]:
    def show(_: str | None) -> NoReturn:
        print(text(), end="")
        raise SystemExit(0)

    return show


def run_loop(work: Coroutine[Any, Any, int]) -> int:
    """What `work`, a server of whatever kind, returns when it is over."""
    gc.disable()
    uvloop.install()
    # A message nests up to MAX_DEPTH levels; what walks one may need a few calls for each.
    sys.setrecursionlimit(10 * MAX_DEPTH)
    # What the log's thread does is short, and others wait for it.
    sys.setswitchinterval(_SWITCH_SECONDS)
    return asyncio.run(work)


def collect_young_garbage() -> None:
    """Look for cycles among new objects only, each object once.

    What is kept, rows above all, is in no cycle that ends; what is in one, an error with its
    frames, is garbage soon. So the cost is a share of that of making the objects, in short pieces.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _NEVER, _NEVER)
    gc.enable()


async def _serve(settings: Settings, log: Vlog, started: Daemon, argv: Sequence[str]) -> int:
    clock = Clock()
    server = Server(clock, uuids.make_source(os.urandom(32)), settings.storing, settings.limits)
    runtime = Runtime(
        server,
        fsync=settings.fsync,
        config_file=settings.config_file,
        save=settings.saved.save if settings.saved is not None else None,
        n_workers=settings.n_workers,
        worker=worker_command_line(argv),
        upkeep=_command("upkeep", ""),
    )
    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    unixctl = Unixctl(PROGRAM, version.text(PROGRAM), settings.unixctl)
    unixctl.register_all(commands(runtime, lambda: _stop(stopped, 0)))
    shared = [*log.commands(), *time_commands(clock)]
    if runtime.workers is not None:
        shared = [runtime.workers.shared(command) for command in shared]
    unixctl.register_all(shared)
    subject = Subject(server, runtime.remotes.running, runtime.compaction.latest, runtime.clusters)
    watch = Watch(subject, runtime.workers)
    unixctl.register_all(watch.commands())
    try:
        if settings.metrics is not None:
            await watch.serve(settings.metrics)
        await runtime.apply(_configuration(settings))
        collect_young_garbage()
        watch.start()
        await unixctl.start()
    except (ConfigurationError, ControlSocketError, OvsdbError, OSError, WorkerError) as error:
        await runtime.close()
        log.fatal("ovsdb_server", str(error))
    loop = asyncio.get_running_loop()
    child: subprocess.Popen[bytes] | None = None
    if settings.run is not None:
        child = _start_child(settings.run, lambda: _stop(stopped, 0))
    started.complete()
    if child is None:
        # Not on the terminal that has just been left.
        _LOG.info("%s (ovncp) %s", PROGRAM, ovncp.__version__)
    for terminating in daemon.fatal_signals():
        loop.add_signal_handler(terminating, _stop, stopped, terminating)
    number = await stopped
    await watch.close()
    await runtime.close()
    await unixctl.close()
    if number:
        daemon.die(number)
    if child is not None and child.poll():
        log.fatal("ovsdb_server", f"{settings.run}: child exited, {_how_ended(child.returncode)}")
    return 0


def _configuration(settings: Settings) -> Configuration:
    """What to serve: as an earlier daemon left it, or from the file, or from the command line."""
    given = settings.configuration
    found = settings.saved.load() if settings.saved is not None else None
    if settings.config_file is not None:
        found = config_file.read(settings.config_file)
    return given if found is None else replace(found, tls=given.tls)


def _start_child(command: str, ended: Callable[[], None]) -> "subprocess.Popen[bytes]":
    """Run `command` in a shell; `ended` is called when it is over. It may outlive the server."""
    child = subprocess.Popen(["/bin/sh", "-c", command])
    descriptor = os.pidfd_open(child.pid)
    loop = asyncio.get_running_loop()

    def over() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        ended()

    loop.add_reader(descriptor, over)
    return child


def _how_ended(returncode: int) -> str:
    return daemon.describe_status(returncode << 8 if returncode >= 0 else -returncode)


def _stop(stopped: "asyncio.Future[int]", number: int) -> None:
    """Let the server end; `number` is the signal that asked for it, 0 for the command."""
    if not stopped.done():
        stopped.set_result(number)
