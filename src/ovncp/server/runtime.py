"""A running server and what it is told to serve: databases, remotes and TLS files.

What it is told may stand in a database itself (`db:DB,TABLE,COLUMN`). It is read again after each
commit that touches one of the tables concerned, and brought about by `reconfigure`, which compares
what is wanted with what is there.
"""

import asyncio
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields, replace
from functools import partial
from typing import Any

import orjson

from ovncp.log.base import LogError
from ovncp.log.registry import open_log
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.errors import OvsdbError
from ovncp.server import config_file, database_remotes, memory, tls
from ovncp.server.change_log import ChangeLog
from ovncp.server.channel import Message
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
from ovncp.server.database_remotes import PREFIX, Place, RemoteStatus
from ovncp.server.rate_limit import RateLimit
from ovncp.server.relay import Relay
from ovncp.server.remote import NEVER_CONNECTED, Remote
from ovncp.server.runner import Runner, Transact, log_failure
from ovncp.server.server import Server
from ovncp.server.stream import Target
from ovncp.server.tls import TlsFiles
from ovncp.server.upstream import Upstream
from ovncp.server.workers import CommandLine, Workers

_LOG = logging.getLogger("ovncp.ovsdb_server")
_RPC_LOG = logging.getLogger("ovncp.ovsdb_jsonrpc_server")

UPKEEP_MSEC = 2500
"""How often the status columns are written, remotes that failed are tried again, and so on."""

_SCHEME = re.compile(r"(?!file:)[a-z]+://")

_LONGEST_PAUSE_MSEC = 60_000

_CHANGES_PER_MINUTE, _CHANGES_AT_ONCE = 30, 60


