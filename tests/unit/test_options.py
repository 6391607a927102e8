"""Options are read as getopt_long reads them, compared with the C server's own words."""

import subprocess

import pytest

from ovncp.cli import options
from ovncp.cli.options import Argument, Option, OptionError, parse

SERVER = (
    Option("remote", Argument.REQUIRED),
    *options.UNIXCTL_OPTIONS,
    Option("run", Argument.REQUIRED),
    *options.GENERAL_OPTIONS,
    *options.DAEMON_OPTIONS,
    *options.VLOG_OPTIONS,
    Option("bootstrap-ca-cert", Argument.REQUIRED),
    Option("peer-ca-cert", Argument.REQUIRED),
    Option("private-key", Argument.REQUIRED, "p"),
    Option("certificate", Argument.REQUIRED, "c"),
    Option("ca-cert", Argument.REQUIRED, "C"),
    Option("ssl-protocols", Argument.REQUIRED),
    Option("ssl-ciphers", Argument.REQUIRED),
    Option("record", Argument.OPTIONAL),
    Option("replay", Argument.OPTIONAL),
    Option("sync-from", Argument.REQUIRED),
    Option("sync-exclude-tables", Argument.REQUIRED),
    Option("active"),
    Option("no-dbs"),
    Option("disable-file-column-diff"),
)
"""The C server's table, in its order: the order shows in the message on an ambiguity."""


@pytest.mark.parametrize(
    "argv",
    [
        ["--bogus"],
        ["--bogus=3"],
        ["--re"],
        ["--re=3"],
        ["--=3"],
        ["--detach="],
        ["--detach=3"],
        ["--help=3"],
        ["--remote"],
        ["--private-key"],
        ["-p"],
        ["-z"],
        ["-zV"],
        ["x", "--bogus"],
    ],
)
def test_mistakes_are_told_as_by_the_c_server(argv: list[str]) -> None:
    with pytest.raises(OptionError) as error:
        parse(argv, SERVER)
    c = subprocess.run(["ovsdb-server", *argv], capture_output=True, text=True, check=False)
    assert c.returncode == 1
    assert c.stderr == f"ovsdb-server: {error.value}\n"


@pytest.mark.parametrize(
    ("argv", "expected", "rest"),
    [
        (["--remote=a", "--remote", "b"], [("remote", "a"), ("remote", "b")], []),
        (["--remote="], [("remote", "")], []),
        (["--pidfile", "f"], [("pidfile", None)], ["f"]),
        (["--pidfile=f"], [("pidfile", "f")], []),
        (["-v", "-vfoo"], [("verbose", None), ("verbose", "foo")], []),
        (["-hV"], [("help", None), ("version", None)], []),
        (["-hvdbg:V"], [("help", None), ("verbose", "dbg:V")], []),
        (["-px", "-p", "-V"], [("private-key", "x"), ("private-key", "-V")], []),
        (["--no-c", "--detac"], [("no-chdir", None), ("detach", None)], []),
        (["a", "--detach", "-", "b"], [("detach", None)], ["a", "-", "b"]),
        (["a", "--", "--detach", "--"], [], ["a", "--detach", "--"]),
        (["--log=x"], [("log-file", "x")], []),
    ],
)
def test_reads(argv: list[str], expected: list[tuple[str, str | None]], rest: list[str]) -> None:
    assert parse(argv, SERVER) == (expected, rest)


def test_without_permutation_the_first_argument_ends_the_options() -> None:
    parsed = parse(["-v", "query", "--detach"], SERVER, permute=False)
    assert parsed == ([("verbose", None)], ["query", "--detach"])


def test_hooks_run_in_order_and_before_a_later_mistake() -> None:
    seen: list[str | None] = []
    with pytest.raises(OptionError):
        parse(["-vx", "-v", "--bogus", "-vy"], SERVER, {"verbose": seen.append})
    assert seen == ["x", None]


def test_looking_up_values() -> None:
    parsed = parse(["--remote=a", "--remote=b", "--detach"], SERVER)
    assert parsed.values("remote") == ["a", "b"]
    assert parsed.last("remote") == "b"
    assert parsed.last("unixctl", "none") == "none"
    assert parsed.has("detach") and not parsed.has("monitor")


def test_describe_lists_every_row() -> None:
    text = options.describe("Daemon options", options.DAEMON_OPTIONS)
    assert text.startswith("\nDaemon options:\n  --detach    ")
    assert "  --pidfile[=FILE] " in text
    assert "  --user=USER[:GROUP] " in text
    assert "  -v, --verbose[=SPEC] " in options.describe("Logging", options.VLOG_OPTIONS)
