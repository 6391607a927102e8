"""Prometheus' text format, version 0.0.4: figures with names and labels, one a line."""

from collections.abc import Iterable, Iterator, Mapping

from ovncp.server.perf_counter import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
Samples = Iterable[tuple[Labels, float]]
Histograms = Iterable[tuple[Labels, Histogram]]


def head(name: str, kind: str, text: str) -> Iterator[str]:
    """The lines before a metric's samples; `kind` is counter, gauge or histogram."""
    yield f"# HELP {name} {_escape(text)}"
    yield f"# TYPE {name} {kind}"


def sample_lines(name: str, samples: Samples) -> Iterator[str]:
    """One line a sample."""
    for labels, value in samples:
        yield f"{name}{_braces(labels)} {_number(value)}"


def histogram_lines(name: str, histograms: Histograms, unit: float, n_bits: range) -> Iterator[str]:
    """The buckets of each histogram, their sum and their count.

    The figures are multiples of `unit`; `n_bits` has the buckets that are shown on their own.
    """
    for labels, histogram in histograms:
        count = sum(histogram.buckets[: n_bits.start])
        for number in n_bits:
            count += histogram.buckets[number]
            # What is counted are whole numbers, of which this is the greatest with so many digits.
            bound = _number((2**number - 1) * unit)
            yield f"{name}_bucket{_braces(labels, le=bound)} {count}"
        yield f"{name}_bucket{_braces(labels, le='+Inf')} {histogram.count}"
        yield f"{name}_sum{_braces(labels)} {_number(histogram.total * unit)}"
        yield f"{name}_count{_braces(labels)} {histogram.count}"


def merged(text: str, of_workers: Iterable[str]) -> str:
    """One text of several; the samples of the workers have the label `worker`, from 1."""
    families: dict[str, list[str]] = {}
    for number, part in enumerate((text, *of_workers)):
        family: list[str] = []
        for line in part.splitlines():
            if line.startswith("# HELP "):
                family = families.setdefault(line, [])
            elif line.startswith("#"):
                family += [line] if line not in family else []
            else:
                family.append(_labelled(line, number) if number else line)
    return "".join(f"{line}\n" for head, family in families.items() for line in (head, *family))


def _labelled(line: str, number: int) -> str:
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{worker="{number}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{worker="{number}"}} {value}'


def _braces(labels: Labels, **more: str) -> str:
    pairs = [f'{name}="{_escape(text, quoted=True)}"' for name, text in {**labels, **more}.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escape(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quoted else text


def _number(value: float) -> str:
    return f"{value:.14g}" if isinstance(value, float) else str(value)
