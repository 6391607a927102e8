"""Which backend a location names: a path is a file, `SCHEME://...` an engine's entry point.

A distribution adds an engine with an entry point of the group `ovncp.log`, named as the scheme,
that is an async function from the location to an open `Log`.
"""

from __future__ import annotations

from ovncp.log.base import Log, LogError
from ovncp.log.file import FileLog

GROUP = "ovncp.log"


async def open_log(location: str, *, fsync: bool = True) -> Log:
    """Open the log at `location`; `fsync` false weakens durability where the engine can.

    Raises `LogError` if no engine has that scheme, or as the engine does.
    """
    scheme, separator, rest = location.partition("://")
    if not separator:
        return await FileLog.open(location, fsync=fsync)
    if scheme == "file":
        return await FileLog.open(rest, fsync=fsync)
    # Imported late: it takes a tenth of the time that a server on a file has to start.
    from importlib.metadata import entry_points

    engines = {point.name: point for point in entry_points(group=GROUP)}
    if scheme not in engines:
        known = ", ".join(sorted({"file", *engines}))
        raise LogError(f"{location}: no log engine {scheme!r}; there are: {known}")
    log: Log = await engines[scheme].load()(location)
    return log