class Runtime:
    """What is served now.

    `files` has the databases' names by file, `wanted` the remotes as they were named, and
    `remotes` those that run, by target. `config_file` is the file that the configuration is read
    from, if it is not the command line.
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
    ) -> None:
        """`save` is called with every configuration that a command leads to."""
        self.server = server
        self.files: dict[str, str] = {}
        self.wanted: dict[str, RemoteOptions] = {}
        self.remotes: dict[str, Remote] = {}
        self.tls = TlsSettings()
        self.config_file = config_file
        self.compaction = Compaction(server.clock)
        self.coverage = Coverage(COUNTERS, server.clock.now_msec() / 1000)
        self.workers: Workers | None = None
        if n_workers:
            self.workers = Workers(server, n_workers, worker, self._worker_configuration)
        self._fsync = fsync
        self._save = save
        self._tls_files = TlsFiles()
        # The connections to the sources of relayed databases, by their remotes, and their options
        # by the `relay_spec`.
        self._sources: dict[str, RemoteOptions] = {}
        self._upstreams: dict[str, Upstream] = {}
        # What is wrong with remotes that are not served, by target, and when to try them again.
        self._failures: dict[str, str] = {}
        self._pause_msec = self._retry_msec = 0
        self._errors: list[str] = []
        self._watched: dict[str, set[str]] = {}
        self._change_limit = RateLimit(_CHANGES_PER_MINUTE, _CHANGES_AT_ONCE)
        self._dirty = asyncio.Event()
        self._reconfiguring = asyncio.Lock()

    # Starting and stopping

    async def apply(self, configuration: Configuration) -> None:
        """Serve what `configuration` names, from the start on.

        Raises OvsdbError and ConfigurationError.
        """
        self.tls = configuration.tls
        self._sources = dict(configuration.sources)
        # Sources may want them before all databases are open, which may name others.
        self._use_tls_files(self._read_tls_files([]))
        for file in configuration.databases:
            await self._open(file)
        self._check_remotes(configuration.remotes)
        if self.workers is not None:
            await self.workers.start()
        self.wanted = dict(configuration.remotes)
        await self.reconfigure()
        if self._errors:
            raise ConfigurationError("\n".join(self._errors))
        for work in (self._follow(), self._upkeep(), self._tick(), memory.watch(self.server)):
            self.server.spawn(work)

    async def close(self) -> None:
        """Stop serving."""
        async with self._reconfiguring:
            for remote in self.remotes.values():
                await remote.close()
            self.remotes.clear()
        if self.workers is not None:
            await self.workers.close()
        await self.server.close()
        await self._close_unused()

    def configuration(self) -> Configuration:
        """What is served now, as the command line would say it."""
        return Configuration(tuple(self.files), dict(self.wanted), self.tls, dict(self._sources))

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
        runner.watchers.append(partial(self._tables_changed, runner.name))

    async def _open_relay(self, spec: str) -> Runner:
        """Relay a database. Raises LogError."""
        try:
            name, _ = split_relay_spec(spec)
        except ConfigurationError as error:
            raise LogError(str(error)) from error
        try:
            return self.server.add_relay(name, self._upstream_of(spec))
        finally:
            await self._close_unused()

    def _upstream_of(self, spec: str) -> Upstream:
        """The connection to the source that `spec` names, made now if there is none."""
        _, remotes = split_relay_spec(spec)
        options = self._sources.get(spec, RemoteOptions())
        upstream = self._upstreams.get(remotes)
        if upstream is None:
            targets = [Target.parse_any(text, _LOG) for text in remotes.split(",") if text]
            upstream = Upstream(self.server.clock, targets, options, self.tls_files)
            self._upstreams[remotes] = upstream
        upstream.options = options
        return upstream

    async def _move_relays(self, configuration: Configuration) -> None:
        """Relay databases from where they are relayed from in `configuration`.

        Their clients need not know.
        """
        self._sources = dict(configuration.sources)
        specs = [spec for spec in configuration.databases if spec.startswith(RELAY_PREFIX)]
        wanted = {split_relay_spec(spec)[0]: spec for spec in specs}
        for file, name in list(self.files.items()):
            runner = self.server.runners[name]
            if isinstance(runner, Relay) and name in wanted:
                self.server.move_relay(runner, self._upstream_of(wanted[name]))
                self.files[wanted[name]] = self.files.pop(file)
        await self._close_unused()

    def probe_sources(self, msec: int) -> None:
        """Ask silent sources for a sign of life after `msec` milliseconds, 0 for never."""
        for file in self.files:
            if file.startswith(RELAY_PREFIX):
                given = self._sources.get(file, RemoteOptions())
                self._sources[file] = replace(given, inactivity_probe_msec=max(0, msec))
                self._upstream_of(file)
        self._changed_by_command()

    async def _close_unused(self) -> None:
        """End the connections to sources of which no database is relayed any more."""
        for remotes, upstream in list(self._upstreams.items()):
            if not upstream.followers:
                del self._upstreams[remotes]
                await upstream.close()

    async def _open_database(self, file: str) -> Runner:
        if any(_is_same_file(file, other) for other in self.files):
            raise LogError(f"{file}: already open")
        if _SCHEME.match(file):
            # Several servers would share it, each of which believed itself alone.
            scheme = file.partition(":")[0]  # and not the rest, which may have a password
            raise LogError(
                f"{scheme}: serving a database from a storage engine is not supported yet"
            )
        log = await open_log(file, fsync=self._fsync)
        try:
            return await self.server.add_database(log)
        except BaseException:
            await log.close()
            raise

    async def _close(self, name: str) -> None:
        self.files = {file: other for file, other in self.files.items() if other != name}
        self.compaction.remove(self.server.runners[name])
        await self.server.remove_database(name)
        await self._close_unused()

    def log_changes(self, runner: Runner, table: str, wanted: bool) -> None:
        """Log the changes of `table` from now on, or no more."""
        if runner.change_log is None:
            runner.change_log = ChangeLog(self._change_limit)
        if wanted:
            runner.change_log.tables.add(table)
        else:
            runner.change_log.tables.discard(table)

    # Remotes

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
        for target in targets:
            if target.startswith(PREFIX) and not self._is_awaited(target):
                database_remotes.find(target, self._databases())

    def _databases(self) -> dict[str, Database]:
        return {name: runner.database for name, runner in self.server.runners.items()}

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
        return all(opened) and not self._errors and not self._failures

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
            errors: list[str] = []
            self._watched = {}
            targets = dict(self._targets(errors))
            self._use_tls_files(self._read_tls_files(errors))
            self._report(errors)
            for target in [target for target in self.remotes if target not in targets]:
                _RPC_LOG.info("%s: remote deconfigured", target)
                await self.remotes.pop(target).close()
            await self._serve_all(targets)
            if self.workers is not None:
                await self.workers.changed()

    def _worker_configuration(self) -> Message:
        """How workers are to serve clients."""
        return {
            "server_id": self.server.server_id,
            "disabled_methods": sorted(self.server.disabled_methods),
            "tls_files": asdict(self._tls_files),
            "remotes": {
                target: asdict(remote.options)
                for target, remote in self.remotes.items()
                if remote.target.is_passive
            },
        }

    def _report(self, errors: list[str]) -> None:
        """Log those of `errors` that are new."""
        for error in errors:
            if error not in self._errors:
                _LOG.warning("%s", error)
        self._errors = errors

    async def _serve_all(self, targets: dict[str, RemoteOptions]) -> None:
        tried = {target: await self._serve(target, targets[target]) for target in targets}
        if not self._failures:
            self._pause_msec = UPKEEP_MSEC
            self._retry_msec = self.server.clock.now_msec() + self._pause_msec
        self._failures = {target: failure for target, failure in tried.items() if failure}

    def _targets(self, errors: list[str]) -> Iterator[tuple[str, RemoteOptions]]:
        for target, options in self.wanted.items():
            if not target.startswith(PREFIX):
                yield target, options
            else:
                place = self._find(target, errors)
                if place is not None:
                    yield from database_remotes.remotes(place)

    def _find(self, spec: str, errors: list[str]) -> Place | None:
        """The column that `spec` names, whose tables are followed from now on."""
        if self._is_awaited(spec):
            return None
        try:
            place = database_remotes.find(spec, self._databases())
        except ConfigurationError as error:
            errors.append(str(error))
            return None
        self._watched.setdefault(place.database.name, set()).update(place.tables)
        return place

    def _is_awaited(self, spec: str) -> bool:
        """Whether `spec` is about a relayed database whose schema is not known yet.

        Its table is followed from now on.
        """
        name, *rest = spec.removeprefix(PREFIX).split(",")
        runner = self.server.runners.get(name)
        if runner is None or runner.is_available:
            return False
        self._watched.setdefault(name, set()).update(rest[:1])
        return True

    async def _serve(self, target: str, options: RemoteOptions) -> str | None:
        """Serve `target` with `options`; what is wrong if that is not possible."""
        if target in self.remotes:
            if self.remotes[target].options.dscp == options.dscp:
                self.remotes[target].options = options
                return None
            # What marks packets belongs to sockets, so that these have to be made again.
            await self.remotes.pop(target).close()
        try:
            remote = Remote(self.server, target, options, self.tls_files, self.workers)
            await remote.start()
        except OSError as error:
            return self._failed(target, error.strerror or str(error))
        self.remotes[target] = remote
        return None

    def _failed(self, target: str, failure: str) -> str:
        """Log the failure, once however often it is tried again."""
        if self._failures.get(target) != failure:
            _RPC_LOG.error("%s: listen failed: %s", target, failure)
        return failure

    def tls_files(self) -> TlsFiles:
        """The TLS files of now."""
        return self._tls_files

    def _use_tls_files(self, files: TlsFiles) -> None:
        if files != self._tls_files:
            self._tls_files = files
            tls.log_problem(files)

    def _read_tls_files(self, errors: list[str]) -> TlsFiles:
        given = {field.name: getattr(self.tls, field.name) for field in fields(self.tls)}
        read = replace(
            self.tls, **{name: self._read_string(text, errors) for name, text in given.items()}
        )
        return TlsFiles(
            private_key=read.private_key,
            certificate=read.certificate,
            ca_cert=read.ca_cert or read.bootstrap_ca_cert,
            peer_ca_cert=read.peer_ca_cert,
            bootstrap=read.bootstrap_ca_cert is not None,
            protocols=read.ssl_protocols,
            ciphers=read.ssl_ciphers,
            ciphersuites=read.ssl_ciphersuites,
        )

    def _read_string(self, text: str | None, errors: list[str]) -> str | None:
        """`text` itself, or what stands in the column that it names."""
        if text is None or not text.startswith(PREFIX):
            return text
        place = self._find(text, errors)
        try:
            return None if place is None else database_remotes.first_string(place)
        except ConfigurationError as error:
            errors.append(str(error))
            return None

    def _tables_changed(self, database: str, tables: set[str]) -> None:
        if not tables.isdisjoint(self._watched.get(database, ())):
            self._dirty.set()

    async def _follow(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self.reconfigure()

    # Upkeep

    async def _upkeep(self) -> None:
        while True:
            self._write_status()
            await self._retry_failures()
            await self.compaction.compact_what_is_due()
            await self.server.clock.sleep(UPKEEP_MSEC)

    async def _retry_failures(self) -> None:
        """Try again to serve what failed, ever more seldom."""
        now = self.server.clock.now_msec()
        if self._failures and now >= self._retry_msec:
            self._pause_msec = min(2 * self._pause_msec, _LONGEST_PAUSE_MSEC)
            self._retry_msec = now + self._pause_msec
            await self.reconfigure()

    async def _tick(self) -> None:
        while True:
            await self.server.clock.sleep(SLOT_SECONDS * 1000)
            self.coverage.tick(self.server.clock.now_msec() / 1000)

    def _write_status(self) -> None:
        """Write what has changed of the status columns."""
        operations: dict[str, list[dict[str, Any]]] = {}
        for spec in self.wanted:
            place = self._find(spec, []) if spec.startswith(PREFIX) else None
            # The rows of a relayed database are its source's, whose remotes they are as well.
            if place is not None and self.server.runners[place.database.name].model != "relay":
                updates = database_remotes.status_operations(place, self._status)
                operations.setdefault(place.database.name, []).extend(updates)
        now = self.server.clock.now_msec()
        for name, updates_of_all in operations.items():
            if updates_of_all:
                request = Transact(_StatusWriter(), b"null", updates_of_all, now)
                self.server.runners[name].transact(request)

    def _status(self, target: str) -> RemoteStatus:
        if target in self.remotes:
            return self.remotes[target].status()
        details = {"last_error": self._failures.get(target, ""), **NEVER_CONNECTED.details}
        return RemoteStatus(False, {name: text for name, text in details.items() if text})


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False  # one that is not there is told of when it is opened


class _StatusWriter:
    """The server itself, as the client that writes the status columns."""

    read_only = False
    role = ""
    identity = None

    def __init__(self) -> None:
        self.waiting: dict[bytes, Runner] = {}

    def owns_lock(self, name: str) -> bool:
        """See `Client.owns_lock`."""
        return False

    def reply(self, id_bytes: bytes, result: bytes) -> None:
        """See `Requester.reply`."""
        for item in orjson.loads(result):
            if item is not None and "error" in item:
                self.reply_error(id_bytes, item)

    def reply_error(self, id_bytes: bytes, error: Any) -> None:
        """See `Requester.reply_error`."""
        _LOG.error("Failed to update remote status: %s", error)
