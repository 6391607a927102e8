"""Logs in the form of an OVS daemon (ovs-appctl(8), LOGGING COMMANDS), on top of stdlib logging.

The logger `ovncp.MODULE` is the OVS log module MODULE.  One `Vlog` is a logging handler with three
destinations (console, syslog, file); every module has a level for each, every destination has a
pattern.  A module's stdlib level is kept at the most verbose of its destinations, so that a
disabled call costs what `Logger.isEnabledFor` costs and nothing more.
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from ovncp.server import dirs
from ovncp.server.command import ANY_NUMBER, Command, CommandError
from ovncp.server.log_pattern import DBG, EMER, ERR, INFO, LEVELS, OFF, WARN, Entry, compile_pattern
from ovncp.server.rate_limit import LIFTED
from ovncp.server.syslog import FACILITIES, SpecError, Syslog, open_syslog, open_target

_STDLIB_LEVELS = (
    100,
    logging.CRITICAL,
    logging.ERROR,
    logging.WARNING,
    logging.INFO,
    logging.DEBUG,
)

DESTINATIONS = ("SYSLOG", "CONSOLE", "FILE")
SYSLOG, CONSOLE, FILE = range(3)
_DEFAULT_PATTERNS = (
    "ovs|%05N|%c%T|%p|%m",
    "%D{%Y-%m-%dT%H:%M:%SZ}|%05N|%c%T|%p|%m",
    "%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m",
)

# Scripts set the level of any module that the C server has, so each of them must be known here.
_MODULES = """
backtrace bundle command_line conntrack conntrack_tp cooperative_multitasking coverage ct_dpif
daemon daemon_unix dns_resolve dpdk dpif dpif_lookup_autovalidator dpif_lookup_generic
dpif_mfex_extract_study dpif_netdev dpif_netdev_extract dpif_netdev_impl dpif_netdev_lookup
dpif_netlink dpif_netlink_rtnl entropy fatal_signal flow hmap ipf jsonrpc lockfile memory meta_flow
native_tnl netdev netdev_afxdp netdev_linux netdev_offload netdev_offload_tc netdev_vport netlink
netlink_conntrack netlink_notifier netlink_socket nx_match odp_execute odp_execute_impl odp_util
ofp_actions ofp_bundle ofp_connection ofp_errors ofp_flow ofp_group ofp_match ofp_meter ofp_monitor
ofp_msgs ofp_packet ofp_port ofp_protocol ofp_queue ofp_table ofp_util ovs_numa ovs_rcu ovs_replay
ovs_router ovs_thread ovsdb ovsdb_cs ovsdb_error ovsdb_file ovsdb_idl ovsdb_jsonrpc_server
ovsdb_log ovsdb_monitor ovsdb_rbac ovsdb_server ovsdb_util ox_stat pmd_perf poll_loop process raft
raft_rpc reconnect relay replication route_table sha1 signals socket_util socket_util_unix storage
stream stream_fd stream_replay stream_ssl stream_tcp stream_unix svec tc timeval transaction
transaction_forward trigger unixctl userspace_tso util uuid vlog
"""
_OURS = "clustered"

_LIST_HEADER = """\
                 console    syslog    file
                 -------    ------    ------
"""
_PATTERN_HEADER = """\
         prefix                            format
         ------                            ------
