"""Who belongs to the cluster: each node says again and again that it is there, and sees who else.

A node has joined with its first heartbeat that another one sees, and has left when it says so, or
when no new heartbeat of it has been seen for a while by somebody who could look all the time.  So
it does no harm if the store forgets everything, or cannot be reached for a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import orjson

from ovncp.cluster.base import Store, Unavailable

_logger = logging.getLogger("ovncp.cluster.membership")

_REGISTER = "nodes"
_SILENT_AFTER = 2.5
"""How many heartbeats a node misses before it is called silent."""

EVENTS = ("node_join", "node_leave", "node_update")


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What a node says of itself."""

    id: str
    hostname: str
    ip: str
    port: int
    version: str
    started: float
    """Seconds since the epoch, by the node's clock."""
    status: str = "active"
    """"active", "draining", or "left"."""
    sessions: int = 0
    has_seen_all: bool = False
    """Whether it would lose no events as the leader; see `coverage`."""
    beat: int = 0
    """The number of its heartbeat."""

    def encode(self) -> bytes:
        """As JSON."""
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, text: bytes) -> NodeRecord:
        """From JSON, of a later version perhaps."""
        return cls(**{k: v for k, v in orjson.loads(text).items() if k in cls.__slots__})

    def says_more_than(self, other: NodeRecord) -> bool:
        """Whether anything but what each heartbeat tells anew has changed."""
        said = replace(
            self, beat=other.beat, sessions=other.sessions, has_seen_all=other.has_seen_all
        )
        return said != other


@dataclass(slots=True)
class Seen:
    """A node as this one sees it."""

    record: NodeRecord
    at_s: float
    """When its last heartbeat was seen, on a clock that runs while one could look."""


class Membership:
    """One node's view, and its own heartbeat."""

    def __init__(
        self,
        store: Store,
        me: NodeRecord,
        heartbeat_s: float,
        timeout_s: float,
        n_sessions: Callable[[], int] = int,
        has_seen_all: Callable[[], bool] = bool,
    ):
        self.me = me
        self.on_forgotten: list[Callable[[], None]] = []
        """Called when the store has lost what this node entered there."""
        self._store = store
        self._heartbeat_s = heartbeat_s
        self._timeout_s = timeout_s
        self._n_sessions = n_sessions
        self._has_seen_all = has_seen_all
        self._seen: dict[str, Seen] = {}
        self._handlers: dict[str, list[Callable[[NodeRecord], None]]] = {e: [] for e in EVENTS}
        self._hurry = asyncio.Event()
        self._looked_s = 0.0
        self._looked_at = asyncio.get_running_loop().time()

    def on(self, event: str, handler: Callable[[NodeRecord], None]) -> None:
        """Have `handler` called with the node at each event of `EVENTS`, this node's included."""
        self._handlers[event].append(handler)

    @property
    def nodes(self) -> dict[str, Seen]:
        """The nodes by their ids, this one among them once it is known."""
        return dict(self._seen)

    def is_active(self, node_id: str) -> bool:
        """Whether a node is there and takes sessions."""
        seen = self._seen.get(node_id)
        return seen is not None and self.status(seen) == "active"

    def status(self, seen: Seen) -> str:
        """ "active", "draining", or "silent" if it has missed heartbeats."""
        is_silent = self.silence_s(seen) > _SILENT_AFTER * self._heartbeat_s
        return "silent" if is_silent else seen.record.status

    def silence_s(self, seen: Seen) -> float:
        """For how long no heartbeat of a node was seen, while one could look."""
        return self._looked_s - seen.at_s

    def count(self) -> dict[str, int]:
        """How many nodes are in each status."""
        counts = Counter(map(self.status, self._seen.values()))
        return {status: counts[status] for status in ("active", "draining", "silent")}

    def set_status(self, status: str) -> None:
        """Tell the others at once that this node is "active" or "draining"."""
        self.me = replace(self.me, status=status)
        self.hurry()

    def hurry(self) -> None:
        """Tell the others at once what is new of this node, and look what is new of them."""
        self._hurry.set()

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            try:
                await self.beat()
            except Unavailable as error:
                _logger.warning("no heartbeat: %s", error)
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._hurry.wait()
            except TimeoutError:
                continue
            self._hurry.clear()

    async def beat(self) -> None:
        """Say that this node is there, and look who else is.  Raises Unavailable."""
        entries = await self._store.entries(_REGISTER)
        if self.me.beat and self.me.id not in entries:
            for tell in self.on_forgotten:
                tell()
        self.me = replace(
            self.me,
            beat=self.me.beat + 1,
            sessions=self._n_sessions(),
            has_seen_all=self._has_seen_all(),
        )
        await self._store.enter(_REGISTER, {self.me.id: self.me.encode()}, self._timeout_s)
        self._look()
        for record in (self.me, *map(NodeRecord.decode, entries.values())):
            self._see(record)
        self._forget_the_silent()

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        self._looked_s += min(now - self._looked_at, self._heartbeat_s)
        self._looked_at = now

    async def leave(self) -> None:
        """Say that this node is going; nothing is to be asked of it afterwards."""
        gone = replace(self.me, status="left", beat=self.me.beat + 1)
        try:
            await self._store.enter(_REGISTER, {gone.id: gone.encode()}, self._timeout_s)
        except Unavailable as error:
            _logger.info("nobody is told that this node leaves: %s", error)

    def _see(self, record: NodeRecord) -> None:
        seen = self._seen.get(record.id)
        if record.id == self.me.id and record != self.me:
            return  # Before its latest heartbeat, or its restart.
        if record.status == "left":
            if seen is not None:
                self._lose(seen)
        elif seen is None:
            self._gain(record)
        elif record.started > seen.record.started:
            self._lose(seen)
            self._gain(record)
        elif (record.started, record.beat) > (seen.record.started, seen.record.beat):
            before = seen.record
            seen.record, seen.at_s = record, self._looked_s
            if record.says_more_than(before):
                self._tell("node_update", record)

    def _gain(self, record: NodeRecord) -> None:
        self._seen[record.id] = Seen(record, self._looked_s)
        self._tell("node_join", record)

    def _lose(self, seen: Seen) -> None:
        del self._seen[seen.record.id]
        self._tell("node_leave", seen.record)

    def _forget_the_silent(self) -> None:
        for seen in list(self._seen.values()):
            if self.silence_s(seen) > self._timeout_s:
                self._lose(seen)

    def _tell(self, event: str, record: NodeRecord) -> None:
        _logger.info("%s: %s", event, record.id)
        for handler in self._handlers[event]:
            try:
                handler(record)
            except Exception:
                _logger.exception("a handler of %s failed", event)


def record_of(node_id: str, hostname: str, ip: str, port: int, version: str) -> NodeRecord:
    """A node that starts now."""
    return NodeRecord(node_id, hostname, ip, port, version, time.time())
