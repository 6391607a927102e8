"""What the server's jobs take (`ovsdb-server/perf-counters-show`, ovsdb-server(1)), as histograms.

The C server counts CPU instructions, where the machine lets it; here the unit is the nanosecond,
which every machine can tell, and tell cheaply. A job's figures are kept in buckets whose bounds
double, so that adding one is a few additions, and the quantiles of an hour are known as well as its
mean.
"""

from time import perf_counter_ns
from typing import Final

from ovncp.server.command import Command

N_BUCKETS: Final = 40
"""The last bucket has all from 2**38 on: nine minutes, if it is nanoseconds."""


class Histogram:
    """How often something was measured, and how the figures are distributed.

    `buckets[n]` counts those of n binary digits: less than 2**n, and not less than half of that.
    """

    __slots__ = ("buckets", "count", "longest", "total")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start again from zero."""
        self.count = 0
        self.total = 0
        self.longest = 0
        self.buckets: list[int] = [0] * N_BUCKETS

    def add(self, figure: int, times: int = 1) -> None:
        """Add `figure`, which is not negative, as if it had been measured `times` times."""
        self.count += times
        self.total += figure * times
        if figure > self.longest:
            self.longest = figure
        n_bits = figure.bit_length()
        self.buckets[n_bits if n_bits < N_BUCKETS else -1] += times


class PerfCounters:
    """The durations of each job by name, in nanoseconds."""

    def __init__(self) -> None:
        self.jobs: dict[str, Histogram] = {}

    def job(self, name: str) -> Histogram:
        """The durations of the job `name`, to be kept by whoever adds to them often."""
        return self.jobs.setdefault(name, Histogram())

    def start(self) -> int:
        """The start of a job, for `finish`."""
        return perf_counter_ns()

    def finish(self, name: str, started: int) -> int:
        """Add a run of the job `name` that began at `started`; what it took."""
        taken = perf_counter_ns() - started
        self.job(name).add(taken)
        return taken

    def show(self) -> str:
        """One line a job that ran: name, runs, total, mean."""
        ran = [(name, job) for name, job in sorted(self.jobs.items()) if job.count]
        if not ran:
            return "performance counter has never been hit\n"
        return "".join(
            f"{name:<40} {job.count:12} {job.total:12} {job.total / job.count:12.1f}\n"
            for name, job in ran
        )

    def clear(self) -> str:
        """Start all figures again from zero."""
        for job in self.jobs.values():
            job.clear()
        return ""

    def commands(self) -> list[Command]:
        """The two commands, for `Unixctl.register_all`."""
        return [
            Command("ovsdb-server/perf-counters-show", "", 0, 0, lambda _: self.show()),
            Command("ovsdb-server/perf-counters-clear", "", 0, 0, lambda _: self.clear()),
        ]


JOBS = PerfCounters()
"""The jobs of this process."""
