"""`ovncp db export`: a database as a file that C's programs open, of either format of ovsdb(5)."""

from ovncp.ops import raft_create
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.create import make, schema_text
from ovncp.ops.db.move import Moved, read_back, snapshot
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.source import read
from ovncp.ops.refusal import Refusal

FORMATS = ("standalone", "cluster")


async def export(source: str, path: str, format: str, address: str | None, caller: Caller) -> Moved:
    """Make the file `path`, of one of `FORMATS`, of what `source` has now, and compare.

    A cluster's file is that of its only member, which is to listen at `address`. Raises as `read`.
    """
    place, target = Place.parse(source), Place.parse(path)
    _check(target, format, address)
    state = await read(place, caller)
    pieces = snapshot(state, f"exported from {place.name}", caller)
    schema = state.database.schema
    if address is None:
        await make(target, schema_text(schema), b"".join(pieces))
    else:
        raft_create.persist(schema, target.name)
        raft_create.create_cluster(target.location, schema, pieces, address, caller.new_uuid)
    return Moved("exported", place, target, state, 0, await read_back(state, target, caller))


def _check(target: Place, format: str, address: str | None) -> None:
    if target.kind is not Kind.FILE:
        raise Refusal(f"{target.name}: a file is wanted; `copy` and `import` make other logs")
    if format not in FORMATS:
        raise Refusal(f"--format: there is no {format!r}; there are: {', '.join(FORMATS)}")
    if (format == "cluster") is not (address is not None):
        raise Refusal("--address=tcp:HOST:PORT goes with --format=cluster, and has to")
