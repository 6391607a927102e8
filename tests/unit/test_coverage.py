"""Counters and their rates, in the C server's layout."""

import re

import pytest

from ovncp.server.command import CommandError
from ovncp.server.coverage import Coverage


def test_layout_is_the_c_servers() -> None:
    """The two rows are C's own output for these counts."""
    counters = {"hmap_pathological": 0, "util_xalloc": 0, "never": 0}
    coverage = Coverage(counters, 0.0)
    counters["hmap_pathological"] += 2
    counters["util_xalloc"] += 19344
    coverage.tick(5.0)
    coverage.tick(10.0)
    lines = coverage.show().splitlines()
    header = "Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash="
    assert re.fullmatch(re.escape(header) + "[0-9a-f]{8}:", lines[0])
    assert lines[1:] == [
        "hmap_pathological          0.0/sec     0.033/sec        0.0006/sec   total: 2",
        "util_xalloc                0.0/sec   322.400/sec        5.3733/sec   total: 19344",
        "1 events never hit",
    ]


def test_rates_age_out() -> None:
    counters = {"x": 0}
    coverage = Coverage(counters, 0.0)
    counters["x"] += 60
    coverage.tick(5.0)
    assert "x                         12.0/sec     1.000/sec        0.0167/sec" in coverage.show()
    coverage.tick(65.0)
    assert "x                          0.0/sec     0.000/sec        0.0167/sec" in coverage.show()
    coverage.tick(65.0 + 3600)
    assert "x                          0.0/sec     0.000/sec        0.0000/sec" in coverage.show()


def test_a_late_tick_spreads_the_counts() -> None:
    counters = {"x": 0}
    coverage = Coverage(counters, 0.0)
    counters["x"] += 25
    coverage.tick(15.0)  # three slots: 8, 8, 9
    assert "x                          1.8/sec     0.417/sec" in coverage.show()


def test_a_tick_within_the_slot_changes_nothing() -> None:
    counters = {"x": 1}
    coverage = Coverage(counters, 0.0)
    before = coverage.show()
    coverage.tick(4.9)
    assert coverage.show() == before


def test_hash_depends_on_ranks_not_counts() -> None:
    def hash_of(**counters: int) -> str:
        return Coverage(counters, 0.0).show().splitlines()[0]

    assert hash_of(a=1, b=2) == hash_of(a=5, b=9) != hash_of(a=2, b=1)


def test_read_counter() -> None:
    coverage = Coverage({"x": 3}, 0.0)
    assert coverage.read_counter("x") == "3"
    with pytest.raises(CommandError, match=r"^No such counter$"):
        coverage.read_counter("y")
