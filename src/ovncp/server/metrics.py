"""The server's figures in Prometheus' text format, version 0.0.4 (`--metrics`, `metrics/show`).

`METRICS` is the list of them. Each is read from where it is counted anyway, when somebody asks;
docs/metrics.md has the same list for those who do.
"""

import platform
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import ovncp
from ovncp.log.engine import Usage
from ovncp.ovsdb.encoded import PIECES, ROWS, UPDATES, Encoded
from ovncp.server.cluster import Cluster
from ovncp.server.coverage import COUNTERS
from ovncp.server.dumps import Dumps
from ovncp.server.exposition import Histograms, Samples, head, histogram_lines, sample_lines
from ovncp.server.handshakes import Handshakes
from ovncp.server.perf_counter import JOBS
from ovncp.server.process import Process
from ovncp.server.relay import Relay
from ovncp.server.relay_lag import RelayLag
from ovncp.server.runner import BATCH_SIZES, Runner
from ovncp.server.stall import STALL_NS, StallWatch
from ovncp.server.subject import Subject
from ovncp.server.talkers import N_NAMED, Survey, Talker, Talkers
from ovncp.server.upstream import Upstream

_NS = 1e-9
_NS_BITS = range(10, 35)  # from a microsecond to 17 seconds
_SIZE_BITS = range(1, 13)

STAGES = ("turn", "execute", "store", "tell", "forward")
_RESULTS = {
    "committed": "txn_success",
    "unchanged": "txn_unchanged",
    "failed": "txn_error",
    "canceled": "txn_canceled",
    "forwarded": "txn_forward_complete",
}
_ENCODED = {"row": ROWS, "piece": PIECES, "update": UPDATES}


class Figures(NamedTuple):
    """Where the figures are read from, once for each time that somebody asks."""

    subject: Subject
    stalls: StallWatch
    survey: Survey
    process: Process
    lags: dict[Upstream, int]

    @property
    def runners(self) -> Iterable[Runner]:
        """The databases."""
        return self.subject.server.runners.values()

    @property
    def relays(self) -> Iterable[Relay]:
        """Those that are relayed."""
        return [runner for runner in self.runners if isinstance(runner, Relay)]


class Metric(NamedTuple):
    """One row of the list; `kind` is "counter" or "gauge"."""

    name: str
    kind: str
    help: str
    samples: Callable[[Figures], Samples]

    def lines(self, figures: Figures) -> Iterator[str]:
        """The metric as text."""
        return sample_lines(self.name, self.samples(figures))


class Distribution(NamedTuple):
    """One row of the list that is a histogram; see `histogram_lines`."""

    name: str
    help: str
    histograms: Callable[[], Histograms]
    unit: float = _NS
    n_bits: range = _NS_BITS
    kind: str = "histogram"

    def lines(self, _: Figures) -> Iterator[str]:
        """The metric as text."""
        return histogram_lines(self.name, self.histograms(), self.unit, self.n_bits)


def _one(read: Callable[[Figures], float]) -> Callable[[Figures], Samples]:
    """The samples of a metric with no labels."""
    return lambda figures: [({}, read(figures))]


def _counter(name: str) -> Callable[[Figures], Samples]:
    return _one(lambda _: COUNTERS[name])


def _job(name: str) -> Callable[[], Histograms]:
    return lambda: [({}, JOBS.job(name))]


def _by_database(read: Callable[[Runner], float]) -> Callable[[Figures], Samples]:
    return lambda figures: [({"database": runner.name}, read(runner)) for runner in figures.runners]


def _of_talkers(read: Callable[[Talker], float]) -> Callable[[Figures], Samples]:
    def samples(figures: Figures) -> Samples:
        for talker in figures.survey.talkers:
            names = {"peer": talker.peer, "remote": talker.remote, "identity": talker.identity}
            yield names, read(talker)

    return samples


def _of_relays(read: Callable[[Relay], float]) -> Callable[[Figures], Samples]:
    return lambda figures: [
        ({"database": runner.name, "source": runner.upstream.name}, read(runner))
        for runner in figures.relays
    ]


def _relay_lags(figures: Figures) -> Samples:
    for relay in figures.relays:
        lag = figures.lags.get(relay.upstream)
        if lag is not None:
            yield {"database": relay.name, "source": relay.upstream.name}, lag * _NS


def _of_compactions(place: int, unit: float) -> Callable[[Figures], Samples]:
    return lambda figures: [
        ({"database": name}, latest[place] * unit)
        for name, latest in figures.subject.compactions.items()
    ]


