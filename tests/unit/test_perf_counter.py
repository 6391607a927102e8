"""Jobs and histograms: what is counted is told, and nothing else."""

from __future__ import annotations

import pytest

from ovncp.ops.top.samples import Samples, quantile
from ovncp.server.exposition import histogram_lines, merged, sample_lines
from ovncp.server.perf_counter import N_BUCKETS, Histogram, PerfCounters


def exposed(histogram: Histogram, n_bits: range) -> Samples:
    return Samples("\n".join(histogram_lines("h", [({}, histogram)], 1, n_bits)))


def test_each_figure_is_in_the_bucket_that_its_bound_says() -> None:
    for figure in (0, 1, 2, 3, 4, 7, 8, 1023, 1024, 2**37, 2**50):
        histogram = Histogram()
        histogram.add(figure, 3)
        buckets = exposed(histogram, range(1, N_BUCKETS - 1)).buckets("h")
        for bound, count in buckets.items():
            assert count == (3 if figure <= bound else 0), (figure, bound)
        assert (histogram.count, histogram.total, histogram.longest) == (3, 3 * figure, figure)


def test_few_buckets_lose_nothing() -> None:
    histogram = Histogram()
    for figure in range(100):
        histogram.add(figure)
    shown = exposed(histogram, range(3, 6))
    assert shown.buckets("h") == {7: 8, 15: 16, 31: 32, float("inf"): 100}
    assert shown.sum("h_count") == 100 and shown.sum("h_sum") == sum(range(100))


def test_quantiles_are_about_right() -> None:
    histogram = Histogram()
    for figure in range(1, 1001):
        histogram.add(figure)
    buckets = exposed(histogram, range(1, 12)).buckets("h")
    for share in (0.1, 0.5, 0.9, 0.99):
        assert quantile(share, buckets) == pytest.approx(1000 * share, rel=0.05)
    assert quantile(0.5, exposed(Histogram(), range(1, 12)).buckets("h")) is None
    beyond = Histogram()
    beyond.add(10**6)
    assert quantile(0.5, exposed(beyond, range(1, 5)).buckets("h")) == 15


def test_labels_survive_whatever_they_hold() -> None:
    labels = {"peer": 'a"b\\c\nd{e},f="g"', "remote": ""}
    (sample,) = Samples("\n".join(sample_lines("m", [(labels, 1.5)]))).all("m")
    assert sample.labels == labels and sample.value == 1.5


def test_what_workers_say_is_put_with_the_rest() -> None:
    text = "# HELP m Of it.\n# TYPE m gauge\nm 1\n# HELP n Of n.\n# TYPE n gauge\nn 5\n"
    of_worker = '# HELP m Of it.\n# TYPE m gauge\nm 2\nm{a="b"} 3\n'
    assert merged(text, [of_worker, of_worker]) == (
        "# HELP m Of it.\n# TYPE m gauge\n"
        'm 1\nm{worker="1"} 2\nm{worker="1",a="b"} 3\nm{worker="2"} 2\nm{worker="2",a="b"} 3\n'
        "# HELP n Of n.\n# TYPE n gauge\nn 5\n"
    )


def test_jobs_are_shown_and_cleared() -> None:
    counters = PerfCounters()
    idle = counters.job("idle")
    assert counters.show() == "performance counter has never been hit\n"
    counters.finish("busy", counters.start())
    name, count, total, mean = counters.show().split()
    assert (name, count) == ("busy", "1") and float(mean) == float(total) >= 0
    counters.clear()
    assert counters.job("busy").count == 0 and counters.job("idle") is idle
    assert counters.show() == "performance counter has never been hit\n"
