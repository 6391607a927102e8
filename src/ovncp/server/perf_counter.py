"""What the server's main jobs cost (`ovsdb-server/perf-counters-show`, ovsdb-server(1)).

The C server counts CPU instructions, where the machine lets it; here the unit is the nanosecond,
which every machine can tell, and tell cheaply.
"""

import time

from ovncp.server.command import Command


class PerfCounters:
    """For each job by name: how often it ran, and how many nanoseconds it took."""

    def __init__(self) -> None:
        self._jobs: dict[str, tuple[int, int]] = {}

    def start(self) -> int:
        """The start of a job, for `finish`."""
        return time.perf_counter_ns()

    def finish(self, name: str, started: int, events: int = 1) -> None:
        """Add `events` runs of the job `name` that began together at `started`."""
        count, total = self._jobs.get(name, (0, 0))
        self._jobs[name] = (count + events, total + time.perf_counter_ns() - started)

    def show(self) -> str:
        """One line a job: name, runs, total, mean."""
        if not self._jobs:
            return "performance counter has never been hit\n"
        return "".join(
            f"{name:<40} {count:12} {total:12} {total / count if count else 0:12.1f}\n"
            for name, (count, total) in sorted(self._jobs.items())
        )

    def clear(self) -> str:
        """Start all figures again from zero."""
        self._jobs = dict.fromkeys(self._jobs, (0, 0))
        return ""

    def commands(self) -> list[Command]:
        """The two commands, for `Unixctl.register_all`."""
        return [
            Command("ovsdb-server/perf-counters-show", "", 0, 0, lambda _: self.show()),
            Command("ovsdb-server/perf-counters-clear", "", 0, 0, lambda _: self.clear()),
        ]


JOBS = PerfCounters()
"""The jobs of this process."""
