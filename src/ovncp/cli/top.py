"""`ovncp top`: the command line and the terminal of ops/top."""

import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import orjson

from ovncp.cli import options
from ovncp.cli.options import Option, OptionError, Parsed
from ovncp.ops.top.figures import Json, Look, figures
from ovncp.ops.top.samples import Samples
from ovncp.ops.top.screen import lines
from ovncp.ops.top.source import Unreachable, source
from ovncp.server import dirs

PROGRAM = "ovncp top"

OPTIONS = (
    Option("once", help="print one screen, and end"),
    Option("json", help="print the figures as JSON, and end"),
)
_PERIOD_SECONDS = 1.0

_ENTER = "\x1b[?1049h\x1b[?25l"  # another screen, and no cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def usage() -> str:
    """The text of --help."""
    return (
        f"usage: {PROGRAM} [OPTION...] [TARGET]\n"
        "Shows how a server fares, live until q or Ctrl-C. TARGET is where the server shows its\n"
        "metrics (HOST:PORT, see its --metrics), the path of its control socket, or its name, by\n"
        "which its pidfile is found; without one, it is the server that ovs-appctl would find.\n"
        + options.describe("Options", (*OPTIONS, options.GENERAL_OPTIONS[0]))
    )


def main(argv: Sequence[str]) -> int:
    """Show a server; `argv` is without the verb. Returns the exit status."""
    try:
        parsed = options.parse(argv, (*OPTIONS, options.GENERAL_OPTIONS[0]))
        if parsed.has("help"):
            print(usage(), end="")
            return 0
        target = _target(parsed)
        top = Top(target, source(target))
        if parsed.has("json"):
            print(orjson.dumps(top.figures(), option=orjson.OPT_INDENT_2).decode())
        elif parsed.has("once"):
            print("\n".join(top.screen()))
        elif not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise Unreachable("there is no terminal; --once and --json need none")
        else:
            top.run()
    except (OptionError, Unreachable) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _target(parsed: Parsed) -> str:
    if len(parsed.arguments) > 1:
        raise Unreachable("there is more than one target")
    target = parsed.arguments[0] if parsed.arguments else "ovsdb-server"
    return target if "/" in target or ":" in target else _control_socket(target)


def _control_socket(program: str) -> str:
    """That of the daemon `program`, by its pidfile, as ovs-appctl finds it. Raises Unreachable."""
    pidfile = Path(dirs.rundir()) / f"{program}.pid"
    try:
        pid = int(pidfile.read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it has no number"
        hint = "name HOST:PORT of its metrics, or its control socket (of `ovncp up`:"
        raise Unreachable(f"{pidfile}: {reason}; {hint} DIR/ovnsb_db.ctl)") from error
    return str(pidfile.with_name(f"{program}.{pid}.ctl"))


class Top:
    """Looks at `target` again and again; `fetch` gets the text of its metrics."""

    def __init__(self, target: str, fetch: Callable[[], str]) -> None:
        self._target = target
        self._fetch = fetch
        self._before = self._look()

    def _look(self) -> Look:
        text = self._fetch()
        try:
            return Look(time.monotonic(), Samples(text))
        except ValueError as error:
            raise Unreachable(f"{self._target}: {error}") from error

    def figures(self) -> Json:
        """The figures of the time since the last look, which is a period. Raises Unreachable."""
        time.sleep(max(0.0, self._before.seconds + _PERIOD_SECONDS - time.monotonic()))
        before, self._before = self._before, self._look()
        return figures(before, self._before)

    def screen(self) -> list[str]:
        """The same as the lines of a screen."""
        width, height = shutil.get_terminal_size()
        return lines(self._target, self.figures(), width, height)

    def run(self) -> None:
        """Show the screen until it is enough."""
        with _terminal():
            shown = ["looking ..."]
            while True:
                _draw(shown)
                if _is_enough(self._before.seconds + _PERIOD_SECONDS - time.monotonic()):
                    return
                shown = self._next(shown)

    def _next(self, shown: list[str]) -> list[str]:
        try:
            return self.screen()
        except Unreachable as error:
            # Perhaps it is being started again.
            self._before = self._before._replace(seconds=time.monotonic())
            return [f"LOST  {error}", *shown[1:]]


@contextmanager
def _terminal() -> Iterator[None]:
    """A screen of our own and keys without Enter, taken back however this ends."""
    before = termios.tcgetattr(sys.stdin)
    signal.signal(signal.SIGTERM, _terminate)
    _write(_ENTER)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        _write(_LEAVE)


def _terminate(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _is_enough(seconds: float) -> bool:
    """Wait, and whether q was pressed meanwhile, or the terminal is gone."""
    end = time.monotonic() + seconds
    while True:
        left = max(0.0, end - time.monotonic())
        if not select.select([sys.stdin], [], [], left)[0]:
            return False
        keys = os.read(sys.stdin.fileno(), 1024)
        if not keys or b"q" in keys.lower():
            return True


def _draw(shown: list[str]) -> None:
    """Write over what is there, which does not flicker as clearing would."""
    width, height = shutil.get_terminal_size()
    text = f"{_END_OF_LINE}\n".join(line[:width] for line in shown[:height])
    _write(f"{_HOME}{text}{_END_OF_LINE}{_END_OF_SCREEN}")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
