"""Which backend a location names: a path is a file, `SCHEME://...` an engine's entry point.

A distribution adds an engine with an entry point of the group `ovncp.log`, named as the scheme,
that is an `Engine`: a class or a module with these functions.
"""

from __future__ import annotations

from typing import Protocol

from ovncp.log.base import Chunks, Log, LogError
from ovncp.log.file import FileLog

GROUP = "ovncp.log"


class Engine(Protocol):
    """What makes, opens and deletes the logs of one kind, by their locations."""

    async def open(self, location: str) -> Log:
        """The log at `location`.  Raises LogError, as when there is none."""

    async def create(
        self, location: str, schema: bytes, data: Chunks = b"", index: int = 0
    ) -> None:
        """Make a log whose snapshot is `schema` and `data`, as of `index`.

        Clients that know a database by its index take a lower one for old data, so that a log made
        of another one's content is not to begin before it.  Raises Exists if there is one.
        """

    async def drop(self, location: str) -> None:
        """Delete the log and all that is stored of it, for good; no error if there is none."""


async def open_log(location: str, *, fsync: bool = True) -> Log:
    """Open the log at `location`; `fsync` false weakens durability where the engine can.

    Raises `LogError` if no engine has that scheme, or as the engine does.
    """
    scheme, separator, rest = location.partition("://")
    if not separator:
        return await FileLog.open(location, fsync=fsync)
    if scheme == "file":
        return await FileLog.open(rest, fsync=fsync)
    return await engine(location).open(location)


def engine(location: str) -> Engine:
    """The engine of `location`, one with a scheme.

    Raises `LogError` if there is none, or if what it needs is not installed.
    """
    # Imported late: it takes a tenth of the time that a server on a file has to start.
    from importlib.metadata import entry_points

    scheme = location.partition("://")[0]
    engines = {point.name: point for point in entry_points(group=GROUP)}
    if scheme not in engines:
        known = ", ".join(sorted({"file", *engines}))
        raise LogError(f"there is no log engine {scheme!r}; there are: {known}")
    try:
        found: Engine = engines[scheme].load()
    except ImportError as error:
        extra = {"etcds": "etcd", "postgresql": "postgres"}.get(scheme, scheme)
        raise LogError(
            f"the engine {scheme!r} lacks a library ({error}): pip install 'ovncp[{extra}]'"
        ) from error
    return found
