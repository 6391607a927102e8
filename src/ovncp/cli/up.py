"""`ovncp up`: a Northbound and a Southbound database, `ovn-northd` between them, and the API.

Each runs as a child in the foreground of one directory, which has all that is theirs: databases,
sockets, pidfiles, logs. What would stand in the way is looked for before anything starts. A child
that dies is started again after a pause, as the clients of a database expect, who connect again
and lose nothing; a database that does not come back ends everything, so that whoever watches over
this command learns of it.
"""

import asyncio
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import ovncp
from ovncp.cli import options
from ovncp.cli.foreground import NO_NORTHD, OURS, Foreground, daemon_options, find, show
from ovncp.cli.options import Argument, Option, OptionError, Parsed
from ovncp.server import preflight, provision
from ovncp.server.preflight import Refused
from ovncp.server.supervisor import Failed, Program

PROGRAM = "ovncp up"

OPTIONS = (
    Option("data-dir", Argument.REQUIRED, "", "DIR", "where everything is kept (./var)"),
    Option("schema-dir", Argument.REQUIRED, "", "DIR", "where OVN's schemas are (/usr/share/ovn)"),
    Option("schema-from", Argument.REQUIRED, "", "REMOTE,...", "servers to ask for them instead"),
    Option("nb-port", Argument.REQUIRED, "", "PORT", "TCP port of the Northbound (6641)"),
    Option("sb-port", Argument.REQUIRED, "", "PORT", "TCP port of the Southbound (6642)"),
    Option("nb-metrics", Argument.REQUIRED, "", "HOST:PORT", "where NB's metrics are (none)"),
    Option("sb-metrics", Argument.REQUIRED, "", "HOST:PORT", "where SB's metrics are (none)"),
    Option("api-port", Argument.REQUIRED, "", "PORT", "TCP port of the API, or none (8080)"),
    Option("northd", Argument.REQUIRED, "", "yes|no", "whether to run ovn-northd (yes)"),
    Option("no-northd", help="the same as --northd=no"),
)
DEFAULTS = {
    "data-dir": "var",
    "schema-dir": "/usr/share/ovn",
    "schema-from": "none",
    "nb-port": "6641",
    "sb-port": "6642",
    "nb-metrics": "none",
    "sb-metrics": "none",
    "api-port": "8080",
    "northd": "yes",
}
ENVIRONMENT = {f"OVNCP_{name.upper().replace('-', '_')}": name for name in DEFAULTS}
"""The variables that set what an option of this name does not."""

_SOURCE = "OVNCP_SOURCE"  # has a say in which copy of the modules this is

_NONE = "none"

_NORTHD_SECONDS = 5.0
_SERVER_SECONDS = 20.0
_API_SECONDS = 15.0
_NO_API = "not installed: pip install 'ovncp[platform]'"


@dataclass(frozen=True)
class Settings:
    """The command line and the environment, checked."""

    data_dir: Path
    schema_dir: Path
    schema_from: str
    nb_port: int
    sb_port: int
    nb_metrics: str
    sb_metrics: str
    api_port: int | None
    northd: bool


class Commands(NamedTuple):
    """The command lines of the programs that are run; None for what is not installed."""

    server: Sequence[str]
    tool: Sequence[str]
    northd: Sequence[str] | None
    api: Sequence[str] | None


class Side(NamedTuple):
    """One of the two databases, and the names of what is its own."""

    name: str
    title: str
    database: str
    root: str
    schema: str
    file: str
    stem: str
    port: Callable[[Settings], int]
    metrics: Callable[[Settings], str]


NB = Side(
    "nb",
    "Northbound",
    "OVN_Northbound",
    "NB_Global",
    "ovn-nb.ovsschema",
    "nb.db",
    "ovnnb_db",
    lambda settings: settings.nb_port,
    lambda settings: settings.nb_metrics,
)
SB = Side(
    "sb",
    "Southbound",
    "OVN_Southbound",
    "SB_Global",
    "ovn-sb.ovsschema",
    "sb.db",
    "ovnsb_db",
    lambda settings: settings.sb_port,
    lambda settings: settings.sb_metrics,
)
SIDES = (NB, SB)


