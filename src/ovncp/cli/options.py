"""Command-line options declared as data, read the way glibc's getopt_long reads them.

A table is a tuple of `Option` rows.  `parse` walks the arguments once, in order, because order
matters to an OVS program: `--remote` repeats, `-v` changes what `--log-file` logs, and `--help`
before a mistake still prints the help.  A hook is called the moment its option is met.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

Hook = Callable[[str | None], object]


class Argument(Enum):
    """Whether an option takes an argument."""

    NONE = 0
    REQUIRED = 1
    OPTIONAL = 2


class Option(NamedTuple):
    """One row: the long name, its argument, a short letter, and the words for `--help`."""

    name: str
    argument: Argument = Argument.NONE
    short: str = ""
    metavar: str = ""
    help: str = ""


class Parsed(NamedTuple):
    """The options in the order they were given (name, value), and the other arguments."""

    options: list[tuple[str, str | None]]
    arguments: list[str]

    def values(self, name: str) -> list[str]:
        """Every value given to `name`, in order."""
        return [value for key, value in self.options if key == name and value is not None]

    def last(self, name: str, default: str | None = None) -> str | None:
        """The last value given to `name`: a later option overrides an earlier one."""
        return next(reversed(self.values(name)), default)

    def has(self, name: str) -> bool:
        """Whether `name` was given, with or without a value."""
        return any(key == name for key, _ in self.options)


class OptionError(Exception):
    """A command line that the table does not allow; the text is glibc's, without the program."""


UNIXCTL_OPTIONS = (
    Option("unixctl", Argument.REQUIRED, metavar="SOCKET", help="control socket, or `none`"),
)
TLS_OPTIONS = (
    Option("private-key", Argument.REQUIRED, "p", "FILE", "file with the private key"),
    Option("certificate", Argument.REQUIRED, "c", "FILE", "file with the certificate"),
    Option("ca-cert", Argument.REQUIRED, "C", "FILE", "file with the peers' CA certificate"),
    Option("peer-ca-cert", Argument.REQUIRED, "", "FILE", "CA certificate to send to peers"),
    Option("bootstrap-ca-cert", Argument.REQUIRED, "", "FILE", "CA certificate to read or create"),
    Option("ssl-protocols", Argument.REQUIRED, "", "PROTOS", "TLS protocols to allow"),
    Option("ssl-ciphers", Argument.REQUIRED, "", "CIPHERS", "ciphers of TLS 1.2"),
    Option("ssl-ciphersuites", Argument.REQUIRED, "", "SUITES", "cipher suites of TLS 1.3"),
)
DAEMON_OPTIONS = (
    Option("detach", help="go to the background once ready"),
    Option("no-self-confinement", help="accepted; there is no confinement"),
    Option("no-chdir", help="with --detach, keep the working directory"),
    Option("pidfile", Argument.OPTIONAL, metavar="FILE", help="write and lock a pidfile"),
    Option("overwrite-pidfile", help="with --pidfile, replace that of a running process"),
    Option("monitor", help="restart the daemon if it crashes"),
    Option("user", Argument.REQUIRED, metavar="USER[:GROUP]", help="give up root for this user"),
)
VLOG_OPTIONS = (
    Option("verbose", Argument.OPTIONAL, "v", "SPEC", "logging levels (all debugging)"),
    Option("log-file", Argument.OPTIONAL, metavar="FILE", help="log to a file too"),
    Option(
        "syslog-method",
        Argument.REQUIRED,
        metavar="(libc|null|unix:FILE|udp:IP:PORT)",
        help="how to reach syslog",
    ),
    Option(
        "syslog-target", Argument.REQUIRED, metavar="HOST:PORT", help="send to syslog by UDP too"
    ),
)
GENERAL_OPTIONS = (
    Option("help", short="h", help="show this text"),
    Option("version", short="V", help="show the version"),
)


