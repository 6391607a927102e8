"""`ovncp api`: one node of the control platform; and what is done to its accounts without one.

A node's libraries take most of a second, so they are imported by what needs them alone.
"""

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ovncp.cli import config, options
from ovncp.cli.config import Config, ConfigError, Loaded
from ovncp.cli.options import Argument, Option, OptionError, Parsed
from ovncp.cluster.settings import SettingsError
from ovncp.ops.refusal import Refusal
from ovncp.server.preflight import Refused

PROGRAM = "ovncp api"
SET_PASSWORD = "set-password"

FILE_OPTION = Option("config", Argument.REQUIRED, "", "FILE", "the configuration (config.yaml)")
FLAGS = tuple(
    Option(each.about["flag"], Argument.REQUIRED, "", "VALUE", each.about["help"])
    for each in config.settings()
    if each.about["flag"]
)
TABLE = (FILE_OPTION, *FLAGS, options.GENERAL_OPTIONS[0])

_YOUNG_OBJECTS = 100_000
_NEVER = 1 << 30


def usage() -> str:
    """The text of --help."""
    head = (
        f"usage: {PROGRAM} [OPTION...]\n"
        f"       {PROGRAM} {SET_PASSWORD} [OPTION...] USER\n"
        "Serves one API over a Northbound and a Southbound database, of any OVSDB server, until a\n"
        "signal. All that there is to set is shown by `ovncp check-config`.\n"
    )
    return head + options.describe("Options", TABLE)


def main(argv: Sequence[str]) -> int:
    """Serve until a signal; `argv` is without the verb. Returns the exit status."""
    if argv[:1] == [SET_PASSWORD]:
        from ovncp.cli import set_password

        return set_password.main(argv[1:])
    try:
        parsed = options.parse(argv, TABLE)
        if parsed.has("help"):
            print(usage(), end="")
            return 0
        loaded = load(parsed)
        _serve(loaded.config)
    except (OptionError, ConfigError, SettingsError, Refusal, Refused, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(given: Config) -> None:
    # Modules, rows, and what is kept of them, are in no cycle that ends.
    gc.set_threshold(_YOUNG_OBJECTS, 50, _NEVER)
    from ovncp.cli import api_node

    api_node.run(given)
    # The interpreter would look through all of them for such cycles before it ends.
    gc.freeze()


def load(parsed: Parsed) -> Loaded:
    """The configuration that a command line asks for. Raises ConfigError."""
    if parsed.arguments:
        raise ConfigError(f"{parsed.arguments[0]!r} is no option; --help has those that are")
    named = parsed.last("config")
    usual = Path(config.USUAL_FILE)
    file = Path(named) if named is not None else usual if usual.exists() else None
    flags = {name: value for name, value in parsed.options if value is not None}
    return config.load(file, os.environ, flags)
