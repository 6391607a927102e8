"""What a node of the platform shows at /metrics, read as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_ENDS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


class Figures:
    """The figures of one moment."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))

    @classmethod
    def at(cls, url: str) -> Figures:
        """Those that are at `url` now."""
        answer = httpx.get(url, timeout=10)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return cls(answer.text)

    def names(self) -> set[str]:
        """The names of all series, of those too of which there is none yet."""
        return {f"{f.name}{end}" for f in self.families for end in _ENDS.get(f.type, ("",))}

    def by_name(self) -> dict[str, Metric]:
        """The metrics, by the names that they are asked for by."""
        return {f.name + ("_total" if f.type == "counter" else ""): f for f in self.families}

    def samples(self, name: str) -> Iterator[Sample]:
        """Those of one name."""
        return (s for family in self.families for s in family.samples if s.name == name)

    def sum(self, name: str, **labels: str) -> float:
        """What the series of this name and these labels come to; 0 if there are none."""
        assert name in self.names(), f"there is no {name}"
        return sum(s.value for s in self.samples(name) if labels.items() <= s.labels.items())