"""

_SEPARATORS = "[ ,:\t]"
_log = logging.getLogger("ovncp.vlog")


class Module:
    """A log module: its level for each destination."""

    __slots__ = ("levels", "name")

    def __init__(self, name: str, levels: list[int]) -> None:
        self.name = name
        self.levels = levels

    @property
    def logger(self) -> str:
        """The name of its logger."""
        return f"ovncp.{self.name}"


class Vlog(logging.Handler):
    """The process's log.  `install` makes the one that the daemon uses."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self.program = program
        self.subprogram = ""
        self._number = 0
        self._default = Module("ANY", [INFO, INFO, INFO])
        self._modules = {name: Module(name, [INFO] * 3) for name in f"{_MODULES} {_OURS}".split()}
        self._patterns = list(_DEFAULT_PATTERNS)
        self._renders = [compile_pattern(pattern) for pattern in _DEFAULT_PATTERNS]
        self._facility: int | None = None
        self._syslog: Syslog | None = None
        self._target: Syslog | None = None
        self._file_name: str | None = None
        self._file = -1

    # Writing

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record` to the destinations whose level for its module admits it."""
        try:
            self._emit(record)
        except Exception:  # noqa: BLE001 - as in every stdlib handler: a bad call must not raise
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        module = self._module(record.name)
        level = _level_of(record.levelno)
        wanted = [d for d in range(3) if module.levels[d] >= level and self._is_open(d)]
        if not wanted:
            return
        self._number += 1
        facility = FACILITIES["local0"] if self._facility is None else self._facility
        entry = Entry(
            self.program,
            self.subprogram,
            module.name,
            level,
            self.format(record),
            self._number,
            record.created,
            facility,
        )
        for destination in wanted:
            self._write(destination, entry)

    def _is_open(self, destination: int) -> bool:
        return destination != FILE or self._file >= 0

    def _write(self, destination: int, entry: Entry) -> None:
        text = self._renders[destination](entry)
        if destination == SYSLOG:
            self._write_syslog(entry, text)
        else:
            # A full disk or a closed terminal must not stop the daemon.
            with contextlib.suppress(OSError):
                descriptor = self._file if destination == FILE else 2
                os.write(descriptor, f"{text}\n".encode("utf-8", "backslashreplace"))

    def _write_syslog(self, entry: Entry, text: str) -> None:
        if self._facility is None:
            entry_for_daemon = entry._replace(facility=FACILITIES["daemon"])
        else:
            entry_for_daemon = entry
        self._open_syslog().send(entry_for_daemon, text)
        if self._target is not None:
            self._target.send(entry, entry.message)

    def _open_syslog(self) -> Syslog:
        if self._syslog is None:
            self._syslog = open_syslog(os.environ.get("OVS_SYSLOG_METHOD") or "libc")
        return self._syslog

    def _module(self, logger: str) -> Module:
        name = logger.removeprefix("ovncp.").replace(".", "_")
        found = self._modules.get(name)
        if found is None:
            found = self._modules[name] = Module(name, list(self._default.levels))
        return found

    # Levels and patterns

    def set_verbosity(self, spec: str | None) -> None:
        """`-v[SPEC]`: no SPEC is everything at DBG.  Raises SpecError."""
        try:
            self.set(spec or "")
        except SpecError as error:
            raise SpecError(f'processing "{spec}": {error}') from error

    def set(self, spec: str) -> None:
        """Obey one SPEC of `vlog/set` or `-v` (ovs-appctl(8)).  Raises SpecError."""
        word, rest = _token(spec)
        if word.upper() == "PATTERN":
            self._set_pattern(rest)
        elif word.upper() == "FACILITY":
            self._set_facility(rest)
        else:
            self._set_levels(spec)

    def _set_pattern(self, rest: str) -> None:
        name, pattern = _token(rest)
        if not name:
            raise SpecError("missing destination")
        if name.upper() not in (*DESTINATIONS, "ANY"):
            raise SpecError(f'unknown destination "{name}"')
        for n, destination in enumerate(DESTINATIONS):
            if name.upper() in (destination, "ANY"):
                self._patterns[n] = pattern
                self._renders[n] = compile_pattern(pattern)

    def _set_facility(self, name: str) -> None:
        if name.lower() not in FACILITIES:
            raise SpecError("invalid facility")
        self._facility = FACILITIES[name.lower()]

    def _set_levels(self, spec: str) -> None:
        chosen: dict[str, str] = {}
        for word in filter(None, re.split(_SEPARATORS, spec)):
            kind = self._kind(word)
            if kind in chosen:
                raise SpecError(f"cannot specify multiple {kind}s")
            if kind != "any":
                chosen[kind] = word
        level = LEVELS.index(chosen.get("level", "DBG").upper())
        module = chosen.get("module", "").lower()
        wanted = chosen.get("destination", "").upper()
        for n, destination in enumerate(DESTINATIONS):
            if wanted in ("", destination):
                self._set_level(module, n, level)
        self._apply()

    def _kind(self, word: str) -> str:
        """What a word of a SPEC names: a destination before a level before a module."""
        upper = word.upper()
        if upper == "ANY":
            return "any"
        if upper in DESTINATIONS:
            return "destination"
        if upper in LEVELS:
            return "level"
        if word.lower() in self._modules:
            return "module"
        raise SpecError(f'no destination, level, or module "{word}"')

    def _set_level(self, module: str, destination: int, level: int) -> None:
        modules = [self._modules[module]] if module else [self._default, *self._modules.values()]
        for each in modules:
            each.levels[destination] = level

    def _apply(self) -> None:
        """Give each stdlib logger the most verbose level of its module's open destinations."""
        _set_logger("ovncp", self._stdlib_level(self._default))
        for name, module in self._modules.items():
            _set_logger(f"ovncp.{name}", self._stdlib_level(module))

    def _stdlib_level(self, module: Module) -> int:
        return _STDLIB_LEVELS[max(module.levels[d] for d in range(3) if self._is_open(d))]

    def close_console(self) -> None:
        """Log to stderr no more: what a daemon does once it has detached."""
        self.set("console:off")

    # The log file

    def open_file(self, name: str | None) -> None:
        """Log to `name` (default NAME.log in the log directory) from now on.

        A failure is logged, and raised as OSError; the log goes on as before.
        """
        name = f"{dirs.logdir()}/{self.program}.log" if name is None else name
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o660)
        except OSError as error:
            _log.warning("failed to open %s for logging: %s", name, error.strerror)
            raise
        if self._file >= 0 and os.path.samestat(os.fstat(self._file), os.fstat(descriptor)):
            os.close(descriptor)
            return
        self.close_file(announce=True)
        self._file, self._file_name = descriptor, name
        self._apply()
        _log.info("opened log file %s", name)

    def close_file(self, announce: bool = False) -> None:
        """Stop logging to the file; `reopen` starts again."""
        if self._file < 0:
            return
        if announce:
            _log.info("closing log file")
        os.close(self._file)
        self._file = -1
        self._apply()

    def reopen(self) -> None:
        """Open the log file by its name again, after a rotation.  Raises OSError."""
        if self._file_name is not None:
            self.open_file(self._file_name)

    def give_file(self, uid: int, gid: int) -> None:
        """Hand the log file to another user, for a daemon that gives up root."""
        if self._file_name is not None:
            os.chown(self._file_name, uid, gid)

    def close(self) -> None:
        """Release the file and the sockets (logging.Handler.close)."""
        self.close_file()
        for syslog in filter(None, (self._syslog, self._target)):
            syslog.close()
        super().close()

    # The command line

    def hooks(self) -> dict[str, Callable[[str | None], object]]:
        """What each of VLOG_OPTIONS does, for `options.parse`."""
        return {
            "verbose": self.set_verbosity,
            "log-file": self._option_log_file,
            "syslog-method": self._option_syslog_method,
            "syslog-target": self._option_syslog_target,
        }

    def _option_log_file(self, name: str | None) -> None:
        try:
            self.open_file(name)
        except OSError as error:  # it has been logged
            raise SystemExit(1) from error

    def _option_syslog_method(self, method: str | None) -> None:
        syslog = open_syslog(method or "")
        if self._syslog is None:  # the first one counts
            self._syslog = syslog

    def _option_syslog_target(self, target: str | None) -> None:
        self._target = open_target(target or "")
        _log.warning("--syslog-target flag is deprecated, use --syslog-method instead")

    def fatal(self, module: str, message: str) -> NoReturn:
        """Log `message` at EMER, print it to stderr whatever the levels, and exit with status 1."""
        self._module(module).levels[CONSOLE] = OFF
        self._apply()
        logging.getLogger(f"ovncp.{module}").critical("%s", message)
        print(f"{self.program}: {message}", file=sys.stderr, flush=True)
        raise SystemExit(1)

    # Runtime commands

    def commands(self) -> list[Command]:
        """The `vlog/` commands, for `Unixctl.register`."""
        set_usage = "{spec | PATTERN:destination:pattern}"
        return [
            Command("vlog/set", set_usage, 0, ANY_NUMBER, self._command_set),
            Command("vlog/list", "", 0, 0, lambda _: self.list_levels()),
            Command("vlog/list-pattern", "", 0, 0, lambda _: self.list_patterns()),
            Command("vlog/enable-rate-limit", "[module]...", 0, ANY_NUMBER, self._enable_limit),
            Command("vlog/disable-rate-limit", "[module]...", 0, ANY_NUMBER, self._disable_limit),
            Command("vlog/reopen", "", 0, 0, self._command_reopen),
            Command("vlog/close", "", 0, 0, self._command_close),
        ]

    def _command_set(self, specs: list[str]) -> str:
        for spec in specs:
            self.set(spec)
        return ""

    def list_levels(self) -> str:
        """The table of `vlog/list`."""
        return _LIST_HEADER + "".join(sorted(map(_list_line, self._modules.values())))

    def list_patterns(self) -> str:
        """The table of `vlog/list-pattern`."""
        prefixes = (self._open_syslog().prefix, "none", "none")
        rows = zip(DESTINATIONS, prefixes, self._patterns, strict=True)
        return _PATTERN_HEADER + "".join(f"{d:<7}  {x:<32}  {p}\n" for d, x, p in rows)

    def _enable_limit(self, names: list[str]) -> str:
        return self._set_limits(names, True)

    def _disable_limit(self, names: list[str]) -> str:
        return self._set_limits(names, False)

    def _set_limits(self, names: list[str], enable: bool) -> str:
        for name in names or ["ANY"]:
            if name.upper() != "ANY" and name.lower() not in self._modules:
                raise CommandError("unknown module")
            for module in self._modules.values():
                if name.lower() in ("any", module.name):
                    (LIFTED.discard if enable else LIFTED.add)(module.logger)
        return ""

    def _command_reopen(self, _: list[str]) -> str:
        if self._file_name is None:
            raise CommandError("Logging to file not configured")
        try:
            self.reopen()
        except OSError as error:
            raise CommandError(error.strerror or str(error)) from error
        return ""

    def _command_close(self, _: list[str]) -> str:
        self.close_file()
        return ""


def _token(text: str) -> tuple[str, str]:
    """The first word of a SPEC, and what follows the one separator after it."""
    word, *rest = re.split(_SEPARATORS, text.lstrip(" ,:\t"), maxsplit=1)
    return word, "".join(rest)


def _level_of(stdlib: int) -> int:
    return next(
        (level for level in (EMER, ERR, WARN, INFO) if stdlib >= _STDLIB_LEVELS[level]), DBG
    )


def _set_logger(name: str, level: int) -> None:
    logger = logging.getLogger(name)
    if logger.level != level:  # a change empties the level caches of all loggers
        logger.setLevel(level)


def _list_line(module: Module) -> str:
    console, syslog, file = (LEVELS[module.levels[d]] for d in (CONSOLE, SYSLOG, FILE))
    note = "    (rate limiting disabled)" if module.logger in LIFTED else ""
    return f"{module.name:<16}  {console:>4}       {syslog:>4}       {file:>4}{note}\n"


def _open_standard_descriptors() -> None:
    """Open those of 0 to 2 that are closed, lest the log write to what would be opened there."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # becomes the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def install(program: str) -> Vlog:
    """Make the process log as the daemon `program` does, and return its log."""
    _open_standard_descriptors()
    result = Vlog(program)
    logging.getLogger().addHandler(result)
    result._apply()
    return result
