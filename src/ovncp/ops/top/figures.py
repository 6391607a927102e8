"""What is shown: figures made of two looks at the metrics, as JSON for programs.

Rates are per second and latencies of the time between the two looks; all else is of the second one.
Times are in seconds, sizes in bytes; null is what nothing is known of.
"""

import time
from typing import Any, NamedTuple

from ovncp.ops.top.samples import Samples, quantile

_STAGES = ("turn", "execute", "store", "tell", "forward")
_SESSION = {
    "sent_bytes_per_second": "ovncp_session_sent_bytes_per_second",
    "received_bytes_per_second": "ovncp_session_received_bytes_per_second",
    "requests_per_second": "ovncp_session_requests_per_second",
    "backlog_bytes": "ovncp_session_backlog_bytes",
}
# Of what workers have copies of, the main process's is shown.
_SHARED = {
    "rows": "ovncp_rows",
    "history_bytes": "ovncp_history_bytes",
    "history_limit_bytes": "ovncp_history_limit_bytes",
    "history_entries": "ovncp_history_entries",
}
_OWN = {
    "waiting": "ovncp_transactions_waiting",
    "monitors": "ovncp_monitors",
    "groups": "ovncp_monitor_groups",
    "clauses": "ovncp_monitor_clauses",
}

Json = dict[str, Any]


class Look(NamedTuple):
    """The metrics at one moment; `seconds` is on any clock that all looks share."""

    seconds: float
    samples: Samples


class _Between:
    """What happened between two looks."""

    def __init__(self, before: Look, after: Look) -> None:
        self._before = before.samples
        self._after = after.samples
        self._seconds = max(after.seconds - before.seconds, 1e-3)

    def added(self, name: str, **labels: str) -> float:
        # A server that was started anew begins at zero.
        return max(0.0, self._after.sum(name, **labels) - self._before.sum(name, **labels))

    def rate(self, name: str, **labels: str) -> float:
        return self.added(name, **labels) / self._seconds

    def quantiles(self, name: str, **labels: str) -> Json:
        before = self._before.buckets(name, **labels)
        after = self._after.buckets(name, **labels)
        buckets = {bound: max(0.0, n - before.get(bound, 0)) for bound, n in after.items()}
        return {"p50": quantile(0.5, buckets), "p99": quantile(0.99, buckets)}

    def mean(self, name: str, **labels: str) -> float | None:
        count = self.added(f"{name}_count", **labels)
        return self.added(f"{name}_sum", **labels) / count if count else None

    def share(self, made: str, used: str, **labels: str) -> float | None:
        """Which part of what was used had not to be made for that."""
        n_used = self.added(used, **labels)
        return max(0.0, 1 - self.added(made, **labels) / n_used) if n_used else None


def figures(before: Look, after: Look) -> Json:
    """The figures, as JSON."""
    between, now = _Between(before, after), after.samples
    return {
        "server": _server(between, now),
        "transactions": {
            result: between.rate("ovncp_transactions_total", result=result)
            for result in ("committed", "unchanged", "failed", "canceled", "forwarded")
        },
        "latency": _latency(between),
        "log": _log(between, now),
        "loop": _loop(between, now),
        "clients": _clients(between, now),
        "sessions": _integers(now.by("remote", "ovncp_sessions")),
        "databases": _databases(now),
        "relays": _relays(now),
        "talkers": _talkers(now),
    }


def _server(between: _Between, now: Samples) -> Json:
    build = next(iter(now.all("ovncp_build_info")), None)
    labels = build.labels if build is not None else {}
    started = now.sum("process_start_time_seconds", worker="")
    return {
        "version": labels.get("version"),
        "compiled": labels.get("compiled") == "yes",
        "uptime": time.time() - started if started else None,
        "cpu_percent": 100 * between.rate("process_cpu_seconds_total"),
        "resident_bytes": int(now.sum("process_resident_memory_bytes")),
        "open_fds": int(now.sum("process_open_fds")),
        "max_fds": int(now.sum("process_max_fds")),
    }


def _latency(between: _Between) -> Json:
    stages = {
        stage: between.quantiles("ovncp_transaction_stage_seconds", stage=stage)
        for stage in _STAGES
    }
    return {"whole": between.quantiles("ovncp_transaction_seconds"), **stages}


def _log(between: _Between, now: Samples) -> Json:
    last = now.all("ovncp_last_compaction_seconds")
    return {
        "appends_per_second": between.rate("ovncp_log_appends_total"),
        "entries_per_append": between.mean("ovncp_log_batch_entries"),
        "append": between.quantiles("ovncp_log_append_seconds"),
        "append_failures": int(now.sum("ovncp_log_append_failures_total")),
        "compactions": int(now.sum("ovncp_compaction_seconds_count")),
        "last_compaction": max((sample.value for sample in last), default=None),
    }


def _loop(between: _Between, now: Samples) -> Json:
    return {
        "longest_stall_of_last_minute": now.max("ovncp_loop_longest_stall_of_last_minute_seconds"),
        "longest_stall": now.max("ovncp_loop_longest_stall_seconds"),
        "stalls": int(now.sum("ovncp_loop_stalls_total")),
        "gc_pauses_per_second": between.rate("ovncp_gc_pause_seconds_count"),
        "gc_pause": between.quantiles("ovncp_gc_pause_seconds"),
    }


def _clients(between: _Between, now: Samples) -> Json:
    shares = {
        f"{what}s_reused": between.share(
            "ovncp_encodings_total", "ovncp_encoding_uses_total", what=what
        )
        for what in ("row", "piece", "update")
    }
    return {
        "requests_per_second": between.rate("ovncp_requests_total"),
        "received_bytes_per_second": between.rate("ovncp_received_bytes_total"),
        "sent_bytes_per_second": between.rate("ovncp_sent_bytes_total"),
        "updates_per_second": between.rate("ovncp_encoding_uses_total", what="update"),
        "backlog_bytes": int(now.sum("ovncp_backlog_bytes")),
        "overflowed": int(now.sum("ovncp_overflowed_sessions_total")),
        **shares,
    }


def _databases(now: Samples) -> Json:
    columns = {name: now.by("database", metric, worker="") for name, metric in _SHARED.items()}
    columns |= {name: now.by("database", metric) for name, metric in _OWN.items()}
    return {
        database: {column: int(values.get(database, 0)) for column, values in columns.items()}
        for database in columns["monitors"]
    }


def _relays(now: Samples) -> Json:
    connected = now.all("ovncp_relay_connected", worker="")
    return {
        sample.labels["database"]: {
            "source": sample.labels["source"],
            "connected": bool(sample.value),
            "lag": now.max("ovncp_relay_lag_seconds", source=sample.labels["source"]),
        }
        for sample in connected
    }


def _talkers(now: Samples) -> list[Json]:
    talkers: dict[str, Json] = {}
    for column, name in _SESSION.items():
        for labels, value in now.all(name):
            talkers.setdefault(labels["peer"], dict(labels))[column] = value
    return sorted(talkers.values(), key=_weight, reverse=True)


def _weight(talker: Json) -> float:
    return float(sum(talker[column] for column in _SESSION))


def _integers(values: dict[str, float]) -> dict[str, int]:
    return {name: int(value) for name, value in values.items()}
