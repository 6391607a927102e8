"""`ovncp simulate` without a server: who is to be told of what, the figures, the command line."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from ovncp.cli import options, simulate
from ovncp.ops.refusal import Refusal
from ovncp.ops.simulate import monitors, plot
from ovncp.ops.simulate.ledger import Ledger
from ovncp.ops.simulate.monitors import Monitors, View
from ovncp.ops.simulate.plan import Plan
from ovncp.ops.simulate.process import allow_files
from ovncp.ops.simulate.report import Spread, percentile


def mark(row: int, version: int) -> bytes:
    return b'{"modify":{"options":["map",[["key","~%d~%d~"]]]}}' % (row, version)


# The ledger


def test_a_write_is_delivered_when_the_last_watcher_was_told() -> None:
    ledger = Ledger("key", [2])
    first, second = {}, {}
    ledger.write(0, 10.0)
    ledger.take(first, mark(0, 1), 10.5)
    assert (ledger.outstanding, list(ledger.latencies)) == (1, [])
    ledger.take(second, mark(0, 1), 12.0)
    assert (ledger.outstanding, list(ledger.latencies)) == (0, [2.0])


def test_a_later_version_brings_those_before_it() -> None:
    ledger = Ledger("key", [1])
    for now in (1.0, 2.0, 3.0):
        ledger.write(0, now)
    ledger.take({}, mark(0, 3), 4.0)
    assert (ledger.delivered, ledger.merged) == (3, 2)
    assert list(ledger.latencies) == [3.0, 2.0, 1.0]


def test_what_is_told_twice_counts_once() -> None:
    ledger = Ledger("key", [1])
    ledger.write(0, 1.0)
    seen: dict[int, int] = {}
    ledger.take(seen, mark(0, 1) + mark(0, 1), 2.0)
    ledger.take(seen, mark(0, 0), 3.0)
    assert (ledger.delivered, ledger.merged) == (1, 0)


def test_what_does_not_come_is_outstanding() -> None:
    ledger = Ledger("key", [1, 1])
    ledger.write(0, 1.0)
    ledger.write(1, 1.0)
    ledger.take({}, mark(1, 1), 2.0)
    assert (ledger.expected, ledger.outstanding) == (2, 1)


def test_nobody_waits_for_a_write_that_failed() -> None:
    ledger = Ledger("key", [2])
    ledger.fail(0, ledger.write(0, 1.0))
    ledger.write(0, 2.0)
    for _ in range(2):
        ledger.take({}, mark(0, 2), 3.0)
    assert (ledger.outstanding, list(ledger.latencies)) == (0, [1.0])


def test_another_runs_rows_are_not_counted() -> None:
    ledger = Ledger("other", [1])
    ledger.write(0, 1.0)
    ledger.take({}, mark(0, 1), 2.0)
    assert ledger.delivered == 0


# The figures


@pytest.mark.parametrize(
    ("share", "figure"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_a_percentile_is_the_least_that_enough_do_not_exceed(share: float, figure: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], share) == figure


def test_a_spread_is_in_milliseconds_whatever_the_order() -> None:
    assert Spread.of([0.003, 0.001, 0.002]) == Spread(3, 2.0, 3.0, 3.0)
    assert Spread.of([]) is None


# The plan


@pytest.mark.parametrize("hypervisors", [1, 3, 10, 100, 257])
@pytest.mark.parametrize("spread", [1, 7, 10])
def test_the_watchers_of_a_port_are_those_who_see_its_datapath(
    hypervisors: int, spread: int
) -> None:
    plan = Plan("00ff", hypervisors, ports=5, datapaths=3, spread=spread)
    for port, watchers in enumerate(plan.watchers):
        datapath = plan.datapath_of(port)
        assert datapath in plan.datapaths_of(port // plan.ports)
        assert watchers == sum(datapath in plan.datapaths_of(each) for each in range(hypervisors))
    assert Counter(plan.watchers).most_common(1)[0][0] <= max(spread, hypervisors)


def test_each_datapath_is_seen_by_as_many_as_is_wanted() -> None:
    plan = Plan("00ff", 100, ports=4, datapaths=4, spread=10)
    assert set(plan.watchers) == {10}


def test_everybody_watches_everything_without_conditions() -> None:
    assert set(Plan("00ff", 7, whole_table=True).watchers) == {7}


def test_a_plan_that_ovn_has_no_numbers_for_is_refused() -> None:
    with pytest.raises(Refusal, match="a datapath would have"):
        Plan("00ff", 1, ports=40_000, datapaths=1)
    with pytest.raises(Refusal, match="at most 65,535"):
        Plan("00ff", 70_000)
    with pytest.raises(Refusal, match="tunnel keys"):
        list(Plan("00ff", 1).datapath_rows((1 << 24) - 2))


# What is monitored


def test_a_table_or_column_that_the_schema_lacks_is_not_asked_for() -> None:
    columns = {"logical_port": {}, "datapath": {}, "external_ids": {}}
    schema = {"tables": {"Port_Binding": {"columns": columns}, "Connection": {"columns": {}}}}
    view = View("hv", "C", ["D"], ["p"])
    request = Monitors(schema).request(view, monitors.ZERO_ID)
    assert b'"columns":["datapath","logical_port"]' in request
    where = b'"where":[["logical_port","==","p"],["datapath","==",["uuid","D"]]]'
    assert where in request
    assert b"parent_port" not in request
    assert b"Connection" not in request


def test_who_has_no_datapath_asks_for_nothing_rather_than_all() -> None:
    schema = {"tables": {"MAC_Binding": {"columns": {"datapath": {}}}}}
    assert b'"where":[false]' in Monitors(schema).change(View("hv", "C", [], []))


# The command line


def parsed(*argv: str) -> simulate.Settings:
    return simulate.settings_of(options.parse(argv, simulate.TABLE))


def test_the_options_arrive() -> None:
    settings = parsed(
        "unix:/run/sb.sock", "--hypervisors=50", "--whole-table", "--writes-per-second", "2.5",
        "--duration=3", "--fill=100", "--storm", "--json", "--plot=run.png", "--pid=7", "--keep",
    )  # fmt: skip
    assert (settings.plan.hypervisors, settings.plan.fill) == (50, 100)
    assert settings.plan.whole_table
    assert (settings.load.writes_per_second, settings.load.duration) == (2.5, 3.0)
    assert settings.load.storm
    assert settings.load.keep
    assert settings.endpoints.pid == 7
    assert (settings.as_json, settings.plot) == (True, "run.png")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "one TARGET is wanted"),
        (["unix:a", "unix:b"], "one TARGET is wanted"),
        (["6642"], "Address family"),
        (["ptcp:6642"], "something to connect to"),
        (["unix:a", "--hypervisors=0"], "at least 1"),
        (["unix:a", "--hypervisors=many"], "not a whole number"),
        (["unix:a", "--duration=-1"], "at least 0"),
        (["unix:a", "--duration=inf"], "not a number of at least 0"),
        (["unix:a", "--duration=nan"], "not a number of at least 0"),
        (["unix:a", "--northbound=x"], "Address family"),
    ],
)
def test_what_makes_no_sense_is_refused(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate.main(argv) == 1
    assert words in capsys.readouterr().err


def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["unix:/nonexistent/socket"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unix:/nonexistent/socket" in error


def test_too_low_a_limit_on_open_files_is_said() -> None:
    with pytest.raises(Refusal, match="open files are needed"):
        allow_files(1 << 40)


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Refusal, match=r"ovncp\[plot\]"):
        plot.require_matplotlib()
