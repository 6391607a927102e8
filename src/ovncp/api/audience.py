"""The clients of this node that are told events, and what nodes do with their sessions.

Sessions are known to all nodes, and can be asked to move: the client is told where to, and goes on
there from the last event that it was told.
"""

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator

from ovncp.api.changes import Changes
from ovncp.api.event_session import EventSession
from ovncp.api.hub import Hub
from ovncp.auth.principal import Principal
from ovncp.cluster.metrics import Family, distribution, family, labels
from ovncp.cluster.node import Node
from ovncp.cluster.sessions import Session
from ovncp.ovn.replica import Replica

TICK_SECONDS = 15.0
GRACE_SECONDS = 10.0
"""How long a client that was asked to move may take."""


class Audience:
    """Who listens at `node` to what changes in `nb` and `sb`."""

    def __init__(self, nb: Replica, sb: Replica, node: Node) -> None:
        self.hub = Hub(node.feed)
        self._changes = Changes(nb, sb, node)
        self._node = node
        self._sessions: dict[str, EventSession] = {}
        self._moving: set[EventSession] = set()
        self._transports: dict[str, str] = {}
        self._n_missed = 0
        self._ticking: asyncio.Task[None] | None = None
        node.on_drain.append(self._end_those_who_stay)

    def start(self) -> None:
        """Tell clients from time to time how far events have come."""
        self._ticking = asyncio.create_task(self._tick())

    def close(self) -> None:
        """End all sessions."""
        if self._ticking is not None:
            self._ticking.cancel()
        for session in self._sessions.values():
            session.end()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for session in self._sessions.values():
                session.tell_position()

    @contextlib.contextmanager
    def session(self, principal: Principal, address: str, transport: str) -> Iterator[EventSession]:
        """A session for as long as the block lasts; its first message tells its id."""
        session, id = EventSession(self.hub), uuid.uuid4().hex
        known = Session(id, self._node.id, principal.name, principal.tenant, address, time.time())
        self._sessions[id], self._transports[id] = session, transport
        self._node.sessions.open(known, lambda to: self._move(session, to))
        session.say("hello", session=id, node=self._node.id)
        try:
            yield session
        finally:
            self._node.sessions.close(id)
            self._n_missed += session.n_missed
            self._moving.discard(session)
            del self._sessions[id], self._transports[id]

    def _move(self, session: EventSession, to: str) -> None:
        """Ask a client to go to the node `to`."""
        seen = self._node.membership.nodes.get(to)
        url = None if seen is None else f"http://{seen.record.ip}:{seen.record.port}"
        session.say("move", node=to, url=url)
        self._moving.add(session)
        asyncio.get_running_loop().call_later(GRACE_SECONDS, session.end)

    def _end_those_who_stay(self) -> None:
        """This node drains: whom it asked to move may do so, for others there is nowhere to go."""
        for session in self._sessions.values():
            if session not in self._moving:
                session.end()

    def families(self) -> Iterable[Family]:
        """Figures about the clients."""
        counts = Counter(self._transports.values())
        yield family(
            "ovncp_event_clients",
            "gauge",
            "Clients that are told events, by how they are connected.",
            {labels(transport=name): counts[name] for name in ("websocket", "sse")},
        )
        n_missed = self._n_missed + sum(each.n_missed for each in self._sessions.values())
        yield family(
            "ovncp_event_clients_missed_total",
            "counter",
            "Times that a client was told that it has missed events.",
            n_missed,
        )
        yield distribution(
            "ovncp_event_delay_seconds",
            "Time from the sight of a change to its event here, by the nodes' clocks.",
            self.hub.delay_s,
        )
