"""Moments of the past in an operator's words, and which backups may go."""

from __future__ import annotations

import pytest

from ovncp.ops.db.moment import Moment, date_text, span_seconds
from ovncp.ops.db.retention import Kept, Retention
from ovncp.ops.refusal import Refusal

NOW = 1_795_273_200_000  # 2026-11-21T15:00:00Z


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2026-11-21T14:50:00", "2026-11-21T14:50:00.000Z"),
        ("2026-11-21 14:50:00.5", "2026-11-21T14:50:00.500Z"),
        ("2026-11-21T15:50:00+01:00", "2026-11-21T14:50:00.000Z"),
        ("2026-11-21T14:50:00.123Z", "2026-11-21T14:50:00.123Z"),
        ("2026-11-20", "2026-11-20T00:00:00.000Z"),
        ("14:50", "2026-11-21T14:50:00.000Z"),
        ("-10m", "2026-11-21T14:50:00.000Z"),
        ("-1h30m", "2026-11-21T13:30:00.000Z"),
        ("-1d", "2026-11-20T15:00:00.000Z"),
    ],
)
def test_a_date_is_understood(text: str, date: str) -> None:
    assert date_text(Moment.parse(text, NOW).date_msec) == date


def test_an_index_and_an_id_are_understood() -> None:
    assert Moment.parse("12345678", NOW).index == 12345678
    assert Moment.parse("-3", NOW).index == -3
    whole = "0a0c40f1-8b1d-71e2-fd8f-4e2f5af2fb25"
    assert Moment.parse(whole, NOW).transaction_id == whole
    assert Moment.parse("0a0c40f1", NOW).transaction_id == "0a0c40f1"


@pytest.mark.parametrize("text", ["", "yesterday", "-10x", "2026-13-01", "25:00", "-m"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="is no moment"):
        Moment.parse(text, NOW)


def test_spans() -> None:
    assert [span_seconds(text) for text in ("90s", "1h30m", "7d", "2w", "10", "m", "1h x")] == [
        90,
        5400,
        604800,
        1209600,
        None,
        None,
        None,
    ]


def kept(*ages_s: int) -> list[Kept]:
    return [Kept(f"{age}s old", NOW - age * 1000) for age in ages_s]


@pytest.mark.parametrize(
    ("keep", "ages", "expired"),
    [
        ("2", (0, 10, 20, 30), {"20s old", "30s old"}),
        ("5", (0, 10), set()),
        ("15s", (0, 10, 20, 30), {"20s old", "30s old"}),
        ("1s", (100, 200), {"200s old"}),  # The newest stays, however old it is.
    ],
)
def test_what_is_no_longer_needed(keep: str, ages: tuple[int, ...], expired: set[str]) -> None:
    found = Retention.parse(keep).expired(kept(*ages), NOW)
    assert {each.path for each in found} == expired


@pytest.mark.parametrize("text", ["0", "-1", "", "many", "0d"])
def test_a_retention_that_keeps_nothing_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="neither a number of backups"):
        Retention.parse(text)
