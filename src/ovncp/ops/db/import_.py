"""`ovncp db import`: a database from a file, or from a running server, into a new log."""

from ovncp.ops.db.caller import Caller
from ovncp.ops.db.move import Moved, move
from ovncp.ops.db.place import Place


async def import_(source: str, url: str, caller: Caller) -> Moved:
    """Make the log `url` of what `source` has now. Raises as `move`."""
    return await move("imported", Place.parse(source), Place.parse_log(url), caller)
