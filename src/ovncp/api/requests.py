"""How many requests a node has answered, and how soon, by method, route and status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ovncp.cluster.metrics import Family, Histogram, distribution, family, labels


class Requests:
    """The requests of one node; a route is the template of its path."""

    def __init__(self) -> None:
        self._n: Counter[tuple[str, str, int]] = Counter()
        self._seconds: dict[tuple[str, str], Histogram] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one, whose answer has begun after so many seconds."""
        self._n[method, route, status] += 1
        known = self._seconds.get((method, route))
        if known is None:
            known = self._seconds[method, route] = Histogram()
        known.observe(seconds)

    def families(self) -> Iterable[Family]:
        """Figures about requests."""
        yield family(
            "ovncp_http_requests_total",
            "counter",
            "Requests that were answered.",
            {
                labels(method=method, route=route, status=str(status)): n
                for (method, route, status), n in self._n.items()
            },
        )
        yield distribution(
            "ovncp_http_request_duration_seconds",
            "Time from a request to the beginning of its answer.",
            {
                labels(method=method, route=route): histogram
                for (method, route), histogram in self._seconds.items()
            },
        )