def _of_clusters(read: Callable[[Cluster], float | None]) -> Callable[[Figures], Samples]:
    """Of each cluster of which it is known."""

    def samples(figures: Figures) -> Samples:
        for name, cluster in figures.subject.clusters.items():
            figure = read(cluster)
            if figure is not None:
                yield {"database": name}, figure

    return samples


def _of_engines(read: Callable[[Usage], int | None]) -> Callable[[Figures], Samples]:
    def of(cluster: Cluster) -> int | None:
        usage = cluster.upkeep.usage
        return None if usage is None else read(usage)

    return _of_clusters(of)


def _of_encoded(read: Callable[[Encoded], int]) -> Callable[[Figures], Samples]:
    return lambda _: [({"what": what}, read(encoded)) for what, encoded in _ENCODED.items()]


def _build(_: Figures) -> Samples:
    compiled = "yes" if ovncp.IS_COMPILED else "no"
    names = {"version": ovncp.__version__, "compiled": compiled}
    return [({**names, "python": platform.python_version()}, 1)]


def _turns(queue: Dumps | Handshakes) -> Samples:
    return [({"state": "waiting"}, queue.n_waiting), ({"state": "begun"}, queue.n_begun)]


def _sessions(figures: Figures) -> Samples:
    numbers = dict.fromkeys(figures.subject.remotes, 0) | figures.survey.n_sessions
    return [({"remote": target}, number) for target, number in numbers.items()]


def _rows(figures: Figures) -> Samples:
    for runner in figures.runners:
        for name, table in runner.database.tables.items():
            yield {"database": runner.name, "table": name}, len(table.rows)


_TOP = f"of the sessions that are among the top {N_NAMED} by any of these figures"

