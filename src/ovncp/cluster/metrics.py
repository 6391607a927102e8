"""Figures about the cooperation of nodes, as plain numbers that anybody can show.

A `Family` is what Prometheus calls one: a name, a kind, and samples with labels.  `api/metrics.py`
shows those of a node; docs/platform.md has the same list for people.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """How many observations were at most each bound."""

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_S):
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, int]]:
        """Each bound as text, and how many were at most that; the last one is "+Inf"."""
        total, found = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: `kind` is "counter", "gauge" or "histogram", which has `histograms` alone."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[Labels, float], ...] = ()
    histograms: tuple[tuple[Labels, Histogram], ...] = ()


def labels(**values: str) -> Labels:
    """The labels of a sample."""
    return tuple(values.items())


def family(name: str, kind: str, help: str, samples: float | Mapping[Labels, float]) -> Family:
    """A metric with one sample, or with one for each of several labels."""
    if isinstance(samples, Mapping):
        return Family(name, kind, help, tuple(samples.items()))
    return Family(name, kind, help, (((), samples),))


def distribution(
    name: str, help: str, histograms: Histogram | Mapping[Labels, Histogram]
) -> Family:
    """A metric that is a histogram, or one for each of several labels."""
    if isinstance(histograms, Histogram):
        histograms = {(): histograms}
    return Family(name, "histogram", help, histograms=tuple(histograms.items()))


@dataclass
class Counts:
    """What is counted where it happens."""

    locks_acquired: int = 0
    locks_held: int = 0
    locks_lost: int = 0
    lock_wait_s: Histogram = field(default_factory=Histogram)
    migrations: Counter[Labels] = field(default_factory=Counter)
    invalidations: int = 0
    invalidation_s: Histogram = field(default_factory=Histogram)
    cache_hits: Counter[Labels] = field(default_factory=Counter)
    cache_misses: int = 0
    events_appended: int = 0
    events_read: int = 0
    event_gaps: int = 0
    times_leader: int = 0


def counted(counts: Counts) -> Iterable[Family]:
    """What `counts` has, under the names that it is shown by."""
    return [
        family(
            "ovncp_distributed_locks_acquired_total",
            "counter",
            "Locks that this node took.",
            counts.locks_acquired,
        ),
        family(
            "ovncp_distributed_locks_held",
            "gauge",
            "Locks that this node holds.",
            counts.locks_held,
        ),
        family(
            "ovncp_distributed_locks_lost_total",
            "counter",
            "Locks that were over before this node gave them back.",
            counts.locks_lost,
        ),
        distribution(
            "ovncp_distributed_lock_wait_seconds",
            "Time from asking for a lock to having it.",
            counts.lock_wait_s,
        ),
        family(
            "ovncp_session_migrations_total",
            "counter",
            "Sessions that this node asked to move, by where from and to.",
            counts.migrations,
        ),
        family(
            "ovncp_cache_invalidation_events_total",
            "counter",
            "Patterns that this node was told to forget.",
            counts.invalidations,
        ),
        distribution(
            "ovncp_cache_invalidation_latency_seconds",
            "Time from an invalidation to its arrival here, by the nodes' clocks.",
            counts.invalidation_s,
        ),
        family(
            "ovncp_cache_hits_total",
            "counter",
            "Values found in the cache, by where.",
            counts.cache_hits,
        ),
        family(
            "ovncp_cache_misses_total",
            "counter",
            "Values that were not in the cache.",
            counts.cache_misses,
        ),
        family(
            "ovncp_events_appended_total",
            "counter",
            "Events that this node appended to the stream, as the leader.",
            counts.events_appended,
        ),
        family(
            "ovncp_events_read_total",
            "counter",
            "Events that this node read from the stream.",
            counts.events_read,
        ),
        family(
            "ovncp_event_gaps_total",
            "counter",
            "Times that events were gone before this node had read them.",
            counts.event_gaps,
        ),
        family(
            "ovncp_cluster_leaderships_total",
            "counter",
            "Times that this node became the leader.",
            counts.times_leader,
        ),
    ]
