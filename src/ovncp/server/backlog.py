"""What clients that do not read make the server keep, bounded: the biggest backlog goes first.

The bound is one of memory, so what several clients wait for counts once, in equal parts for each.
That takes a look at everything that waits, so there is one only when the sum of all, with nothing
shared, has grown by some more.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ovncp.server.coverage import COUNTERS, define
from ovncp.server.output import whole

if TYPE_CHECKING:
    from ovncp.server.session import Session

_LOG = logging.getLogger("ovncp.ovsdb_jsonrpc_server")

define("session_overflow", "backlog_overflow")

_LOOKS = 8  # while the backlog grows by its bound


class Backlog:
    """The backlog of all `sessions`. `n_bytes` has what is shared several times."""

    def __init__(self, limit_bytes: int, sessions: "Iterable[Session]") -> None:
        self.n_bytes = 0
        self._limit_bytes = limit_bytes
        self._sessions = sessions
        self._look_at_bytes = limit_bytes

    def change(self, difference: int) -> None:
        """Note that a client's backlog grew by `difference`, or shrank."""
        self.n_bytes += difference
        if self.n_bytes > self._look_at_bytes:
            self._relieve()
            self._look_at_bytes = self.n_bytes + self._limit_bytes // _LOOKS
        elif self.n_bytes <= self._limit_bytes:
            self._look_at_bytes = self._limit_bytes

    def _relieve(self) -> None:
        """Close sessions, the biggest first, until the rest is within the bound."""
        sizes = self._sizes()
        total = sum(sizes.values())
        for session, size in sorted(sizes.items(), key=lambda item: -item[1]):
            if total <= self._limit_bytes:
                return
            if session.turn is None:
                total -= size
                COUNTERS["backlog_overflow"] += 1
                session.overflow(
                    f"all clients together have a backlog of more than {self._limit_bytes} bytes, "
                    f"and that of this one, {size:.0f} bytes, is the biggest"
                )

    def _sizes(self) -> "dict[Session, float]":
        """The memory that each session's backlog takes, with its part of what is shared."""
        lagging = [session for session in self._sessions if session.backlog_bytes]
        wholes = {session: list(map(whole, session.output)) for session in lagging}
        waiting = Counter(id(part) for parts in wholes.values() for part in parts)
        handed = Counter(id(session.output.handed) for session in lagging)
        sizes = {}
        for session, parts in wholes.items():
            last = session.output.handed
            n_users = 1 if last is None else handed[id(last)]
            sizes[session] = session.transport_bytes / n_users
            sizes[session] += sum(len(part) / waiting[id(part)] for part in parts)
        return sizes
