"""`ovncp db copy`: a log to another place, of any kind, with its latest transactions."""

from ovncp.ops.db.caller import Caller
from ovncp.ops.db.move import Moved, move
from ovncp.ops.db.place import Place


async def copy(source: str, target: str, caller: Caller) -> Moved:
    """Make the log `target` of what the log `source` has now. Raises as `move`."""
    return await move("copied", Place.parse_log(source), Place.parse_log(target), caller)
