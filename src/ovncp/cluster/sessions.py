"""The clients' WebSocket sessions of all nodes: who has which, and how one is asked to move.

A node keeps its own here and writes them down in the store, where the others see them; again and
again, so that those of a node that died run out, and that a store which forgot them, or was away
when they came, has them soon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import orjson

from ovncp.cluster.base import ClusterError, Store, Unavailable
from ovncp.cluster.lease import Lease
from ovncp.cluster.mail import Body, Mail
from ovncp.cluster.membership import Membership
from ovncp.cluster.metrics import Counts, labels

_logger = logging.getLogger("ovncp.cluster.sessions")

_REGISTER = "sessions"
_MIGRATE = "migrate"
_GATHER_S = 0.05
"""How long sessions that come and go are gathered before the store is told."""
_FAILED_PAUSE_S = 1.0


class NoSuchSession(ClusterError):
    """No node has this session."""


class NoSuchNode(ClusterError):
    """There is no other node that takes sessions, or not this one."""


@dataclass(frozen=True, slots=True)
class Session:
    """One client's session."""

    id: str
    node: str
    user: str
    tenant: str | None
    address: str
    opened: float
    """Seconds since the epoch, by the node's clock."""

    @classmethod
    def decode(cls, text: bytes) -> Session:
        """From JSON, of a later version perhaps."""
        return cls(**{k: v for k, v in orjson.loads(text).items() if k in cls.__slots__})


Move = Callable[[str], None]
"""Asks a client to go to the node of this id, and to resume there."""


class Sessions:
    """The sessions, as one node sees them."""

    def __init__(
        self,
        store: Store,
        membership: Membership,
        mail: Mail,
        ttl_s: float,
        cleanup_s: float,
        counts: Counts,
    ):
        self._store = store
        self._membership = membership
        self._mail = mail
        self._ttl_s = ttl_s
        self._cleanup_s = cleanup_s
        self._counts = counts
        self._own: dict[str, tuple[Session, Move]] = {}
        self._to_enter: set[str] = set()
        self._to_strike: set[str] = set()
        self._changed = asyncio.Event()
        membership.on_forgotten.append(self._enter_all)
        mail.on(_MIGRATE, self._migrate_own)

    @property
    def own(self) -> dict[str, Session]:
        """This node's, by their ids."""
        return {id: session for id, (session, _) in self._own.items()}

    @property
    def n_all(self) -> int:
        """How many there are at all nodes, by their latest heartbeats."""
        nodes = self._membership.nodes
        me = self._membership.me.id
        others = (seen.record.sessions for id, seen in nodes.items() if id != me)
        return len(self._own) + sum(others)

    def open(self, session: Session, move: Move) -> None:
        """A client has come to this node; `move` is how it is asked to go to another."""
        self._own[session.id] = session, move
        self._to_strike.discard(session.id)
        self._to_enter.add(session.id)
        self._changed.set()

    def close(self, session_id: str) -> None:
        """A client of this node has gone."""
        if self._own.pop(session_id, None):
            self._to_enter.discard(session_id)
            self._to_strike.add(session_id)
            self._changed.set()

    async def all(self) -> list[Session]:
        """Those of all nodes.  Raises Unavailable."""
        entries = await self._store.entries(_REGISTER)
        known = {id: Session.decode(text) for id, text in entries.items()} | self.own
        return sorted(known.values(), key=lambda session: (session.node, session.opened))

    async def migrate(self, session_id: str, to: str | None = None) -> str:
        """Ask the client of a session to move to a node, or to the one with the fewest; which.

        Raises NoSuchSession, NoSuchNode, Unavailable.
        """
        for session in await self.all():
            if session.id == session_id:
                to = self._target(session.node, to)
                await self._mail.send(session.node, _MIGRATE, {"session": session_id, "to": to})
                return to
        raise NoSuchSession(f"no session {session_id}")

    def drain(self) -> None:
        """Ask all clients of this node to move, as far as there are other nodes."""
        nodes = self._fellows(self._membership.me.id)
        for (session, _), to in zip(list(self._own.values()), _in_turn(nodes), strict=False):
            self._migrate_own({"session": session.id, "to": to})

    def _fellows(self, node: str) -> list[str]:
        """The other nodes that take sessions, the one with the fewest first."""
        nodes = self._membership.nodes
        active = [id for id in nodes if id != node and self._membership.is_active(id)]
        return sorted(active, key=lambda id: (nodes[id].record.sessions, id))

    def _target(self, node: str, to: str | None) -> str:
        fellows = self._fellows(node)
        if not fellows:
            raise NoSuchNode("no other node takes sessions")
        if to is not None and to not in fellows:
            raise NoSuchNode(f"{to} is not another node that takes sessions")
        return to or fellows[0]

    def _migrate_own(self, body: Body) -> None:
        session_id, to = body["session"], body["to"]
        if session_id not in self._own:
            _logger.info("session %s is not to be moved: it has gone", session_id)
            return
        session, move = self._own[session_id]
        self._counts.migrations[labels(**{"from": session.node, "to": to})] += 1
        move(to)

    def _enter_all(self) -> None:
        self._to_enter |= self._own.keys()
        self._changed.set()

    async def run(self) -> None:
        """Keep the store up to date, for ever."""
        while True:
            try:
                async with asyncio.timeout(self._cleanup_s):
                    await self._changed.wait()
                await asyncio.sleep(_GATHER_S)
            except TimeoutError:
                self._enter_all()
            try:
                await self._write()
            except Unavailable as error:
                _logger.warning("sessions are not written down: %s", error)
                await asyncio.sleep(_FAILED_PAUSE_S)
                self._enter_all()

    async def _write(self) -> None:
        self._changed.clear()
        entering, striking = self._to_enter & self._own.keys(), self._to_strike
        self._to_enter, self._to_strike = set(), set()
        try:
            if entering:
                texts = {id: orjson.dumps(asdict(self._own[id][0])) for id in entering}
                await self._store.enter(_REGISTER, texts, self._ttl_s)
            if striking:
                await self._store.strike(_REGISTER, striking)
        except BaseException:
            self._to_enter |= entering
            self._to_strike |= striking - self._own.keys()
            raise

    async def clean(self, lease: Lease) -> None:
        """Strike the sessions of nodes that are gone, again and again: work of the leader."""
        while lease.is_held:
            await asyncio.sleep(self._cleanup_s)
            await self.sweep()

    async def sweep(self) -> int:
        """Strike the sessions of nodes that are gone; how many there were.  Raises Unavailable."""
        left = [session.id for session in await self.all() if self._is_left(session)]
        return await self._store.strike(_REGISTER, left) if left else 0

    def _is_left(self, session: Session) -> bool:
        """Whether the node of a session is gone, or has started again since."""
        seen = self._membership.nodes.get(session.node)
        return seen is None or session.opened < seen.record.started


def _in_turn(nodes: list[str]) -> Iterator[str]:
    """The nodes over and over."""
    while nodes:
        yield from nodes
