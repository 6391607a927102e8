"""`ovncp simulate`: the command line of the load generator, and what it prints."""

import asyncio
import gc
import json
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import uvloop

from ovncp.cli import options
from ovncp.cli.connect import connector, tls_files
from ovncp.cli.options import Argument, Option, OptionError, Parsed
from ovncp.cli.progress import Progress
from ovncp.ops.refusal import Refusal
from ovncp.ops.simulate import plot, simulation
from ovncp.ops.simulate.plan import Plan
from ovncp.ops.simulate.process import allow_files
from ovncp.ops.simulate.report import Report
from ovncp.ops.simulate.simulation import Endpoints, Load, Simulation

PROGRAM = "ovncp simulate"

NETWORK_OPTIONS = (
    Option("hypervisors", Argument.REQUIRED, "", "N", "how many connect (10)"),
    Option("ports", Argument.REQUIRED, "", "N", "ports on each hypervisor (10)"),
    Option("datapaths", Argument.REQUIRED, "", "N", "datapaths that each hypervisor sees (4)"),
    Option("spread", Argument.REQUIRED, "", "N", "hypervisors that see each datapath (10)"),
    Option("fill", Argument.REQUIRED, "", "ROWS", "more Port_Bindings, which nobody writes to (0)"),
    Option("whole-table", help="monitor everything, as with ovn-monitor-all"),
    Option("northbound", Argument.REQUIRED, "", "TARGET", "write there, and let ovn-northd work"),
)
LOAD_OPTIONS = (
    Option("writes-per-second", Argument.REQUIRED, "", "N", "what the CMS writes (100)"),
    Option("duration", Argument.REQUIRED, "", "SECONDS", "how long (10)"),
    Option("update-interval", Argument.REQUIRED, "", "SECONDS", "of a hypervisor's writes (10)"),
    Option("replug-interval", Argument.REQUIRED, "", "SECONDS", "of changing its conditions (60)"),
    Option("storm", help="then disconnect all, and let all come back at once"),
)
RUN_OPTIONS = (
    Option("json", help="print the report as JSON"),
    Option("plot", Argument.REQUIRED, "", "FILE.png", "draw what happened second by second"),
    Option("pid", Argument.REQUIRED, "", "PID", "the server, where it is not found by itself"),
    Option("keep", help="leave the rows there"),
    Option("clean", help="only delete what earlier runs left"),
)
TABLE = (
    *NETWORK_OPTIONS,
    *LOAD_OPTIONS,
    *RUN_OPTIONS,
    *options.TLS_OPTIONS,
    options.GENERAL_OPTIONS[0],
)

_SPARE_FILES = 64
_INTERRUPTED_STATUS = 130  # as a shell has it for a program that SIGINT ended
_YOUNG_OBJECTS = 100_000


@dataclass(frozen=True)
class Settings:
    """The command line, checked."""

    plan: Plan
    load: Load
    endpoints: Endpoints
    as_json: bool
    plot: str | None
    clean: bool


def usage() -> str:
    """The text of --help."""
    tables = (
        ("Network", NETWORK_OPTIONS),
        ("Load", LOAD_OPTIONS),
        ("Run", (*RUN_OPTIONS, options.GENERAL_OPTIONS[0])),
        ("TLS", options.TLS_OPTIONS),
    )
    head = (
        f"usage: {PROGRAM} TARGET [OPTION...]\n"
        "Plays hypervisors and a CMS to the OVSDB server of a Southbound database at TARGET\n"
        "(tcp:HOST:PORT, ssl:HOST:PORT or unix:FILE), and reports how long changes take to\n"
        "arrive. Its rows are deleted at the end, or at Ctrl-C.\n"
    )
    return head + "".join(options.describe(title, table) for title, table in tables)


def settings_of(parsed: Parsed) -> Settings:
    """Check what was asked for. Raises Refusal."""
    if len(parsed.arguments) != 1:
        raise Refusal("one TARGET is wanted, such as tcp:127.0.0.1:6642; --help has the options")
    number = partial(_number, parsed)
    plan = Plan(
        run=secrets.token_hex(2),
        hypervisors=int(number("hypervisors", 10, 1, whole=True)),
        ports=int(number("ports", 10, 1, whole=True)),
        datapaths=int(number("datapaths", 4, 1, whole=True)),
        spread=int(number("spread", 10, 1, whole=True)),
        fill=int(number("fill", 0, 0, whole=True)),
        whole_table=parsed.has("whole-table"),
    )
    load = Load(
        writes_per_second=number("writes-per-second", 100, 0),
        duration=number("duration", 10, 0),
        update_interval=number("update-interval", 10, 0),
        replug_interval=number("replug-interval", 60, 0),
        storm=parsed.has("storm"),
        keep=parsed.has("keep"),
    )
    files = tls_files(parsed)
    (target,) = parsed.arguments
    northbound = parsed.last("northbound")
    pid = int(number("pid", 0, 0, whole=True))
    endpoints = Endpoints(
        target=target,
        southbound=connector(target, files),
        northbound=None if northbound is None else connector(northbound, files),
        pid=pid or None,
    )
    return Settings(
        plan, load, endpoints, parsed.has("json"), parsed.last("plot"), parsed.has("clean")
    )


def _number(parsed: Parsed, name: str, default: float, least: float, whole: bool = False) -> float:
    text = parsed.last(name)
    if text is None:
        return default
    kind = "a whole number" if whole else "a number"
    try:
        value = int(text) if whole else float(text)
    except ValueError as error:
        raise Refusal(f"--{name}: {text!r} is not {kind}") from error
    if not least <= value < float("inf"):
        raise Refusal(f"--{name}: {text} is not {kind} of at least {least:g}")
    return value


def main(argv: Sequence[str]) -> int:
    """Run it; `argv` is without the verb. Returns the exit status: 2 if something was lost."""
    show = Progress()
    try:
        parsed = options.parse(argv, TABLE)
        if parsed.has("help"):
            print(usage(), end="")
            return 0
        settings = settings_of(parsed)
        if settings.plot is not None:
            plot.require_matplotlib()
        allow_files(settings.plan.hypervisors + _SPARE_FILES)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(settings, show))
    except (OptionError, Refusal, OSError) as error:
        show.clear()
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        show.clear()
        return _INTERRUPTED_STATUS


async def _run(settings: Settings, show: Progress) -> int:
    if settings.clean:
        n_rows = await simulation.clean(settings.endpoints, show)
        show.clear()
        print(f"{n_rows:,} rows deleted")
        return 0
    # What is kept is in no cycle that ends; looking through it again would be a stall of its own.
    gc.set_threshold(_YOUNG_OBJECTS, 1000, 1000)
    running = Simulation(settings.endpoints, settings.plan, settings.load, show)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, _interrupt(running))
    report = await running.run()
    show.clear()
    _print(report, settings)
    return 0 if report.is_whole else 2


def _interrupt(running: Simulation) -> Callable[[], None]:
    """What Ctrl-C does: the load ends, and is reported; once more, and all ends."""
    main_task = asyncio.current_task()
    assert main_task is not None

    def interrupt() -> None:
        if running.stopping.is_set():
            main_task.cancel()
        running.stopping.set()

    return interrupt


def _print(report: Report, settings: Settings) -> None:
    if settings.plot is not None:
        plot.draw(report, settings.plot)
    if settings.as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print(report.text(), end="")
