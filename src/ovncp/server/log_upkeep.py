"""Upkeep of a log that several servers share: a new snapshot, then no entries but those to keep.

Nothing is asked of a server for it: whoever does it reads the log itself. The snapshot is of the
moment before the oldest entry that is kept, so that servers which were away for less, and whoever
looks into the past, go on from entries. Its history has the transaction id, so that the ids of
those that open the log now are the same as of those that saw it all (docs/adr/0009).
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from ovncp.log.base import Entry
from ovncp.log.engine import SharedLog
from ovncp.log.retention import Retention
from ovncp.ovsdb import entry
from ovncp.ovsdb.database import Settings
from ovncp.server.snapshot import Moment, open_database, parse_entry


class Shortened(NamedTuple):
    """What came of it: the snapshot's index, and what is kept after it."""

    snapshot_index: int
    n_kept: int
    kept_bytes: int


async def shorten(
    log: SharedLog, retention: Retention, settings: Settings, new_uuid: Callable[[], str], now: int
) -> Shortened:
    """Have a snapshot in `log` and the entries after it that `retention` keeps, and no others.

    `now` is in milliseconds since the epoch. Raises LogError and OvsdbError; to be done again
    then, or when it was broken off: whatever was done of it is of use or will be swept up.
    """
    before = await log.find_snapshot()
    past = _Past(log, retention, now)
    database, index = await open_database(log, new_uuid, settings, past.read)
    if index > before:
        moment = Moment(database, index, past.date_msec)
        data = moment.data("compacting database online")
        await log.save_snapshot(index, data, moment.history())
    await log.compact(index)
    return Shortened(index, len(past.kept), past.kept_bytes)


class _Past:
    """The entries of a log that are not kept; those that are turn up in `kept`.

    `date_msec` is the date of the last one that was given out, or `now` if it has none.
    """

    def __init__(self, log: SharedLog, retention: Retention, now: int) -> None:
        self.kept: deque[Entry] = deque()
        self.kept_bytes = 0
        self.date_msec = now
        self._log = log
        self._now = now
        self._since = now - retention.keep_s * 1000
        self._max_bytes = retention.keep_bytes

    async def read(self, from_index: int) -> AsyncIterator[list[Entry]]:
        """See `Log.read`."""
        async for batch in self._log.read(from_index):
            self.kept.extend(batch)
            self.kept_bytes += sum(len(item.data) for item in batch)
            if past := list(self._take_past()):
                yield past

    def _take_past(self) -> list[Entry]:
        past = []
        while self.kept and self._is_past(self.kept[0]):
            item = self.kept.popleft()
            self.kept_bytes -= len(item.data)
            past.append(item)
        return past

    def _is_past(self, item: Entry) -> bool:
        date_msec = entry.Entry(parse_entry(item.data)).date_msec
        is_past = self.kept_bytes > self._max_bytes or (date_msec or 0) < self._since
        if is_past:
            self.date_msec = self._now if date_msec is None else date_msec
        return is_past
