"""`ovncp db drop`: a database deleted for good, with all that is kept of it, unless it is in use.

A server has a file locked, and shows itself on an engine.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from ovncp.log import durable, history_file, lockfile, standalone
from ovncp.log.durable import io_errors
from ovncp.log.location import Location
from ovncp.log.registry import engine
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.report import FINE
from ovncp.ops.db.users import check_unused
from ovncp.ops.refusal import Refusal

Confirm = Callable[[str, str], bool]


@dataclass(frozen=True)
class Dropped:
    """A database was deleted."""

    place: Place
    status = FINE

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        yield f"{self.place.name}: deleted"

    def to_json(self) -> dict[str, str]:
        """See `Report`."""
        return {"place": self.place.name}


async def drop(url: str, confirm: Confirm) -> Dropped:
    """Delete the database `url`, if `confirm` agrees, which is told what it is, and its name.

    Raises Refusal, and LogError, as when there is none.
    """
    place = Place.parse_log(url)
    if place.kind is Kind.FILE:
        _drop_file(place, confirm)
    else:
        await check_unused(place)
        _ask(place, Location.parse(place.location).database, confirm)
        await engine(place.location).drop(place.location)
    return Dropped(place)


def _drop_file(place: Place, confirm: Confirm) -> None:
    standalone.magic(place.location)  # Raises LogError if it is no database file.
    path = lockfile.follow_symlinks(place.location)
    lock = lockfile.lock(path)
    try:
        _ask(place, os.path.basename(place.location), confirm)
        with io_errors(f'failed to delete "{path}"'):
            with suppress(FileNotFoundError):
                os.unlink(history_file.history_name(path))
            os.unlink(path)
            durable.sync_directory(path)
    finally:
        lock.release()


def _ask(place: Place, name: str, confirm: Confirm) -> None:
    if not confirm(f"{place.name}: to be deleted for good", name):
        raise Refusal("nothing was done")
