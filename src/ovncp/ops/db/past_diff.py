"""`ovncp db diff`: what became of rows from one moment to another, whatever happened between."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ovncp.ops.db.caller import Caller
from ovncp.ops.db.change_words import change_json, change_lines
from ovncp.ops.db.moment import Moment, date_text
from ovncp.ops.db.past_log import edge_json
from ovncp.ops.db.past_state import Difference, difference
from ovncp.ops.db.place import Place
from ovncp.ops.db.report import FINE, FOUND
from ovncp.ops.db.stored import open_to_read
from ovncp.ops.db.timeline import Timeline


@dataclass(frozen=True)
class Differences:
    """What was found; the exit status is that of diff(1)."""

    found: Difference

    @property
    def status(self) -> int:
        """See `Report`."""
        return FOUND if self.found.changes else FINE

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        for edge, sign in ((self.found.before, "---"), (self.found.after, "+++")):
            yield f"{sign} {edge.index}  {date_text(edge.date_msec)}  {edge.transaction_id}"
        for change in self.found.changes:
            yield from change_lines(change)

    def to_json(self) -> dict[str, Any]:
        """See `Report`."""
        return {
            "from": edge_json(self.found.before),
            "to": edge_json(self.found.after),
            "rows": [change_json(change) for change in self.found.changes],
        }


async def diff(url: str, start: Moment, end: Moment | None, caller: Caller) -> Differences:
    """What changed in the log `url` from `start` to `end`, or to the newest state.

    Raises Refusal, LogError, OvsdbError.
    """
    async with open_to_read(Place.parse_log(url)) as stored:
        timeline = await Timeline.open(stored, caller)
        return Differences(await difference(timeline, start, end))
