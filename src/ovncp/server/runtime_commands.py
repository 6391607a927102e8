"""The commands of `ovs-appctl` that ovsdb-server has of its own (ovsdb-server(1), "Runtime
Management Commands"). Words and errors are the C server's."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from ovncp.log.base import LogError
from ovncp.ovsdb.errors import OvsdbError
from ovncp.server import cluster_commands, memory
from ovncp.server.change_log import ChangeLog
from ovncp.server.clock import Clock
from ovncp.server.command import Command, CommandError, Handler
from ovncp.server.configuration import ConfigurationError
from ovncp.server.perf_counter import JOBS
from ovncp.server.rate_limit import RateLimit
from ovncp.server.runner import Runner
from ovncp.server.runtime import Runtime

_LOG = logging.getLogger("ovncp.ovsdb_server")

_NEWER_METHODS = frozenset(("monitor_cond", "monitor_cond_since", "monitor_cond_change"))

_CHANGES_PER_MINUTE, _CHANGES_AT_ONCE = 30, 60


def commands(runtime: Runtime, stop: Callable[[], None]) -> list[Command]:
    """All of them; `stop` ends the server."""
    own = _Commands(runtime, stop)
    changing, server = own.changing, "ovsdb-server/"
    later = changing(own.refuse_replication)
    return [
        Command("exit", "", 0, 0, own.exit),
        Command(server + "add-db", "DB", 1, 1, changing(own.add_db)),
        Command(server + "add-remote", "REMOTE", 1, 1, changing(own.add_remote)),
        Command(server + "compact", "", 0, 1, own.compact),
        Command(server + "connect-active-ovsdb-server", "", 0, 0, changing(own.connect_active)),
        Command(server + "disable-monitor-cond", "", 0, 0, own.disable_monitor_cond),
        Command(
            server + "disconnect-active-ovsdb-server", "", 0, 0, changing(own.disconnect_active)
        ),
        Command(server + "get-active-ovsdb-server", "", 0, 0, lambda _: ""),
        Command(server + "get-db-storage-status", "DB", 1, 1, own.storage_status),
        Command(server + "get-sync-exclude-tables", "", 0, 0, lambda _: ""),
        Command(server + "list-dbs", "", 0, 0, own.list_dbs),
        Command(server + "list-remotes", "", 0, 0, own.list_remotes),
        Command(server + "memory-trim-on-compaction", "on|off", 1, 1, own.trim_on_compaction),
        Command(server + "reconnect", "", 0, 0, own.reconnect),
        Command(server + "reload", "", 0, 0, own.reload),
        Command(server + "remove-db", "DB", 1, 1, changing(own.remove_db)),
        Command(server + "remove-remote", "REMOTE", 1, 1, changing(own.remove_remote)),
        Command(server + "set-active-ovsdb-server", "", 1, 1, later),
        Command(server + "set-active-ovsdb-server-probe-interval", "", 1, 1, later),
        Command(server + "set-relay-source-probe-interval", "", 1, 1, changing(own.probe_sources)),
        Command(server + "set-sync-exclude-tables", "", 0, 1, later),
        Command(server + "sync-status", "", 0, 0, lambda _: "state: active\n"),
        Command(server + "tlog-list", "", 0, 0, own.list_logged_tables),
        Command(server + "tlog-set", "DB:TABLE on|off", 2, 2, own.log_table),
        Command("memory/show", "", 0, 0, own.show_memory),
        *cluster_commands.commands(runtime.clusters),
        *runtime.coverage.commands(),
        *JOBS.commands(),
    ]


def time_commands(clock: Clock) -> list[Command]:
    """Those that push `clock` forward."""

    def stop(_: list[str]) -> str:
        clock.stop()
        return ""

    async def warp(args: list[str]) -> str:
        """`time/warp MSECS`, or `time/warp LARGE_MSECS MSECS` for a large push in steps."""
        total, step = _msecs(args[0]), _msecs(args[-1])
        while total > 0:
            clock.warp(min(step, total))
            total -= step
            await asyncio.sleep(0.01)
        return "warped"

    return [
        Command("time/stop", "", 0, 0, stop),
        Command("time/warp", "[LARGE_MSECS] MSECS", 1, 2, warp),
    ]


class _Commands:
    """A method for each command; each gets the arguments and returns the reply."""

    def __init__(self, runtime: Runtime, stop: Callable[[], None]) -> None:
        self._runtime = runtime
        self._server = runtime.server
        self._stop = stop
        self._said_whether_trimming = False
        self._change_limit = RateLimit(_CHANGES_PER_MINUTE, _CHANGES_AT_ONCE)

    def changing(self, change: Callable[[list[str]], Awaitable[str]]) -> Handler:
        """`change`, if no file says what to serve; what is wrong with its arguments is told."""

        async def command(args: list[str]) -> str:
            file = self._runtime.config_file
            if file is not None:
                raise CommandError(f"Update the {file} and use ovsdb-server/reload instead")
            try:
                return await change(args)
            except (OvsdbError, ConfigurationError) as error:
                raise CommandError(str(error)) from error

        return command

    def exit(self, _: list[str]) -> str:
        self._stop()
        return ""

    # Remotes

    async def add_remote(self, args: list[str]) -> str:
        await self._runtime.add_remote(args[0])
        return ""

    async def remove_remote(self, args: list[str]) -> str:
        if args[0] not in self._runtime.wanted:
            raise CommandError("no such remote")
        await self._runtime.remove_remote(args[0])
        return ""

    def list_remotes(self, _: list[str]) -> str:
        return _lines(self._runtime.wanted)

    def reconnect(self, _: list[str]) -> str:
        for remote in self._runtime.remotes.running.values():
            remote.reconnect()
        return ""

    async def disable_monitor_cond(self, args: list[str]) -> str:
        self._server.disabled_methods |= _NEWER_METHODS
        if self._runtime.workers is not None:
            await self._runtime.workers.changed()
        return self.reconnect(args)

    # Databases

    async def add_db(self, args: list[str]) -> str:
        await self._runtime.add_database(args[0])
        return ""

    async def remove_db(self, args: list[str]) -> str:
        self._runner(args[0])
        if args[0].startswith("_"):
            raise CommandError("Cannot remove reserved database.")
        await self._runtime.remove_database(args[0])
        return ""

    def list_dbs(self, _: list[str]) -> str:
        return _lines(self._server.runners)

    async def storage_status(self, args: list[str]) -> str:
        cluster = self._runtime.clusters.get(args[0])
        if cluster is not None:
            await cluster.look()
            return "\n".join(cluster.storage_status())
        failure = self._runner(args[0]).failure
        return "status: ok" if failure is None else f"status: {failure}"

    def _runner(self, name: str) -> Runner:
        runner = self._server.runners.get(name)
        if runner is None:
            raise CommandError("Failed to find the database.")
        return runner

    async def compact(self, args: list[str]) -> str:
        if args and args[0].startswith("_"):
            raise CommandError("cannot compact built-in databases")
        served = [runner for name, runner in self._server.runners.items() if name[0] != "_"]
        chosen = [runner for runner in served if not args or runner.name == args[0]]
        if not chosen:
            raise CommandError("no database by that name")
        # A relayed database has no log here, and so has nothing to compact.
        stored = [runner for runner in chosen if runner.log is not None]
        failures = [failure for runner in stored if (failure := await self._compact(runner))]
        if failures:
            raise CommandError("".join(failures))
        return ""

    async def _compact(self, runner: Runner) -> str:
        _LOG.info("compacting %s database by user request", runner.name)
        try:
            await self._runtime.compaction.compact(runner)
        except LogError as error:
            return f"{error}\n"
        return ""

    def trim_on_compaction(self, args: list[str]) -> str:
        if args[0] not in ("on", "off"):
            raise CommandError("invalid argument")
        wanted, compaction = args[0] == "on", self._runtime.compaction
        if wanted != compaction.trims_memory or not self._said_whether_trimming:
            state = "enabled" if wanted else "disabled"
            _LOG.info("memory trimming after compaction %s.", state)
            self._said_whether_trimming = True
        compaction.trims_memory = wanted
        return ""

    # The log of changes

    def log_table(self, args: list[str]) -> str:
        name, switch = args
        if switch.lower() not in ("on", "off"):
            raise CommandError("invalid command argument")
        parts = [part for part in name.split(":") if part]
        if len(parts) != 2:
            raise CommandError("invalid DB:TABLE argument")
        runner = self._server.runners.get(parts[0])
        if runner is None:
            raise CommandError("no such database")
        if parts[1] not in runner.database.tables:
            raise CommandError("no such table")
        if runner.change_log is None:
            runner.change_log = ChangeLog(self._change_limit)
        if switch.lower() == "on":
            runner.change_log.tables.add(parts[1])
        else:
            runner.change_log.tables.discard(parts[1])
        return ""

    def list_logged_tables(self, _: list[str]) -> str:
        text = "database        table                       logging\n"
        text += "--------        -----                       -------\n"
        for name, runner in sorted(self._server.runners.items()):
            logged = set() if runner.change_log is None else runner.change_log.tables
            text += f"{name:<16} \n"
            for table in sorted(runner.database.tables):
                text += f"{'':16}{table:<27} {'ON' if table in logged else 'OFF'}\n"
        return text

    # Replication, of which there is none yet

    async def connect_active(self, _: list[str]) -> str:
        return "Unable to connect: active server is not specified.\n"

    async def disconnect_active(self, _: list[str]) -> str:
        return ""

    async def refuse_replication(self, _: list[str]) -> str:
        raise CommandError("active-backup replication is not supported yet")

    # Sources of relayed databases

    async def probe_sources(self, args: list[str]) -> str:
        try:
            self._runtime.probe_sources(int(args[0]))
        except ValueError as error:
            raise CommandError("Invalid probe interval, integer value expected") from error
        return ""

    # The process

    async def reload(self, _: list[str]) -> str:
        if self._runtime.config_file is None:
            raise CommandError("Configuration file was not specified on command line")
        try:
            complete = await self._runtime.reload()
        except ConfigurationError as error:
            _LOG.warning("%s", error)
            complete = False
        if not complete:
            raise CommandError("Configuration failed.  See the log file for details.")
        return ""

    async def show_memory(self, _: list[str]) -> str:
        figures = await memory.usage(self._server)
        if self._runtime.workers is not None:
            of_workers = await self._runtime.workers.run("memory/show")
            figures = memory.with_workers(figures, of_workers)
        return memory.show(figures)


def _msecs(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise CommandError("invalid MSECS")
    return int(text)


def _lines(names: Iterable[str]) -> str:
    return "".join(f"{name}\n" for name in sorted(names))
