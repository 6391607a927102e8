"""What shows how the server fares: the watch over its loop, and the metrics for those who ask.

The metrics take modules that a server does without until somebody asks.
"""

from typing import TYPE_CHECKING

from ovncp.server.command import Command
from ovncp.server.stall import StallWatch
from ovncp.server.subject import Subject
from ovncp.server.workers import Workers

if TYPE_CHECKING:
    from ovncp.server.metrics import Metrics
    from ovncp.server.metrics_endpoint import MetricsEndpoint


class Watch:
    """Watches `subject` and the running loop, and asks its `workers` for what is theirs."""

    def __init__(self, subject: Subject, workers: Workers | None = None) -> None:
        self._subject = subject
        self._workers = workers
        self._stalls = StallWatch()
        self._metrics: Metrics | None = None
        self._endpoint: MetricsEndpoint | None = None

    def start(self) -> None:
        """Watch from now on: there are clients to be kept waiting."""
        self._stalls.start()

    async def serve(self, address: str) -> None:
        """Show the metrics at `address`, HOST:PORT. Raises ConfigurationError."""
        from ovncp.server.metrics_endpoint import MetricsEndpoint

        self._endpoint = MetricsEndpoint(address, self.metrics)
        await self._endpoint.start()

    async def metrics(self) -> str:
        """The metrics of now."""
        from ovncp.server.exposition import merged
        from ovncp.server.metrics import Metrics

        if self._metrics is None:
            self._metrics = Metrics(self._subject, self._stalls)
        of_workers = await self._of_workers("metrics/show")
        text = await self._metrics.text()
        return merged(text, of_workers) if of_workers else text

    async def stalls(self) -> str:
        """The reply of `stall/show`."""
        of_workers = await self._of_workers("stall/show")
        parts = [f"worker {number}:\n{text}" for number, text in enumerate(of_workers, 1)]
        return "".join([self._stalls.show(), *parts])

    async def _of_workers(self, command: str) -> list[str]:
        return [] if self._workers is None else await self._workers.run(command)

    def commands(self) -> list[Command]:
        """The runtime commands, for `Unixctl.register_all`."""
        return [
            Command("metrics/show", "", 0, 0, lambda _: self.metrics()),
            Command("stall/show", "", 0, 0, lambda _: self.stalls()),
        ]

    async def close(self) -> None:
        """Watch no more."""
        self._stalls.close()
        if self._endpoint is not None:
            await self._endpoint.close()
