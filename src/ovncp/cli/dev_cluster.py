"""`ovncp dev-cluster`: a whole cluster on this machine, to try what happens when parts of it die.

An engine (three members of etcd, or PostgreSQL), three servers of both databases over it, and two
`ovn-northd`s, in one directory that has all that is theirs. Whatever dies is started again after
a pause, long enough to see the others go on without it.
"""

import asyncio
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ovncp
from ovncp.cli import options
from ovncp.cli.dev_engines import ENGINES, DevEngine
from ovncp.cli.foreground import NO_NORTHD, OURS, Foreground, daemon_options, find, show
from ovncp.cli.options import Argument, Option, OptionError, Parsed
from ovncp.server import preflight, provision
from ovncp.server.preflight import LOOPBACK, Refused
from ovncp.server.supervisor import Failed, Program

PROGRAM = "ovncp dev-cluster"

OPTIONS = (
    Option("data-dir", Argument.REQUIRED, "", "DIR", "where all is kept (./var/dev-cluster)"),
    Option("schema-dir", Argument.REQUIRED, "", "DIR", "where OVN's schemas are (/usr/share/ovn)"),
    Option("engine", Argument.REQUIRED, "", "NAME", "etcd or postgresql (etcd)"),
    Option("port", Argument.REQUIRED, "", "PORT", "the first of its TCP ports (16641)"),
)
# What shows how the parts take it when another one dies; their logs have the rest.
SERVERS_SAY = ("-vconsole:warn", "-vclustered:console:info")
NORTHDS_SAY = ("-vconsole:warn", "-vovn_northd:console:info")
NUMBERS = (1, 2, 3)
NORTHDS = (1, 2)
SCHEMAS = {"OVN_Northbound": "ovn-nb.ovsschema", "OVN_Southbound": "ovn-sb.ovsschema"}

_DEFAULT_ENGINE = "etcd"
_DEFAULT_PORT = 16641
_HIGHEST_PORT = 65535
_FIRST_LEADER_MSEC = 60_000  # on a machine that is busy
_ENGINE_SECONDS = 10.0
_NORTHD_SECONDS = 5.0
_SERVER_SECONDS = 20.0


@dataclass(frozen=True)
class Settings:
    """The command line, checked. `port` is the first one: three for the servers, then the engine's.

    `engine` is a key of `ENGINES`.
    """

    data_dir: Path
    schema_dir: Path
    engine: str
    port: int

    @property
    def ports(self) -> range:
        """All of them."""
        return range(self.port, self.port + len(NUMBERS) + ENGINES[self.engine].n_ports)


def usage() -> str:
    """The text of --help."""
    head = (
        f"usage: {PROGRAM} [OPTION...]\n"
        "Runs, until Ctrl-C, three members of etcd (or a PostgreSQL), three servers of the\n"
        "Northbound and the Southbound over it, and two ovn-northds, for trying what a cluster\n"
        "does when parts of it die. All of it is kept in one directory, and is there again the\n"
        "next time.\n"
    )
    return head + options.describe("Options", (*OPTIONS, options.GENERAL_OPTIONS[0]))


def settings_of(parsed: Parsed, environment: Mapping[str, str]) -> Settings:
    """Check what was asked for. Raises Refused."""
    if parsed.arguments:
        raise Refused(f"{parsed.arguments[0]!r} is no option; --help has those that are")
    data_dir = Path(parsed.last("data-dir") or "var/dev-cluster").absolute()
    schema_dir = parsed.last("schema-dir") or environment.get("OVNCP_SCHEMA_DIR", "/usr/share/ovn")
    return Settings(
        data_dir,
        Path(schema_dir).absolute(),
        _engine(parsed.last("engine"), data_dir),
        _port(parsed.last("port"), data_dir),
    )


def _engine(text: str | None, data_dir: Path) -> str:
    """The engine: as it was the last time, as the data are there."""
    name = _as_before("engine", text, data_dir) or _DEFAULT_ENGINE
    if name not in ENGINES:
        raise Refused(f"--engine: {name!r} is none of these: {', '.join(ENGINES)}")
    return name


def _port(text: str | None, data_dir: Path) -> int:
    """The first port: as it was the last time, as etcd's members know each other by theirs."""
    highest = _HIGHEST_PORT - 8
    text = _as_before("port", text, data_dir) or str(_DEFAULT_PORT)
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= highest:
        raise Refused(f"--port: {text!r} is no port, a number from 1 to {highest}")
    return int(text)


def _as_before(option: str, text: str | None, data_dir: Path) -> str | None:
    """What an option was the last time, if there was one, or else `text`."""
    try:
        kept = (data_dir / option).read_text().strip()
    except FileNotFoundError:
        return text
    except (OSError, ValueError) as error:
        raise Refused(f"cannot read {data_dir}/{option} ({error}): remove {data_dir}") from error
    if text not in (None, kept):
        advice = f"leave --{option} out, or name another directory with --data-dir"
        raise Refused(f"the cluster in {data_dir} was made with --{option}={kept}: {advice}")
    return kept


