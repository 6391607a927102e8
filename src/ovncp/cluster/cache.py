"""What was expensive to find out, kept for all nodes, and forgotten by all of them at once.

A value is kept at hand by each node that used it, and in the store for the others.  Its key is
`KIND:REST`, of one tenant or of none; a pattern such as `switch:*` forgets all that it matches, at
every node, by way of a stream of invalidations.  A value is as of a position in this stream: one
that a later invalidation matches is not used, wherever it was kept.

A node that cannot read the stream, since the store is away, has no values: it could not know which
are out of date.  One that was away for longer than invalidations are kept has all values forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

import orjson

from ovncp.cluster.base import ZERO, Gap, Item, Store, StreamId, Unavailable
from ovncp.cluster.metrics import Counts, labels
from ovncp.cluster.stream import Reader

_logger = logging.getLogger("ovncp.cluster.cache")

_STREAM = "invalidations"
_LONGEST_S = 86400.0
"""No value is kept longer, nor are invalidations."""
_WAIT_S = 2.0
_STALE_AFTER_S = 2 * _WAIT_S
_FAILED_PAUSE_S = 0.25
_MAX_UNSENT = 1000

Compute = Callable[[], Awaitable[bytes]]
_Name = tuple[str, str]  # tenant, key


class Invalidations:
    """The latest invalidation by each pattern, since a position."""

    def __init__(self, since: StreamId, n_most: int):
        self._since = since
        self._n_most = n_most
        self._exact: OrderedDict[_Name, StreamId] = OrderedDict()
        self._globs: OrderedDict[_Name, StreamId] = OrderedDict()

    def add(self, tenant: str, pattern: str, at: StreamId) -> None:
        """One has come; tenant "*" is all of them."""
        kept = self._exact if _is_exact(pattern) else self._globs
        kept[tenant, pattern] = at
        kept.move_to_end((tenant, pattern))
        if len(kept) > self._n_most:
            _, self._since = kept.popitem(last=False)

    def allow(self, name: _Name, at: StreamId) -> bool:
        """Whether a value as of `at` can be used still."""
        tenant, key = name
        exact = (self._exact.get((whose, key), ZERO) for whose in (tenant, "*"))
        if at < self._since or max(exact) > at:
            return False
        return not any(
            later > at and matches(*pattern, name) for pattern, later in self._globs.items()
        )


def _is_exact(pattern: str) -> bool:
    return not any(sign in pattern for sign in "*?[")


def matches(tenant: str, pattern: str, name: _Name) -> bool:
    """Whether a pattern, of a tenant or of "*", is for a value of this name."""
    return tenant in ("*", name[0]) and fnmatch.fnmatchcase(name[1], pattern)


class Cache:
    """The cache, as one node sees it."""

    def __init__(self, store: Store, n_entries: int, n_kept: int, counts: Counts):
        """`n_entries` values are at hand at most; `n_kept` invalidations can be replayed."""
        self.on_forget: list[Callable[[str, str], None]] = []
        """Called with the tenant, or "*", and the pattern of what any node has invalidated."""
        self._store = store
        self._n_entries = n_entries
        self._n_kept = n_kept
        self._counts = counts
        self._at_hand: OrderedDict[_Name, tuple[float, bytes]] = OrderedDict()
        self._underway: dict[_Name, asyncio.Task[bytes]] = {}
        self._unsent: dict[_Name, float] = {}
        self._reader: Reader | None = None
        self._invalidations = Invalidations(ZERO, n_kept)
        self._read_at = float("-inf")

    @property
    def is_usable(self) -> bool:
        """Whether this node knows what is out of date, and the others know it from this one."""
        return not self._unsent and _now() - self._read_at < _STALE_AFTER_S

    @property
    def n_at_hand(self) -> int:
        """How many values this node has at hand."""
        return len(self._at_hand)

    async def get(self, tenant: str | None, key: str) -> bytes | None:
        """The value, None if it is not known; tenant None is for those that all may see."""
        name = tenant or "", key
        if not self.is_usable:
            return None
        until, value = self._at_hand.get(name, (0.0, b""))
        if until > _now():
            self._at_hand.move_to_end(name)
            self._counts.cache_hits[labels(where="node")] += 1
            return value
        return await self._get_shared(name)

    async def _get_shared(self, name: _Name) -> bytes | None:
        try:
            text = await self._store.get(_shared(name))
        except Unavailable:
            return None
        if text is not None:
            head, _, value = text.partition(b"\n")
            at, until = head.decode().split()
            if self._invalidations.allow(name, StreamId.parse(at)) and self.is_usable:
                self._counts.cache_hits[labels(where="store")] += 1
                self._keep(name, value, _now() + float(until) - time.time())
                return value
        self._counts.cache_misses += 1
        return None

    async def fetch(self, tenant: str | None, key: str, ttl_s: float, compute: Compute) -> bytes:
        """The value, computed if it is not known: once, for all who ask this node meanwhile."""
        found = await self.get(tenant, key)
        if found is not None:
            return found
        name = tenant or "", key
        task = self._underway.get(name)
        if task is None:
            task = self._underway[name] = asyncio.create_task(self._compute(name, ttl_s, compute))
            task.add_done_callback(lambda done: self._computed(name, done))
        return await asyncio.shield(task)

    def _computed(self, name: _Name, done: asyncio.Task[bytes]) -> None:
        if self._underway.get(name) is done:
            del self._underway[name]

    async def _compute(self, name: _Name, ttl_s: float, compute: Compute) -> bytes:
        # As of before it is computed, since an invalidation may come meanwhile.
        at = self._position
        value = await compute()
        await self._put(name, value, min(ttl_s, _LONGEST_S), at)
        return value

    @property
    def _position(self) -> StreamId:
        return self._reader.position if self._reader else ZERO

    async def _put(self, name: _Name, value: bytes, ttl_s: float, at: StreamId) -> None:
        if not self.is_usable or not self._invalidations.allow(name, at):
            return
        self._keep(name, value, _now() + ttl_s)
        head = f"{at} {time.time() + ttl_s}\n".encode()
        with contextlib.suppress(Unavailable):
            await self._store.put(_shared(name), head + value, ttl_s)

    def _keep(self, name: _Name, value: bytes, until: float) -> None:
        self._at_hand[name] = until, value
        self._at_hand.move_to_end(name)
        if len(self._at_hand) > self._n_entries:
            self._at_hand.popitem(last=False)

    async def warm(self, wanted: Iterable[tuple[str | None, str, float, Compute]]) -> None:
        """Fetch values that will be asked for; each is what `fetch` takes."""
        for tenant, key, ttl_s, compute in wanted:
            await self.fetch(tenant, key, ttl_s, compute)

    async def invalidate(self, *patterns: str, tenant: str | None = None) -> None:
        """Have all nodes forget what matches, of one tenant or of all.

        This node has forgotten on return; the others are told, later if the store is away.
        """
        self._unsent |= {(tenant or "*", pattern): time.time() for pattern in patterns}
        if len(self._unsent) > _MAX_UNSENT:
            self._unsent = {("*", "*"): min(self._unsent.values())}
        await self._send()

    async def _send(self) -> None:
        unsent = dict(self._unsent)
        for name in unsent:
            self._forget(*name)
        if not unsent:
            return
        texts = [orjson.dumps([*name, at]) for name, at in unsent.items()]
        try:
            last = await self._store.publish(_STREAM, texts, self._n_kept, _LONGEST_S)
        except Unavailable as error:
            _logger.info("invalidations have to wait: %s", error)
            return
        for name, at in unsent.items():
            self._invalidations.add(*name, last)
            # What was computed meanwhile may be as of before.
            self._forget(*name)
            if self._unsent.get(name) == at:
                del self._unsent[name]

    def _forget(self, tenant: str, pattern: str) -> None:
        for tell in self.on_forget:
            tell(tenant, pattern)
        if _is_exact(pattern) and tenant != "*":
            self._at_hand.pop((tenant, pattern), None)
            self._underway.pop((tenant, pattern), None)
            return
        for name in [name for name in self._at_hand if matches(tenant, pattern, name)]:
            del self._at_hand[name]
        for name in [name for name in self._underway if matches(tenant, pattern, name)]:
            del self._underway[name]

    async def run(self) -> None:
        """Read invalidations, for ever."""
        while True:
            try:
                await self._send()
                await self._read_on()
            except Unavailable:
                await asyncio.sleep(_FAILED_PAUSE_S)

    async def _read_on(self) -> None:
        if self._reader is None:
            await self._start()
        else:
            try:
                self._hear(await self._reader.next(_WAIT_S))
            except Gap as gap:
                _logger.warning("all that was kept is forgotten: %s", gap)
                await self._start()
                await self.invalidate("*")
        self._read_at = _now()

    async def _start(self) -> None:
        """Know the invalidations that are kept, and nothing of before."""
        reader = Reader(self._store, _STREAM, ZERO)
        kept = await reader.restart()
        since = kept[0].previous if kept else reader.position
        self._invalidations = Invalidations(since, self._n_kept)
        self._forget("*", "*")
        for item in kept:
            self._take(item)
        self._reader = reader

    def _hear(self, items: list[Item]) -> None:
        for item in items:
            at = self._take(item)
            self._counts.invalidations += 1
            self._counts.invalidation_s.observe(max(0.0, time.time() - at))

    def _take(self, item: Item) -> float:
        tenant, pattern, at = orjson.loads(item.data)
        self._invalidations.add(tenant, pattern, item.id)
        self._forget(tenant, pattern)
        return float(at)


def _shared(name: _Name) -> str:
    return f"cache:{name[0]}:{name[1]}"


def _now() -> float:
    return asyncio.get_running_loop().time()
