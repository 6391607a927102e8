"""OVN's schemas from servers that have the databases, instead of from files that are installed."""

from functools import partial
from pathlib import Path

from ovncp.cli.connect import connector
from ovncp.ops.db.create import schema_text
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.server_dump import fetch_schema
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.errors import OvsdbError
from ovncp.server.preflight import Refused
from ovncp.server.tls import TlsFiles


async def fetch(remotes: str, database: str, path: Path) -> str:
    """Have in `path` the schema of `database` that one of the servers `remotes` has.

    If none is there, what `path` has from the last time is good enough. Returns what was done, in
    words. Raises Refused.
    """
    place = Place(Kind.SERVER, remotes, remotes, database)
    try:
        schema = await fetch_schema(place, partial(connector, files=TlsFiles()))
        path.write_bytes(schema_text(schema))
    except (Refusal, OvsdbError, OSError) as error:
        if path.exists():
            return f"{error}; {path.name} is from the last time"
        raise Refused(f"no schema of {database} by --schema-from: {error}") from error
    return f"{path.name} {schema.version} is from {remotes}"