def main(argv: Sequence[str]) -> int:
    """Run until a signal; `argv` is without the verb. Returns the exit status."""
    try:
        parsed = options.parse(argv, (*OPTIONS, options.GENERAL_OPTIONS[0]))
        if parsed.has("help"):
            print(usage(), end="")
            return 0
        settings = settings_of(parsed, os.environ)
        lock = preflight.take_directory(settings.data_dir)
        try:
            engine = engine_of(settings)
            check(settings)
            asyncio.run(DevCluster(settings, engine, find("ovn-northd")).run())
        finally:
            os.close(lock)
    except (OptionError, Refused, Failed) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    return 0


def check(settings: Settings) -> None:
    """See that no port is taken, and note for the next time what was settled. Raises Refused."""
    for port in settings.ports:
        preflight.check_port_is_free(port, "--port")
    (settings.data_dir / "port").write_text(f"{settings.port}\n")
    (settings.data_dir / "engine").write_text(f"{settings.engine}\n")


def engine_of(settings: Settings) -> DevEngine:
    """The engine that is to run. Raises Refused if it is not installed."""
    return ENGINES[settings.engine](settings.data_dir, settings.ports[len(NUMBERS) :])


def server_program(number: int, settings: Settings, engine: DevEngine) -> Program:
    """A server of both databases."""
    name, address = f"server-{number}", _address(number, settings)
    argv = (
        *OURS,
        "ovsdb-server",
        f"--remote=p{address}",
        f"--remote=ptcp:{settings.ports[number - 1]}:{LOOPBACK}",
        *daemon_options(settings.data_dir, name, name),
        *SERVERS_SAY,
        *map(engine.location, SCHEMAS),
    )
    return Program(name, argv, address)


def _address(number: int, settings: Settings) -> str:
    return f"unix:{settings.data_dir}/server-{number}.sock"


def northd_program(number: int, settings: Settings, northd: str) -> Program:
    """An `ovn-northd` that goes to any of the servers."""
    name, servers = f"northd-{number}", _servers(settings)
    argv = (
        northd,
        f"--ovnnb-db={servers}",
        f"--ovnsb-db={servers}",
        *daemon_options(settings.data_dir, name, name),
        *NORTHDS_SAY,
    )
    return Program(name, argv)


def _servers(settings: Settings) -> str:
    return ",".join(_address(number, settings) for number in NUMBERS)


class DevCluster:
    """All that runs; `northd` is None where there is none."""

    def __init__(self, settings: Settings, engine: DevEngine, northd: str | None) -> None:
        self.settings = settings
        self._engine = engine
        self._northd = northd
        self._foreground = Foreground("cluster", 8)
        self._say = self._foreground.say

    async def run(self) -> None:
        """Start everything, and run until a signal. Raises Refused and Failed."""
        await self._foreground.run(self._serve())

    async def _serve(self) -> None:
        settings, engine, start = self.settings, self._engine, self._foreground.start
        self._say(
            "cluster", f"ovncp {ovncp.__version__}, everything is kept in {settings.data_dir}"
        )
        await asyncio.to_thread(engine.prepare)
        for program in engine.programs():
            # A group each, as they end one after another: a leader waits for another to take over.
            await start(program, patience_seconds=_ENGINE_SECONDS)
        await asyncio.gather(*map(self._provide, SCHEMAS))
        servers = (server_program(number, settings, engine) for number in NUMBERS)
        await start(*servers, patience_seconds=_SERVER_SECONDS)
        if self._northd is None:
            self._say("northd", NO_NORTHD)
        else:
            northds = (northd_program(number, settings, self._northd) for number in NORTHDS)
            await start(*northds, patience_seconds=_NORTHD_SECONDS)
        show(how_to_connect(settings, engine))
        await self._foreground.watch()

    async def _provide(self, database: str) -> None:
        url = f"{self._engine.location(database)}&timeout_ms={_FIRST_LEADER_MSEC}"
        schema = self.settings.schema_dir / SCHEMAS[database]
        self._say(self._engine.name, await provision.provide_log(url, schema, (*OURS, "db")))


def how_to_connect(settings: Settings, engine: DevEngine) -> str:
    """What to type in another terminal, and what to try."""
    directory = settings.data_dir
    addresses = "".join(
        f"    server {number}  {_address(number, settings)}  {_tcp(number, settings)}\n"
        for number in NUMBERS
    )
    victim, what = engine.victim
    kill_victim = f"kill -9 $(cat $D/{victim}.pid)"
    remotes = ",".join(_tcp(number, settings) for number in NUMBERS)
    return (
        f"\n{addresses}    {engine.name:<10}{engine.addresses}\n"
        "\nIn another terminal:\n"
        f"    export D={shlex.quote(str(directory))}\n"
        f"    export OVN_NB_DB={remotes}\n"
        "    export OVN_SB_DB=$OVN_NB_DB\n"
        "    ovn-nbctl --wait=sb ls-add web\n"
        "    ovn-sbctl lflow-list web\n"
        "What to try, and to go on meanwhile:\n"
        "    kill -9 $(cat $D/server-1.pid)                                a server\n"
        f"    {kill_victim:<62}{what}\n"
        "    kill -9 $(cat $D/northd-1.pid)                                an ovn-northd\n"
        "    ovn-appctl -t $D/northd-2.ctl status                          active, or standby\n"
        "    ovs-appctl -t $D/server-2.ctl cluster/status OVN_Southbound   who is there\n"
        "What dies comes back. Ctrl-C stops everything, and keeps it.\n"
    )


def _tcp(number: int, settings: Settings) -> str:
    return f"tcp:{LOOPBACK}:{settings.ports[number - 1]}"
