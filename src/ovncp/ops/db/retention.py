"""Which backups of a folder are no longer needed: beyond a number of them, or an age.

The newest is always kept: it has just been read back, while the others were good when they were
new. So the last good backup is never deleted, and nothing is when no new one could be made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ovncp.ops.db.moment import span_seconds
from ovncp.ops.refusal import Refusal


@dataclass(frozen=True)
class Kept:
    """A backup that is there: its path, and when it was made, in ms since the epoch."""

    path: str
    made_msec: int


@dataclass(frozen=True)
class Retention:
    """How many backups to keep, or for how many seconds; the one that is None does not count."""

    n_newest: int | None = None
    seconds: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Retention":
        """A number such as 24, or a span such as 7d. Raises Refusal."""
        if text.isascii() and text.isdigit() and int(text):
            return cls(n_newest=int(text))
        seconds = span_seconds(text)
        if not seconds:
            raise Refusal(f"{text!r} is neither a number of backups, as 24, nor a time, as 7d")
        return cls(seconds=seconds)

    def expired(self, kept: Sequence[Kept], now_msec: int) -> list[Kept]:
        """Those of `kept` that may go."""
        newest_first = sorted(kept, key=lambda each: each.made_msec, reverse=True)
        if self.n_newest is not None:
            return newest_first[self.n_newest :]
        assert self.seconds is not None, "one of the two is given"
        oldest_msec = now_msec - self.seconds * 1000
        return [each for each in newest_first[1:] if each.made_msec < oldest_msec]