def parse(
    argv: Sequence[str],
    table: Sequence[Option],
    hooks: Mapping[str, Hook] | None = None,
    permute: bool = True,
    negative: bool = False,
) -> Parsed:
    """Read `argv` (without the program's name) by `table`.

    `hooks` maps an option's name to what is done, with its value, as soon as it is read.  With
    `permute` options may follow other arguments; without, the first other argument ends them.
    With `negative`, a word such as -10m is an argument.
    Raises OptionError with the words of getopt_long(3).
    """
    reader = _Reader(list(argv), table, hooks or {})
    while reader.rest:
        word = reader.rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            reader.long(word)
        elif len(word) > 1 and word.startswith("-") and not (negative and word[1].isdigit()):
            reader.cluster(word)
        else:
            reader.arguments.append(word)
            if not permute:
                break
    return Parsed(reader.options, reader.arguments + reader.rest)


class _Reader:
    """The state of one walk: what is left, and what has been read."""

    def __init__(self, rest: list[str], table: Sequence[Option], hooks: Mapping[str, Hook]) -> None:
        self.rest = rest
        self.table = table
        self.hooks = hooks
        self.options: list[tuple[str, str | None]] = []
        self.arguments: list[str] = []

    def long(self, word: str) -> None:
        name, equals, text = word[2:].partition("=")
        row = self._find(name, word)
        value = text if equals else None
        if value is not None and row.argument is Argument.NONE:
            raise OptionError(f"option '--{row.name}' doesn't allow an argument")
        if value is None and row.argument is Argument.REQUIRED:
            value = self._next(f"option '--{row.name}' requires an argument")
        self._give(row, value)

    def cluster(self, word: str) -> None:
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            row = next((row for row in self.table if row.short == letter), None)
            if row is None:
                raise OptionError(f"invalid option -- '{letter}'")
            value = None
            if row.argument is not Argument.NONE:
                value, letters = letters or None, ""
            if value is None and row.argument is Argument.REQUIRED:
                value = self._next(f"option requires an argument -- '{letter}'")
            self._give(row, value)

    def _find(self, name: str, word: str) -> Option:
        matches = [row for row in self.table if row.name.startswith(name)]
        exact = [row for row in matches if row.name == name]
        if not matches:
            raise OptionError(f"unrecognized option '{word}'")
        if not exact and len(matches) > 1:
            names = " ".join(f"'--{row.name}'" for row in matches)
            raise OptionError(f"option '{word}' is ambiguous; possibilities: {names}")
        return (exact or matches)[0]

    def _next(self, error: str) -> str:
        if not self.rest:
            raise OptionError(error)
        return self.rest.pop(0)

    def _give(self, row: Option, value: str | None) -> None:
        self.options.append((row.name, value))
        if row.name in self.hooks:
            self.hooks[row.name](value)


_FORM_WIDTH = 24
_ARGUMENT_FORM = {
    Argument.NONE: "{0}",
    Argument.REQUIRED: "{0}={1}",
    Argument.OPTIONAL: "{0}[={1}]",
}


def describe(title: str, table: Sequence[Option]) -> str:
    """The lines of `--help` for one group of options."""
    return f"\n{title}:\n" + "".join(map(_described, table))


def _described(row: Option) -> str:
    form = _form(row)
    gap = " " if len(form) <= _FORM_WIDTH else f"\n{'':{_FORM_WIDTH + 3}}"
    return f"  {form:<{_FORM_WIDTH}}{gap}{row.help}\n"


def _form(row: Option) -> str:
    long = _ARGUMENT_FORM[row.argument].format(f"--{row.name}", row.metavar)
    return f"-{row.short}, {long}" if row.short else long


_LISTED_ARGUMENT = {Argument.NONE: "", Argument.REQUIRED: "ARG", Argument.OPTIONAL: "[ARG]"}


def listing(table: Sequence[Option]) -> str:
    """What `--option` prints, for shells to complete words from (ovs-appctl-bashcomp)."""
    lines = []
    for row in table:
        argument = _LISTED_ARGUMENT[row.argument]
        lines.append(f"--{row.name}{'=' if argument else ''}{argument}\n")
        if row.short:
            lines.append(f"-{row.short} {argument}\n")
    return "".join(lines)
