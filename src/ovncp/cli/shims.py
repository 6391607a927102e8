"""`ovncp shims DIR`: programs with the C programs' names that run ours.

Whatever starts `ovsdb-server` and `ovsdb-tool` by name starts ours when DIR comes first on PATH.
A shim is a Python script run by this very interpreter with `-IS`: no environment variable, working
directory or site file has a say, or costs time, and the script itself names the directories that
its modules are in. The kernel names a process after the script, which start scripts check.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from ovncp.cli import options
from ovncp.cli.options import OptionError

PROGRAM = "ovncp shims"
SHIMS = {"ovsdb-server": "ovncp.cli.ovsdb_server", "ovsdb-tool": "ovncp.cli.ovsdb_tool"}

_PACKAGES = ("ovncp", "orjson", "uvloop")
_LONGEST_SHEBANG = 127  # bytes, the least that a kernel still in use reads

_SHEBANG = "#!{python} -IS\n"
# For an interpreter whose path no `#!` line can hold: a script for sh, and a string for Python.
_SH = """#!/bin/sh
'''exec' {python} -IS "$0" "$@"
' '''
"""
_SCRIPT = """import sys

sys.path += {path!r}

from {module} import main

{rename}sys.exit(main(sys.argv[1:]))
"""
# The kernel has named the process after sh, and then after the interpreter.
_RENAME = """with open("/proc/self/comm", "w") as comm:
    comm.write({name!r})
"""


def usage() -> str:
    """The text of --help."""
    head = (
        f"usage: {PROGRAM} DIR\n"
        f"Writes {' and '.join(SHIMS)} into DIR, made if it is not there.\n"
        "What starts these programs by name starts ours when DIR comes first on PATH.\n"
    )
    return head + options.describe("Options", options.GENERAL_OPTIONS[:1])


def main(argv: Sequence[str]) -> int:
    """Write the shims; `argv` is without the verb. Returns the exit status."""
    try:
        parsed = options.parse(argv, options.GENERAL_OPTIONS[:1])
    except OptionError as error:
        return _fail(str(error))
    if parsed.has("help"):
        print(usage(), end="")
        return 0
    if len(parsed.arguments) != 1:
        return _fail("name one directory to write into")
    directory = Path(parsed.arguments[0]).absolute()
    try:
        write(directory, sys.executable)
    except OSError as error:
        return _fail(f"cannot write into {directory}: {error.strerror}")
    print(f"{directory} has {' and '.join(SHIMS)}. To use them:")
    print(f"    export PATH={shlex.quote(str(directory))}:$PATH")
    return 0


def _fail(problem: str) -> int:
    print(f"{PROGRAM}: {problem}", file=sys.stderr)
    return 1


def write(directory: Path, python: str) -> None:
    """Write the shims into `directory`, to be run by the interpreter `python`. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, module in SHIMS.items():
        # Whole or not at all, since a shim may be started, or be running, meanwhile.
        temporary = directory / f".{name}.{os.getpid()}"
        temporary.write_text(script(name, module, python))
        temporary.chmod(0o755)
        temporary.rename(directory / name)


def script(name: str, module: str, python: str) -> str:
    """The text of the shim `name`, which calls the `main` of `module`."""
    shebang = _SHEBANG.format(python=python)
    rename = ""
    if " " in python or len(os.fsencode(shebang)) > _LONGEST_SHEBANG:
        shebang = _SH.format(python=shlex.quote(python))
        rename = _RENAME.format(name=name)
    return shebang + _SCRIPT.format(rename=rename, path=list(_directories()), module=module)


def _directories() -> Iterator[str]:
    """The directories that hold the packages that a shim needs, each once."""
    specs = [find_spec(package) for package in _PACKAGES]
    parents = [str(Path(spec.origin).parent.parent) for spec in specs if spec and spec.origin]
    yield from dict.fromkeys(parents)