def usage() -> str:
    """The text of --help."""
    head = (
        f"usage: {PROGRAM} [OPTION...]\n"
        "Runs a Northbound and a Southbound database, ovn-northd where it is installed, and the\n"
        "API, until Ctrl-C. All is kept in one directory, and is there again the next time.\n"
    )
    environment = "".join(f"  {variable}\n" for variable in ENVIRONMENT)
    return (
        head
        + options.describe("Options", (*OPTIONS, options.GENERAL_OPTIONS[0]))
        + f"\nVariables, for what no option sets:\n{environment}"
    )


def settings_of(parsed: Parsed, environment: Mapping[str, str]) -> Settings:
    """Check what was asked for. Raises Refused."""
    if parsed.arguments:
        raise Refused(f"{parsed.arguments[0]!r} is no option; --help has those that are")
    unknown = [name for name in environment if name.startswith("OVNCP_")]
    unknown = [name for name in unknown if name not in (*ENVIRONMENT, _SOURCE)]
    if unknown:
        raise Refused(f"{unknown[0]} means nothing; the variables are {', '.join(ENVIRONMENT)}")
    values = dict(DEFAULTS)
    values |= {
        option: environment[name] for name, option in ENVIRONMENT.items() if name in environment
    }
    values |= {name: value for name, value in parsed.options if value is not None}
    if parsed.has("no-northd"):
        values["northd"] = "no"
    settings = Settings(
        data_dir=Path(values["data-dir"]).absolute(),
        schema_dir=Path(values["schema-dir"]).absolute(),
        schema_from=values["schema-from"],
        nb_port=_port("nb-port", values),
        sb_port=_port("sb-port", values),
        nb_metrics=values["nb-metrics"],
        sb_metrics=values["sb-metrics"],
        api_port=None if values["api-port"] == _NONE else _port("api-port", values),
        northd=_yes_or_no("northd", values),
    )
    ports = {"--nb-port": settings.nb_port, "--sb-port": settings.sb_port}
    ports |= {} if settings.api_port is None else {"--api-port": settings.api_port}
    for one, other in combinations(ports, 2):
        if ports[one] == ports[other]:
            raise Refused(f"{one} and {other} are both {ports[one]}: they must differ")
    return settings


def _port(name: str, values: Mapping[str, str]) -> int:
    text = values[name]
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise Refused(f"--{name}: {text!r} is no port, a number from 1 to 65535")
    return int(text)


def _yes_or_no(name: str, values: Mapping[str, str]) -> bool:
    if values[name] not in ("yes", "no"):
        raise Refused(f"--{name}: {values[name]!r} is neither yes nor no")
    return values[name] == "yes"


def installed() -> Commands:
    """Our own server and tool, and the `ovn-northd` of this machine."""
    northd = find("ovn-northd")
    return Commands(
        server=(*OURS, "ovsdb-server"),
        tool=(*OURS, "ovsdb-tool"),
        northd=(northd,) if northd else None,
        api=(*OURS, "api") if find_spec("fastapi") else None,
    )


def main(argv: Sequence[str], commands: Commands | None = None) -> int:
    """Run until a signal; `argv` is without the verb. Returns the exit status."""
    try:
        parsed = options.parse(argv, (*OPTIONS, options.GENERAL_OPTIONS[0]))
        if parsed.has("help"):
            print(usage(), end="")
            return 0
        settings = settings_of(parsed, os.environ)
        lock = check(settings)
        try:
            return asyncio.run(Up(settings, commands or installed()).run())
        finally:
            os.close(lock)
    except (OptionError, Refused, Failed) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1


def check(settings: Settings) -> int:
    """See that nothing stands in the way; the data directory's lock. Raises Refused."""
    lock = preflight.take_directory(settings.data_dir)
    for side in SIDES:
        preflight.check_database_is_free(settings.data_dir / side.file)
        preflight.check_port_is_free(side.port(settings), f"--{side.name}-port")
    if settings.api_port is not None:
        preflight.check_port_is_free(settings.api_port, "--api-port")
    return lock


def server_program(side: Side, settings: Settings, server: Sequence[str]) -> Program:
    """The server of one side."""
    directory = settings.data_dir
    metrics = side.metrics(settings)
    remotes = (
        f"p{_address(side, settings)}",
        f"ptcp:{side.port(settings)}:{preflight.LOOPBACK}",
        f"db:{side.database},{side.root},connections",
    )
    argv = (
        *server,
        *(f"--remote={remote}" for remote in remotes),
        *([f"--metrics={metrics}"] if metrics != _NONE else []),
        *daemon_options(directory, side.stem, f"ovsdb-server-{side.name}"),
        str(directory / side.file),
    )
    return Program(side.name, argv, _address(side, settings), needed=True)


