"""Databases from schema files: created where absent; files converted where the schema is newer.

The work on files is ovsdb-tool(1)'s, run as a program of its own, which has the locks and the care
for a crash at any moment; that on engines is `ovncp db`'s.
"""

import shutil
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path

import orjson

from ovncp.server.preflight import Refused
from ovncp.server.supervisor import spawn

Version = tuple[int, ...]


async def provide(database: Path, schema: Path, tool: Sequence[str]) -> str:
    """See to it that the file `database` has at least the version of the file `schema`.

    `tool` is the command line of an ovsdb-tool. Returns what was done or found, in words. Raises
    Refused.
    """
    name, wanted = _schema(schema)
    if not database.exists():
        await _run(tool, "create", str(database), str(schema))
        return f"created {database.name}, {name} {_text(wanted)}"
    present = _version((await _run(tool, "db-version", str(database))).strip())
    if present > wanted:
        return f"{database.name} has {name} {_text(present)}, newer than {schema}; left as it is"
    if present == wanted:
        return f"{database.name} has {name} {_text(wanted)}"
    backup = database.with_name(f"{database.name}.backup-{_text(present)}")
    try:
        shutil.copy2(database, backup)
    except OSError as error:
        raise Refused(f"cannot keep {database} as {backup} ({error.strerror})") from error
    await _run(tool, "convert", str(database), str(schema))
    versions = f"{_text(present)} to {_text(wanted)}"
    return f"converted {database.name}, {name}, from {versions}; {backup.name} is what it was"


async def provide_log(url: str, schema: Path, tool: Sequence[str]) -> str:
    """See to it that there is a database at `url`, made of the file `schema` if there was none.

    `tool` is the command line of `ovncp db`. Returns what was done, in words. Raises Refused.
    """
    name, version = _schema(schema)
    output = await _run(tool, "create", url, str(schema), "--if-absent", "--json")
    return f"created {name} {_text(version)}" if "schema" in orjson.loads(output) else f"has {name}"


def _schema(path: Path) -> tuple[str, Version]:
    """The name and the version in a schema file. Raises Refused."""
    try:
        json = orjson.loads(path.read_bytes())
        return json["name"], _version(json["version"])
    except FileNotFoundError as error:
        advice = "install it (on Debian: apt-get install ovn-central), or say where it is"
        text = f"there is no {path.name} in {path.parent}"
        raise Refused(f"{text}: {advice} with --schema-dir or OVNCP_SCHEMA_DIR") from error
    except OSError as error:
        raise Refused(f"cannot read {path} ({error.strerror}): make it readable") from error
    except (ValueError, KeyError, TypeError) as error:
        text = f"{path} is no OVSDB schema ({error!r})"
        raise Refused(f"{text}: name another directory with --schema-dir") from error


def _version(text: str) -> Version:
    return tuple(map(int, text.split(".")))


def _text(version: Version) -> str:
    return ".".join(map(str, version))


async def _run(tool: Sequence[str], *args: str) -> str:
    """What the tool prints; the last line of its complaint is the error."""
    try:
        process = await spawn((*tool, *args), stderr=PIPE)
    except OSError as error:
        raise Refused(f"cannot run {tool[0]} ({error.strerror}): install it") from error
    try:
        output, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = complaint.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Refused(f"cannot {args[0]} {args[1]}: {lines[-1].partition(': ')[2] or lines[-1]}")
    return output.decode()
