"""When a log is compacted by itself (ovsdb-server(1), "ovsdb-server/compact").

At the earliest some ten minutes after the last time, if a hundred transactions came since then
and the file is both large and twice what it was; after a day, if anything came at all.
"""

import random

from ovncp.log.base import Log
from ovncp.log.file import FileLog

_MINUTE_MSEC = 60_000
_DAY_MSEC = 24 * 60 * _MINUTE_MSEC
_MIN_ENTRIES = 100
_LARGE_BYTES = 10 << 20


class Schedule:
    """The times for one log. All times are in milliseconds on the server's clock."""

    def __init__(self, now_msec: int) -> None:
        self.restart(now_msec)

    def restart(self, now_msec: int, *, failed: bool = False) -> None:
        """Count from now, when a compaction is over; one that failed is tried again sooner."""
        least = _MINUTE_MSEC if failed else 10 * _MINUTE_MSEC
        # Servers that were started together must not all compact together.
        self._earliest = now_msec + least + random.randrange(least)
        self._latest = now_msec + _DAY_MSEC

    def is_due(self, log: Log, now_msec: int) -> bool:
        """Whether to compact `log` now. Only files are; other engines do it themselves."""
        if now_msec < self._earliest or not isinstance(log, FileLog):
            return False
        file = log.file
        n_entries = file.next_index - 1 - file.snapshot_index
        if now_msec >= self._latest:
            return n_entries > 0
        grew_lots = file.size > _LARGE_BYTES and file.size / 2 > file.base_size
        return n_entries >= _MIN_ENTRIES and grew_lots
