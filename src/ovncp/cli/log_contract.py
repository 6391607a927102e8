"""`ovncp log-contract URL`: the command line of the contract suite for log engines."""

import sys
from collections.abc import Sequence

import uvloop

from ovncp.cli import options
from ovncp.cli.options import Argument, Option, OptionError
from ovncp.ops.log_contract import try_engine
from ovncp.ops.refusal import Refusal

PROGRAM = "ovncp log-contract"
TABLE = (
    Option("only", Argument.REQUIRED, "", "WORDS", "only the promises with these words"),
    options.GENERAL_OPTIONS[0],
)


def usage() -> str:
    """The text of --help."""
    head = (
        f"usage: {PROGRAM} [OPTION...] URL\n"
        "Tries on a running engine everything that a log promises, in databases of its own. URL\n"
        "is the location of a log, such as etcd://127.0.0.1:2379/PREFIX?db=NAME; NAME itself is\n"
        "left alone. Each host needs its port. Connections are cut by way of 127.0.0.1, which a\n"
        "certificate has to allow.\n"
    )
    return head + options.describe("Options", TABLE)


def main(argv: Sequence[str]) -> int:
    """Run the suite; `argv` is without the verb. 0 if every promise was kept."""
    try:
        parsed = options.parse(argv, TABLE)
        if parsed.has("help"):
            print(usage(), end="")
            return 0
        if len(parsed.arguments) != 1:
            raise Refusal("one URL is wanted; --help has more")
        return uvloop.run(_run(parsed.arguments[0], parsed.last("only") or ""))
    except (OptionError, Refusal) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2


async def _run(location: str, only: str) -> int:
    n_kept = n_broken = 0
    async for outcome in try_engine(location, only):
        n_kept, n_broken = n_kept + outcome.kept, n_broken + (not outcome.kept)
        print(f"{'kept  ' if outcome.kept else 'BROKEN'}  {outcome.promise}", flush=True)
        print(outcome.trace, end="", file=sys.stderr)
    print(f"{n_kept} kept, {n_broken} broken")
    return 0 if n_kept and not n_broken else 1