def northd_program(settings: Settings, northd: Sequence[str]) -> Program:
    """The `ovn-northd` between the two."""
    nb, sb = (_address(side, settings) for side in SIDES)
    argv = (
        *northd,
        f"--ovnnb-db={nb}",
        f"--ovnsb-db={sb}",
        *daemon_options(settings.data_dir, "ovn-northd", "ovn-northd"),
    )
    return Program("northd", argv)


def api_program(settings: Settings, api: Sequence[str]) -> Program:
    """The node of the platform, for this machine alone."""
    nb, sb = (_address(side, settings) for side in SIDES)
    port = f"{settings.api_port}"
    argv = (
        *api,
        f"--nb={nb}",
        f"--sb={sb}",
        f"--host={preflight.LOOPBACK}",
        f"--port={port}",
        "--metrics-port=none",  # /metrics is on the other one too
        "--log-format=text",
    )
    return Program("api", argv, f"tcp:{preflight.LOOPBACK}:{port}")


def _address(side: Side, settings: Settings) -> str:
    return f"unix:{settings.data_dir}/{side.stem}.sock"


class Up:
    """All that runs."""

    def __init__(self, settings: Settings, commands: Commands) -> None:
        self.settings = settings
        self.commands = commands
        self._foreground = Foreground("up", 6)
        self._say = self._foreground.say

    async def run(self) -> int:
        """Start everything, and run until a signal; the exit status."""
        await self._foreground.run(self._serve())
        return 0

    async def _serve(self) -> None:
        directory = self.settings.data_dir
        self._say("up", f"ovncp {ovncp.__version__}, everything is kept in {directory}")
        for side in SIDES:
            file, schema = directory / side.file, await self._schema(side)
            self._say(side.name, await provision.provide(file, schema, self.commands.tool))
        servers = (server_program(side, self.settings, self.commands.server) for side in SIDES)
        await self._foreground.start(*servers, patience_seconds=_SERVER_SECONDS)
        await self._start_northd()
        await self._start_api()
        show(how_to_connect(self.settings))
        await self._foreground.watch()

    async def _schema(self, side: Side) -> Path:
        if self.settings.schema_from == _NONE:
            return self.settings.schema_dir / side.schema
        # Imported late: it is not needed by those who have the files.
        from ovncp.cli import schemas

        path = self.settings.data_dir / side.schema
        self._say(side.name, await schemas.fetch(self.settings.schema_from, side.database, path))
        return path

    async def _start_northd(self) -> None:
        if not self.settings.northd:
            self._say("northd", "not wanted: what is configured does not become flows")
        elif self.commands.northd is None:
            self._say("northd", NO_NORTHD)
        else:
            northd = northd_program(self.settings, self.commands.northd)
            await self._foreground.start(northd, patience_seconds=_NORTHD_SECONDS)

    async def _start_api(self) -> None:
        if self.settings.api_port is None:
            self._say("api", "not wanted")
        elif self.commands.api is None:
            self._say("api", _NO_API)
        else:
            api = api_program(self.settings, self.commands.api)
            await self._foreground.start(api, patience_seconds=_API_SECONDS)


def how_to_connect(settings: Settings) -> str:
    """What to type in another terminal."""
    addresses = "".join(
        f"    {side.title}  {_address(side, settings)}\n"
        f"    {'':<{len(side.title)}}  tcp:{preflight.LOOPBACK}:{side.port(settings)}\n"
        for side in SIDES
    )
    nb, sb = (shlex.quote(_address(side, settings)) for side in SIDES)
    if settings.api_port is not None:
        addresses += f"    API         http://{preflight.LOOPBACK}:{settings.api_port}/docs\n"
    return (
        f"\n{addresses}\n"
        "In another terminal:\n"
        f"    export OVN_NB_DB={nb} OVN_SB_DB={sb}\n"
        "    ovn-nbctl show\n"
        f"or, for one command: ovn-nbctl --db={nb} show\n"
        "Ctrl-C stops everything, and keeps it.\n"
    )