METRICS: tuple[Metric | Distribution, ...] = (
    Metric("ovncp_build_info", "gauge", "Always 1; the labels say what runs.", _build),
    # Transactions
    Metric(
        "ovncp_transactions_total",
        "counter",
        "Transactions that are over, by result.",
        lambda _: [({"result": result}, COUNTERS[name]) for result, name in _RESULTS.items()],
    ),
    Distribution(
        "ovncp_transaction_seconds",
        "From a transaction's arrival until its client is told, waiting for a condition aside.",
        _job("transaction"),
    ),
    Distribution(
        "ovncp_transaction_stage_seconds",
        "Its stages; forward is that of a transaction which another server executes.",
        lambda: [({"stage": stage}, JOBS.job(f"transaction_{stage}")) for stage in STAGES],
    ),
    Metric(
        "ovncp_transaction_waits_total",
        "counter",
        "Times that a transaction began to wait for a condition.",
        _counter("txn_wait"),
    ),
    Metric(
        "ovncp_transactions_waiting",
        "gauge",
        "Transactions that wait for a condition.",
        _by_database(lambda runner: runner.n_triggers),
    ),
    # The log
    Metric(
        "ovncp_log_appends_total",
        "counter",
        "Batches of transactions that were written to a log.",
        _counter("log_append"),
    ),
    Metric(
        "ovncp_log_append_failures_total",
        "counter",
        "Batches that could not be written.",
        _counter("log_append_failed"),
    ),
    Distribution(
        "ovncp_log_append_seconds",
        "Until a batch was written and, unless --no-fsync is given, on the disk.",
        _job("log_append"),
    ),
    Distribution(
        "ovncp_log_batch_entries",
        "Transactions in a batch.",
        lambda: [({}, BATCH_SIZES)],
        unit=1,
        n_bits=_SIZE_BITS,
    ),
    Distribution("ovncp_compaction_seconds", "What compactions of a log took.", _job("compact")),
    Metric(
        "ovncp_compaction_failures_total",
        "counter",
        "Compactions that failed.",
        _counter("compaction_failed"),
    ),
    Metric(
        "ovncp_last_compaction_timestamp_seconds",
        "gauge",
        "When a database's log was compacted last, since the epoch.",
        _of_compactions(0, 1e-3),
    ),
    Metric(
        "ovncp_last_compaction_seconds",
        "gauge",
        "What that took.",
        _of_compactions(1, _NS),
    ),
    # Logs that several servers share
    Metric(
        "ovncp_log_conflicts_total",
        "counter",
        "Batches that were proposed again, as entries of another server came first.",
        _counter("log_conflict"),
    ),
    Metric(
        "ovncp_log_overlaps_total",
        "counter",
        "Batches that executed again, as entries of another server had to do with them.",
        _counter("log_overlap"),
    ),
    Metric(
        "ovncp_log_unknown_outcomes_total",
        "counter",
        "Batches of which it was not known for a while whether they were stored.",
        _counter("log_outcome_unknown"),
    ),
    Metric(
        "ovncp_log_entries_of_others_total",
        "counter",
        "Entries of other servers that were applied.",
        _counter("log_entry_of_others"),
    ),
    Metric(
        "ovncp_log_reloads_total",
        "counter",
        "Times that a database was read again, as the entries that it lacked were gone.",
        _counter("log_reload"),
    ),
    Metric(
        "ovncp_log_cut_offs_total",
        "counter",
        "Times that a log's engine went out of reach.",
        _counter("log_cut_off"),
    ),
    Metric(
        "ovncp_log_connected",
        "gauge",
        "Whether a log's engine is in reach, so that the database can be changed.",
        _of_clusters(lambda cluster: int(cluster.runner.is_connected)),
    ),
    Metric(
        "ovncp_log_index",
        "gauge",
        "The last entry of a shared log that was applied.",
        _of_clusters(lambda cluster: cluster.runner.index),
    ),
    Metric(
        "ovncp_log_lag_entries",
        "gauge",
        "Entries of a shared log that are known of but not applied yet.",
        _of_clusters(lambda cluster: cluster.n_unapplied),
    ),
    Metric(
        "ovncp_log_entries",
        "gauge",
        "Entries of a shared log after its snapshot.",
        _of_clusters(lambda cluster: cluster.n_entries),
    ),
    Metric(
        "ovncp_engine_used_bytes",
        "gauge",
        "What a log's engine has in use, for all its users.",
        _of_engines(lambda usage: usage.used),
    ),
    Metric(
        "ovncp_engine_allocated_bytes",
        "gauge",
        "What it has allocated, which is what its quota is about.",
        _of_engines(lambda usage: usage.allocated),
    ),
    Metric(
        "ovncp_engine_quota_bytes",
        "gauge",
        "How much that may become, if the engine has a quota.",
        _of_engines(lambda usage: usage.quota),
    ),
    # Databases and what is kept for monitors
    Metric("ovncp_rows", "gauge", "Rows of a table.", _rows),
    Metric(
        "ovncp_monitors",
        "gauge",
        "Monitors.",
        _by_database(lambda runner: len(runner.database.monitors)),
    ),
    Metric(
        "ovncp_monitor_groups",
        "gauge",
        "Different things that are monitored; an update is put together once for each.",
        _by_database(lambda runner: runner.database.monitors.n_groups),
    ),
    Metric(
        "ovncp_monitor_clauses",
        "gauge",
        "Different clauses of conditions that changes are matched with.",
        _by_database(lambda runner: runner.database.monitors.n_clauses),
    ),
    Metric(
        "ovncp_encodings_total",
        "counter",
        "JSON for monitors that was put together.",
        _of_encoded(lambda encoded: encoded.made),
    ),
    Metric(
        "ovncp_encoding_uses_total",
        "counter",
        "Times that it was used; what is above the number of encodings was there already.",
        _of_encoded(lambda encoded: encoded.used),
    ),
    Metric(
        "ovncp_history_bytes",
        "gauge",
        "Size of the transactions that are kept for clients that resume.",
        _by_database(lambda runner: runner.database.history.n_bytes),
    ),
    Metric(
        "ovncp_history_limit_bytes",
        "gauge",
        "How large that may become (--history-bytes).",
        _by_database(lambda runner: runner.database.history.max_bytes),
    ),
    Metric(
        "ovncp_history_entries",
        "gauge",
        "Transactions that are kept for clients that resume.",
        _by_database(lambda runner: len(runner.database.history)),
    ),
    # Sessions
    Metric(
        "ovncp_sessions",
        "gauge",
        "Clients that are connected.",
        _sessions,
    ),
    Metric(
        "ovncp_requests_total",
        "counter",
        "Requests of clients.",
        _one(lambda figures: figures.survey.traffic.n_requests),
    ),
    Metric(
        "ovncp_received_bytes_total",
        "counter",
        "JSON from clients, encryption aside.",
        _one(lambda figures: figures.survey.traffic.received_bytes),
    ),
    Metric(
        "ovncp_sent_bytes_total",
        "counter",
        "JSON to clients, encryption aside.",
        _one(lambda figures: figures.survey.traffic.sent_bytes),
    ),
    Metric(
        "ovncp_backlog_bytes",
        "gauge",
        "What clients have not taken yet, in all.",
        _one(lambda figures: figures.survey.backlog_bytes),
    ),
    Metric(
        "ovncp_merged_updates_total",
        "counter",
        "Updates in which a slow client was sent several at once.",
        _counter("monitor_merged"),
    ),
    Metric(
        "ovncp_overflowed_sessions_total",
        "counter",
        "Clients that were disconnected because they were too slow.",
        _counter("session_overflow"),
    ),
    Metric(
        "ovncp_dumps",
        "gauge",
        "First dumps, and the like, of clients that wait for their turn or have it.",
        lambda figures: _turns(figures.subject.server.dumps),
    ),
    Metric(
        "ovncp_handshakes",
        "gauge",
        "TLS handshakes of clients that wait for their turn or have it.",
        lambda figures: _turns(figures.subject.server.handshakes),
    ),
    Metric(
        "ovncp_session_sent_bytes_per_second",
        "gauge",
        f"JSON sent, {_TOP}.",
        _of_talkers(lambda talker: talker.sent_bytes),
    ),
    Metric(
        "ovncp_session_received_bytes_per_second",
        "gauge",
        f"JSON received, {_TOP}.",
        _of_talkers(lambda talker: talker.received_bytes),
    ),
    Metric(
        "ovncp_session_requests_per_second",
        "gauge",
        f"Requests, {_TOP}.",
        _of_talkers(lambda talker: talker.requests),
    ),
    Metric(
        "ovncp_session_backlog_bytes",
        "gauge",
        f"What is not taken yet, {_TOP}.",
        _of_talkers(lambda talker: talker.backlog_bytes),
    ),
    # The event loop
    Distribution(
        "ovncp_loop_late_seconds",
        "By how much a timer was late that looks all the time.",
        _job("loop_late"),
    ),
    Metric(
        "ovncp_loop_stalls_total",
        "counter",
        f"Times that it was late by {STALL_NS // 1_000_000} ms and more.",
        _counter("loop_stall"),
    ),
    Metric(
        "ovncp_loop_longest_stall_seconds",
        "gauge",
        "The longest stall so far.",
        _one(lambda figures: figures.stalls.lateness.longest * _NS),
    ),
    Metric(
        "ovncp_loop_longest_stall_of_last_minute_seconds",
        "gauge",
        "The longest stall of the last minute.",
        _one(lambda figures: figures.stalls.longest_of_minute_ns * _NS),
    ),
    Distribution(
        "ovncp_gc_pause_seconds",
        "What collections of garbage took, each of which stops everything.",
        _job("gc_pause"),
    ),
    # Relays
    Metric(
        "ovncp_relay_connected",
        "gauge",
        "Whether a relayed database can be changed: 1 if its source is in reach, or was just now.",
        _of_relays(lambda relay: int(relay.is_connected)),
    ),
    Metric(
        "ovncp_relay_lag_seconds",
        "gauge",
        "How far a relayed database is behind its source: what a question to it takes.",
        _relay_lags,
    ),
    # The process
    Metric(
        "process_cpu_seconds_total",
        "counter",
        "CPU time.",
        _one(lambda figures: figures.process.cpu_seconds),
    ),
    Metric(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory.",
        _one(lambda figures: figures.process.resident_bytes),
    ),
    Metric(
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory.",
        _one(lambda figures: figures.process.virtual_bytes),
    ),
    Metric(
        "process_open_fds",
        "gauge",
        "Open file descriptors.",
        _one(lambda figures: figures.process.n_descriptors),
    ),
    Metric(
        "process_max_fds",
        "gauge",
        "How many file descriptors may be open.",
        _one(lambda figures: figures.process.max_descriptors),
    ),
    Metric(
        "process_start_time_seconds",
        "gauge",
        "When the process started, since the epoch.",
        _one(lambda figures: figures.process.started),
    ),
)


class Metrics:
    """All of them, of one server."""

    def __init__(self, subject: Subject, stalls: StallWatch) -> None:
        self._subject = subject
        self._stalls = stalls
        self._talkers = Talkers(subject.server)
        self._lag = RelayLag()

    async def text(self) -> str:
        """The figures of now."""
        runners = self._subject.server.runners.values()
        sources = [runner.upstream for runner in runners if isinstance(runner, Relay)]
        lags = self._lag.look(sources)
        survey = await self._talkers.survey()
        figures = Figures(self._subject, self._stalls, survey, Process(), lags)
        lines = [
            line
            for metric in METRICS
            for line in (*head(metric.name, metric.kind, metric.help), *metric.lines(figures))
        ]
        return "\n".join(lines) + "\n"
