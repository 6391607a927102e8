"""A running server and what it is told to serve: databases, remotes and TLS files.

What it is told may stand in a database itself (`db:DB,TABLE,COLUMN`). It is read again after each
commit that touches one of the tables concerned, and brought about by `reconfigure`, which compares
what is wanted with what is there.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial

from ovncp.log.base import LogError
from ovncp.log.engine import EngineLog
from ovncp.log.location import Location
from ovncp.log.registry import open_log
from ovncp.log.retention import Retention
from ovncp.ovsdb.errors import OvsdbError
from ovncp.server import config_file, memory, remote_status, tls
from ovncp.server.channel import Message
from ovncp.server.cluster import Cluster
from ovncp.server.clustered import Clustered
from ovncp.server.compaction import Compaction
from ovncp.server.configuration import (
    RELAY_PREFIX,
    Configuration,
    ConfigurationError,
    RemoteOptions,
    TlsSettings,
    split_relay_spec,
)
from ovncp.server.coverage import COUNTERS, SLOT_SECONDS, Coverage
from ovncp.server.database_remotes import PREFIX
from ovncp.server.peers import addresses
from ovncp.server.reading import Reading
from ovncp.server.relay import Relay
from ovncp.server.remotes import Remotes
from ovncp.server.runner import Runner, log_failure
from ovncp.server.server import Server
from ovncp.server.sources import Sources
from ovncp.server.tls import TlsFiles
from ovncp.server.upkeep_process import Order
from ovncp.server.workers import CommandLine, Workers

_LOG = logging.getLogger("ovncp.ovsdb_server")

_UPKEEP_MSEC = 2500
"""How often the status columns are written, remotes that failed are tried again, and so on."""


class Runtime:
    """What is served now.

    `files` has the databases' names by file, and `wanted` the remotes as they were named.
    `config_file` is the file that the configuration is read from, if it is not the command line.
    """

    def __init__(
        self,
        server: Server,
        *,
        fsync: bool,
        config_file: str | None = None,
        save: Callable[[Configuration], None] | None = None,
        n_workers: int = 0,
        worker: CommandLine = lambda channel, connection: (),
        upkeep: Sequence[str] = (),
    ) -> None:
        """`save` is called with every configuration that a command leads to.

        `worker` and `upkeep` are how processes for these are started.
        """
        self.server = server
        self.files: dict[str, str] = {}
        self.wanted: dict[str, RemoteOptions] = {}
        self.tls = TlsSettings()
        self.config_file = config_file
        self.clusters: dict[str, Cluster] = {}
        self.compaction = Compaction(server.clock)
        self.coverage = Coverage(COUNTERS, server.clock.now_msec() / 1000)
        self.workers: Workers | None = None
        if n_workers:
            self.workers = Workers(server, n_workers, worker, self._worker_configuration)
        self.remotes = Remotes(server, self.tls_files, self.workers)
        self._sources = Sources(server.clock, self.tls_files)
        self._fsync = fsync
        self._save = save
        self._upkeep_command = upkeep
        self._tls_files = TlsFiles()
        self._reading = Reading(server.runners)
        self._dirty = asyncio.Event()
        self._reconfiguring = asyncio.Lock()

    # Starting and stopping

    async def apply(self, configuration: Configuration) -> None:
        """Serve what `configuration` names, from the start on.

        Raises OvsdbError and ConfigurationError.
        """
        self.tls = configuration.tls
        self._sources.options = configuration.sources
        # Sources may want them before all databases are open, which may name others.
        self._use_tls_files(Reading(self.server.runners).tls_files(self.tls))
        for file in configuration.databases:
            await self._open(file)
        self._check_remotes(configuration.remotes)
        if self.workers is not None:
            await self.workers.start()
        self.wanted = dict(configuration.remotes)
        await self.reconfigure()
        if self._reading.errors:
            raise ConfigurationError("\n".join(self._reading.errors))
        for work in (self._follow(), self._upkeep(), self._tick(), memory.watch(self.server)):
            self.server.spawn(work)

    async def close(self) -> None:
        """Stop serving."""
        async with self._reconfiguring:
            await self.remotes.close()
        if self.workers is not None:
            await self.workers.close()
        await asyncio.gather(*(cluster.close() for cluster in self.clusters.values()))
        await self.server.close()
        await self._sources.close_unused()

    def configuration(self) -> Configuration:
        """What is served now, as the command line would say it."""
        return Configuration(tuple(self.files), dict(self.wanted), self.tls, self._sources.options)

    def _changed_by_command(self) -> None:
        if self._save is not None:
            self._save(self.configuration())

    # Databases

    async def add_database(self, file: str) -> None:
        """Serve the database in `file` too.

        Raises OvsdbError and ConfigurationError.
        """
        await self._open(file)
        await self.reconfigure()
        self._changed_by_command()

    async def remove_database(self, name: str) -> None:
        """Stop serving the database `name`, and what it says of remotes and TLS files."""
        await self._close(name)
        await self.reconfigure()
        self._changed_by_command()

    async def _open(self, file: str) -> None:
        try:
            if file.startswith(RELAY_PREFIX):
                runner = await self._open_relay(file)
            else:
                runner = await self._open_database(file)
        except LogError as error:
            raise log_failure(error) from error
        self.files[file] = runner.name
        self.compaction.add(runner)
        if isinstance(runner, Clustered):
            self._join(runner, file)
        runner.watchers.append(partial(self._tables_changed, runner.name))

    async def _open_database(self, file: str) -> Runner:
        if any(_is_same_file(file, other) for other in self.files):
            raise LogError(f"{file}: already open")
        log = await open_log(file, fsync=self._fsync)
        try:
            return await self.server.add_database(log)
        except BaseException:
            await log.close()
            raise

    def _join(self, runner: Clustered, location: str) -> None:
        """Take part in the cluster of the log at `location`."""
        assert isinstance(runner.log, EngineLog)
        retention = Retention.of(Location.parse(location))
        cluster = self.clusters[runner.name] = Cluster(
            runner,
            runner.log,
            Order(location, retention, self.server.settings),
            self._upkeep_command,
            self.server.clock,
            compact=partial(self.compaction.compact, runner),
            addresses=lambda: addresses(self.remotes.running.values()),
        )
        cluster.start()

    async def _open_relay(self, spec: str) -> Runner:
        """Relay a database. Raises LogError."""
        try:
            name, _ = split_relay_spec(spec)
        except ConfigurationError as error:
            raise LogError(str(error)) from error
        try:
            return self.server.add_relay(name, self._sources.of(spec))
        finally:
            await self._sources.close_unused()

    async def _move_relays(self, configuration: Configuration) -> None:
        """Relay databases from where they are relayed from in `configuration`.

        Their clients need not know.
        """
        self._sources.options = configuration.sources
        specs = [spec for spec in configuration.databases if spec.startswith(RELAY_PREFIX)]
        wanted = {split_relay_spec(spec)[0]: spec for spec in specs}
        for file, name in list(self.files.items()):
            runner = self.server.runners[name]
            if isinstance(runner, Relay) and name in wanted:
                self.server.move_relay(runner, self._sources.of(wanted[name]))
                self.files[wanted[name]] = self.files.pop(file)
        await self._sources.close_unused()

    def probe_sources(self, msec: int) -> None:
        """Ask silent sources for a sign of life after `msec` milliseconds, 0 for never."""
        self._sources.probe((file for file in self.files if file.startswith(RELAY_PREFIX)), msec)
        self._changed_by_command()

    async def _close(self, name: str) -> None:
        self.files = {file: other for file, other in self.files.items() if other != name}
        self.compaction.remove(self.server.runners[name])
        if name in self.clusters:
            await self.clusters.pop(name).close()
        await self.server.remove_database(name)
        await self._sources.close_unused()

    # Remotes and TLS files

    async def add_remote(self, target: str) -> None:
        """Serve `target` too; one that cannot be is tried again and again.

        Raises ConfigurationError for a column that is not there.
        """
        self._check_remotes((target,))
        self.wanted.setdefault(target, RemoteOptions())
        await self.reconfigure()
        self._changed_by_command()

    async def remove_remote(self, target: str) -> None:
        """Stop serving `target`, one of `wanted`."""
        del self.wanted[target]
        await self.reconfigure()
        self._changed_by_command()

    def _check_remotes(self, targets: Iterable[str]) -> None:
        """See that the columns exist which are named. Raises ConfigurationError."""
        reading = Reading(self.server.runners)
        for target in targets:
            if target.startswith(PREFIX):
                reading.find(target)

    def tls_files(self) -> TlsFiles:
        """The TLS files of now."""
        return self._tls_files

    def _use_tls_files(self, files: TlsFiles) -> None:
        if files != self._tls_files:
            self._tls_files = files
            tls.log_problem(files)

    def _worker_configuration(self) -> Message:
        """How workers are to serve clients."""
        return {
            "server_id": self.server.server_id,
            "disabled_methods": sorted(self.server.disabled_methods),
            "tls_files": asdict(self._tls_files),
            "remotes": {
                target: asdict(remote.options)
                for target, remote in self.remotes.running.items()
                if remote.target.is_passive
            },
        }

    # Configuration

    async def reload(self) -> bool:
        """Serve what the configuration file says now; whether all of it can be served.

        Raises ConfigurationError, and then has changed nothing.
        """
        assert self.config_file is not None
        _LOG.info("loading configuration from '%s'", self.config_file)
        configuration = config_file.read(self.config_file)
        await self._move_relays(configuration)
        for file, name in list(self.files.items()):
            if file not in configuration.databases:
                await self._close(name)
        opened = [await self._reopen(file) for file in configuration.databases]
        self.wanted = dict(configuration.remotes)
        await self.reconfigure()
        return all(opened) and not self._reading.errors and not self.remotes.failures

    async def _reopen(self, file: str) -> bool:
        if file in self.files:
            return True
        try:
            await self._open(file)
        except (OvsdbError, ConfigurationError) as error:
            _LOG.warning("failed to open database '%s': %s", file, error)
            return False
        return True

    async def reconfigure(self) -> None:
        """Serve exactly the remotes that are wanted now, with the TLS files of now."""
        async with self._reconfiguring:
            before, reading = self._reading, Reading(self.server.runners)
            targets = dict(reading.remotes(self.wanted))
            files = reading.tls_files(self.tls)
            self._reading = reading
            for error in reading.errors:
                if error not in before.errors:
                    _LOG.warning("%s", error)
            self._use_tls_files(files)
            await self.remotes.serve(targets)
            if self.workers is not None:
                await self.workers.changed()

    def _tables_changed(self, database: str, tables: set[str]) -> None:
        if not tables.isdisjoint(self._reading.tables.get(database, ())):
            self._dirty.set()

    async def _follow(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self.reconfigure()

    # Upkeep

    async def _upkeep(self) -> None:
        while True:
            remote_status.write(self.server, self.wanted, self.remotes.status)
            if self.remotes.retry_is_due():
                await self.reconfigure()
            await self.compaction.compact_what_is_due()
            await self.server.clock.sleep(_UPKEEP_MSEC)

    async def _tick(self) -> None:
        while True:
            await self.server.clock.sleep(SLOT_SECONDS * 1000)
            self.coverage.tick(self.server.clock.now_msec() / 1000)


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False  # one that is not there is told of when it is opened
