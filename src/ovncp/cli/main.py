"""`ovncp VERB ...`: a table of verbs, each a module that is imported only when its verb is called.

Start-up time is part of what a server promises, so nothing is imported here that a verb does
without.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from ovncp import __version__

PROGRAM = "ovncp"

VERBS = {
    "up": ("ovncp.cli.up", "run NB, SB and ovn-northd in the foreground"),
    "dev-cluster": ("ovncp.cli.dev_cluster", "run a whole cluster, for trying"),
    "ovsdb-server": ("ovncp.cli.ovsdb_server", "the database server, as ovsdb-server(1)"),
    "ovsdb-tool": ("ovncp.cli.ovsdb_tool", "work on database files, as ovsdb-tool(1)"),
    "db": ("ovncp.cli.db", "make, move and check databases, wherever they are kept"),
    "top": ("ovncp.cli.top", "show live how a server fares"),
    "simulate": ("ovncp.cli.simulate", "load a server as hypervisors and a CMS would"),
    "log-contract": ("ovncp.cli.log_contract", "try whether an engine keeps what a log promises"),
    "shims": ("ovncp.cli.shims", "write programs named ovsdb-server and ovsdb-tool"),
    "version": ("ovncp.cli.main", "show the version"),
}
"""The module of each verb, and the words for `--help`."""


def usage() -> str:
    """The text of --help."""
    verbs = "".join(f"  {verb:<14} {words}\n" for verb, (_, words) in VERBS.items())
    return (
        f"{PROGRAM}: Open Virtual Network at scale\n"
        f"usage: {PROGRAM} VERB [ARGUMENT...]\n"
        f"\nVerbs:\n{verbs}"
        f"\n`{PROGRAM} VERB --help` has the options of each.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `argv` (without the program's name); the exit status."""
    verb, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if verb in ("version", "--version", "-V"):
        print(f"{PROGRAM} {__version__}")
        return 0
    if verb in ("help", "--help", "-h"):
        print(usage(), end="")
        return 0
    if verb not in VERBS:
        return _refuse(verb)
    status: int = import_module(VERBS[verb][0]).main(rest)
    return status


def _refuse(verb: str) -> int:
    problem = f"there is no verb {verb!r}" if verb else "a verb is missing"
    print(f"{PROGRAM}: {problem}; the verbs are {', '.join(VERBS)}", file=sys.stderr)
    return 2
