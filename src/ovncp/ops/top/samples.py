"""The text of the metrics, parsed: samples by name and labels, and quantiles of histograms."""

import re
from collections import defaultdict
from typing import NamedTuple

_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


class Sample(NamedTuple):
    """One line."""

    labels: dict[str, str]
    value: float


class Samples:
    """All that one text says. A metric that it does not have is as one with no samples."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for a line that is no sample."""
        self._samples: dict[str, list[Sample]] = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, sample = _parse(line)
                self._samples.setdefault(name, []).append(sample)

    def all(self, name: str, **labels: str) -> list[Sample]:
        """The samples of `name` that have `labels`; an empty one stands for none."""
        found = self._samples.get(name, ())
        return [sample for sample in found if _has(sample, labels)]

    def sum(self, name: str, **labels: str) -> float:
        """The values of these, added up."""
        return sum(sample.value for sample in self.all(name, **labels))

    def max(self, name: str, **labels: str) -> float | None:
        """The greatest of them, None if there is none."""
        return max((sample.value for sample in self.all(name, **labels)), default=None)

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """The sum for each value of `label`."""
        sums: dict[str, float] = defaultdict(float)
        for sample in self.all(name, **labels):
            sums[sample.labels[label]] += sample.value
        return sums

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """How many figures of a histogram are at most each bound."""
        found = self.by("le", f"{name}_bucket", **labels)
        return {float(bound): count for bound, count in found.items()}


def _has(sample: Sample, labels: dict[str, str]) -> bool:
    return all(sample.labels.get(name, "") == text for name, text in labels.items())


def _parse(line: str) -> tuple[str, Sample]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"this is no line of metrics: {line!r}")
    labels = {name: _ESCAPED.sub(_character, text) for name, text in _LABEL.findall(match[2] or "")}
    return match[1], Sample(labels, float(match[3]))


def _character(escaped: "re.Match[str]") -> str:
    return "\n" if escaped[1] == "n" else escaped[1]


def quantile(q: float, buckets: dict[float, float]) -> float | None:
    """Below what the share `q` of the figures in `buckets` is, about; None if there are none.

    Within a bucket the figures are taken to be spread evenly.
    """
    total = max(buckets.values(), default=0)
    if not total:
        return None
    wanted, low, below = q * total, 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= wanted:
            break
        low, below = bound, count
    if bound == float("inf"):
        return low
    return low + (bound - low) * (wanted - below) / (count - below)
