"""A moment of the past in an operator's words.

1234                    after entry 1234
8c7f2a1e, or longer     after the transaction whose id begins so
2026-11-21T14:50:00     what was there then, in UTC unless the time has another zone; or 14:50
-10m, -1h30m            as long ago; units are s, m, h, d and w
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from ovncp.ops.refusal import Refusal

_INDEX = re.compile(r"-?[0-9]+")
_ID = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,28}")
_SPAN = re.compile(r"([0-9]+)(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Moment:
    """One of the three is set: an entry's index, a transaction id's beginning, or a date."""

    text: str
    index: int | None = None
    transaction_id: str | None = None
    date_msec: int | None = None

    @classmethod
    def parse(cls, text: str, now_msec: int) -> "Moment":
        """What `text` means at `now_msec` since the epoch. Raises Refusal."""
        if _INDEX.fullmatch(text):
            return cls(text, index=int(text))
        if _ID.fullmatch(text):
            return cls(text, transaction_id=text)
        if text[:1] == "-" and (span := span_seconds(text[1:])) is not None:
            return cls(text, date_msec=now_msec - span * 1000)
        return cls(text, date_msec=_date_msec(text, now_msec))


def span_seconds(text: str) -> int | None:
    """The seconds of a span such as 90s or 1h30m; None if it is none."""
    parts = _SPAN.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        return None
    return sum(int(number) * _SECONDS[unit] for number, unit in parts)


def _date_msec(text: str, now_msec: int) -> int:
    try:
        moment = _date(text, now_msec)
    except ValueError as error:
        raise Refusal(
            f"{text!r} is no moment; one is an index, a transaction id, a date such as "
            f"2026-11-21T14:50:00, or a time ago such as -10m"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _date(text: str, now_msec: int) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        today = datetime.fromtimestamp(now_msec / 1000, UTC).date()
        return datetime.combine(today, time.fromisoformat(text))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def date_text(date_msec: int | None) -> str:
    """A date in ms since the epoch, as text that `Moment.parse` takes."""
    if date_msec is None:
        return "-"
    moment = _EPOCH + timedelta(milliseconds=date_msec)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
