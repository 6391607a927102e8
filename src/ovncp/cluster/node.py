"""One node of the cluster: its part in everything that nodes do together, started and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable

from ovncp.cluster.background import end
from ovncp.cluster.base import Store
from ovncp.cluster.breaker import STATES, Breaker
from ovncp.cluster.cache import Cache
from ovncp.cluster.coverage import Coverage
from ovncp.cluster.feed import Feed
from ovncp.cluster.leadership import Leadership
from ovncp.cluster.locks import Locks
from ovncp.cluster.mail import Body, Mail
from ovncp.cluster.membership import Membership, NodeRecord, record_of
from ovncp.cluster.metrics import Counts, Family, counted, family, labels
from ovncp.cluster.rates import Rates
from ovncp.cluster.sessions import NoSuchNode, Sessions
from ovncp.cluster.settings import ClusterSettings

_logger = logging.getLogger("ovncp.cluster.node")

_CRASHED_PAUSE_S = 1.0
_HEIR_S = 5.0
_LOOK_S = 0.2
_DRAIN = "drain"
_SWEEP = "sessions of nodes that are gone"
_FEED = "events"


class Node:
    """This node; belongs to the running event loop.

    Before `start`, work for the leader is added to `leadership`, and listeners to `feed`.
    """

    def __init__(self, settings: ClusterSettings, store: Store, version: str):
        """`store` is closed with the node."""
        self.settings = settings
        self.store = store
        self.breakers: list[Breaker] = []
        """Those of all dependencies, for the figures."""
        self.more_families: list[Callable[[], Iterable[Family]]] = []
        """Further figures."""
        self.on_drain: list[Callable[[], None]] = []
        """Called when this node is to serve no more, besides what is already under way."""
        me = record_of(settings.node_id, settings.hostname, settings.ip, settings.port, version)
        self._counts = counts = Counts()
        self.membership = Membership(
            store,
            me,
            settings.heartbeat_s,
            settings.node_timeout_s,
            lambda: len(self.sessions.own),
            lambda: self.feed.has_seen_all,
        )
        self.mail = Mail(store, settings.node_id)
        self.sessions = Sessions(
            store,
            self.membership,
            self.mail,
            settings.session_ttl_s,
            settings.session_cleanup_s,
            counts,
        )
        self.leadership = Leadership(store, settings.node_id, settings.lease_s, counts)
        self.locks = Locks(store, settings.node_id, counts)
        self.cache = Cache(store, settings.cache_entries, settings.invalidations_kept, counts)
        self.feed = Feed(store, "ovn", settings.events_kept, counts)
        self.coverage = Coverage(self.feed, self.leadership, self.mail, settings.node_id)
        self.coverage.on_covered.append(self.membership.hurry)
        self.rates = Rates(store)
        self.leadership.add(_SWEEP, self.sessions.clean)
        self.leadership.add(_FEED, self.coverage.lead)
        self.mail.on(_DRAIN, self._drain_as_asked)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def id(self) -> str:
        """This node's."""
        return self.settings.node_id

    @property
    def is_draining(self) -> bool:
        """Whether this node takes no more sessions."""
        return self.membership.me.status == "draining"

    async def start(self) -> None:
        """Take part from now on; returns whether or not the store can be reached."""
        runs = {
            "membership": self.membership.run,
            "leadership": self.leadership.run,
            "mail": self.mail.run,
            "sessions": self.sessions.run,
            "cache": self.cache.run,
            "feed": self.feed.run,
            "coverage": self.coverage.run,
            "rates": self.rates.run,
        }
        self._tasks = [asyncio.create_task(_keep_up(name, run)) for name, run in runs.items()]

    async def close(self) -> None:
        """Take part no longer, and tell the others."""
        await end(self._tasks)
        await self.leadership.withdraw()
        await self.membership.leave()
        await self.store.close()

    async def drain(self) -> None:
        """Leave the work to the others: lead no more, and ask all clients to move."""
        self.membership.set_status("draining")
        self.sessions.drain()
        for tell in self.on_drain:
            tell()
        await self._heir()
        await self.leadership.withdraw()

    async def _heir(self) -> None:
        """Return when somebody else would lose no events as the leader, or nobody soon will.

        Who has just started needs a mark of this node, if it leads, to be sure of that.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEIR_S):
                while (
                    self.leadership.is_leader
                    and self._fellows
                    and not any(record.has_seen_all for record in self._fellows)
                ):
                    self.membership.hurry()
                    await asyncio.sleep(_LOOK_S)

    @property
    def _fellows(self) -> list[NodeRecord]:
        """The other nodes that are there, and stay."""
        nodes = self.membership.nodes.items()
        return [
            seen.record for id, seen in nodes if id != self.id and self.membership.is_active(id)
        ]

    async def ask_to_drain(self, node_id: str) -> None:
        """Have a node drain.  Raises NoSuchNode, Unavailable."""
        if node_id not in self.membership.nodes:
            raise NoSuchNode(f"no node {node_id}")
        await self.mail.send(node_id, _DRAIN, {})

    def _drain_as_asked(self, _: Body) -> None:
        if not self.is_draining:
            self._tasks.append(asyncio.create_task(self.drain()))

    def families(self) -> Iterable[Family]:
        """This node's figures about the cluster."""
        yield family(
            "ovncp_cluster_nodes_total",
            "gauge",
            "Nodes of the cluster, by status.",
            {labels(status=status): n for status, n in self.membership.count().items()},
        )
        yield family(
            "ovncp_cluster_node_info",
            "gauge",
            "The nodes of the cluster.",
            {
                labels(node_id=id, hostname=seen.record.hostname, ip=seen.record.ip): 1
                for id, seen in self.membership.nodes.items()
            },
        )
        leader = self.leadership.leader
        yield family(
            "ovncp_cluster_leader",
            "gauge",
            "Which node is the leader, as far as this one knows.",
            {labels(node_id=leader.holder.partition("/")[0]): 1} if leader else {},
        )
        yield family("ovncp_sessions_total", "gauge", "Sessions at all nodes.", self.sessions.n_all)
        yield family(
            "ovncp_sessions_active", "gauge", "Sessions at this node.", len(self.sessions.own)
        )
        yield family(
            "ovncp_cache_entries", "gauge", "Values at hand in this node.", self.cache.n_at_hand
        )
        yield family(
            "ovncp_events_pending",
            "gauge",
            "Changes that the databases have shown, and the stream has not.",
            self.feed.n_pending,
        )
        yield family(
            "ovncp_breaker_state",
            "gauge",
            "0 closed, 1 half open, 2 open: the dependency is left alone.",
            {labels(dependency=b.name): STATES.index(b.state) for b in self.breakers},
        )
        yield from counted(self._counts)
        for families in self.more_families:
            yield from families()


async def _keep_up(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a part of the node, which never ends; again if it fails."""
    while True:
        try:
            await run()
        except Exception:
            _logger.exception("%s failed, and starts again", name)
        await asyncio.sleep(_CRASHED_PAUSE_S)


def open_node(settings: ClusterSettings, version: str) -> Node:
    """A node as the settings say, over Redis or alone in its process."""
    if settings.redis is None:
        from ovncp.cluster.memory import Memory, MemoryStore

        return Node(settings, MemoryStore(Memory()), version)
    from ovncp.cluster.redis import RedisStore

    store = RedisStore(settings.redis)
    node = Node(settings, store, version)
    node.breakers.append(store.breaker)
    node.more_families.append(store.families)
    return node
