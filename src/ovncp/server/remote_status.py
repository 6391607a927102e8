"""Keeps the status columns of the rows that say what to serve (ovsdb-server(1), --remote).

The server writes them as a client would, by transactions of its own.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from ovncp.server import database_remotes
from ovncp.server.database_remotes import PREFIX, RemoteStatus
from ovncp.server.reading import Reading
from ovncp.server.runner import Runner, Transact
from ovncp.server.server import Server

_LOG = logging.getLogger("ovncp.ovsdb_server")


def write(server: Server, specs: Iterable[str], status_of: Callable[[str], RemoteStatus]) -> None:
    """Write what has changed of the columns beside those that `specs` name, which may be targets.

    `status_of` gives the status of a target.
    """
    reading = Reading(server.runners)
    places = [reading.place(spec) for spec in specs if spec.startswith(PREFIX)]
    operations: dict[str, list[dict[str, Any]]] = {}
    for place in places:
        # The rows of a relayed database are its source's, whose remotes they are as well, and each
        # server of a cluster has a status of its own. The C server writes neither.
        if place is not None and server.runners[place.database.name].model == "standalone":
            updates = database_remotes.status_operations(place, status_of)
            operations.setdefault(place.database.name, []).extend(updates)
    for name, updates_of_all in operations.items():
        if updates_of_all:
            now = server.clock.now_msec()
            server.runners[name].transact(Transact(_Writer(), b"null", updates_of_all, now))


class _Writer:
    """The server itself, as the client that writes the status columns."""

    read_only = False
    role = ""
    identity = None

    def __init__(self) -> None:
        self.waiting: dict[bytes, Runner] = {}

    def owns_lock(self, name: str) -> bool:
        """See `Client.owns_lock`."""
        return False

    def has_owned(self, name: str, since_ns: int) -> bool:
        """See `Owner.has_owned`."""
        return False

    def reply(self, id_bytes: bytes, result: bytes) -> None:
        """See `Requester.reply`."""
        for item in orjson.loads(result):
            if item is not None and "error" in item:
                self.reply_error(id_bytes, item)

    def reply_error(self, id_bytes: bytes, error: Any) -> None:
        """See `Requester.reply_error`."""
        _LOG.error("Failed to update remote status: %s", error)
