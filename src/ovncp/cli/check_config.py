"""`ovncp check-config`: what a node would be configured with, where from, and whether it can be."""

import sys
from collections.abc import Sequence

from ovncp.cli import api, config, options, parts
from ovncp.cli.config import ConfigError
from ovncp.cli.options import OptionError
from ovncp.cluster.settings import SettingsError
from ovncp.ops.refusal import Refusal

PROGRAM = "ovncp check-config"


def main(argv: Sequence[str]) -> int:
    """Explain the configuration; `argv` is without the verb. Returns the exit status."""
    try:
        parsed = options.parse(argv, api.TABLE)
        if parsed.has("help"):
            head = f"usage: {PROGRAM} [OPTION...]\nExplains how `ovncp api` would be configured.\n"
            print(head + options.describe("Options", api.TABLE), end="")
            return 0
        loaded = api.load(parsed)
        parts.check(loaded.config)
    except (OptionError, ConfigError, SettingsError, Refusal) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    print(config.explain(loaded), end="")
    return 0
