"""Changes that this node has seen at the database, and has not seen in the stream yet.

All nodes follow the same databases, and one of them, the leader, appends what it sees to the
stream.  What it saw and did not append, because it died or could not reach the store, is exactly
what is pending at the others: so the next leader appends that, and no event is lost or told twice.

A change is known by its row and by the row's version.  Nodes see the changes of one row in the same
order, but each may see several of them as one.  So a change in the stream settles those of its row
that this node saw before it, whether it saw this one before the stream showed it, or after.

Whoever is to append must have seen all that was in the databases when the last leader's events
ended: else what is here of a row may be older than what that leader has appended.  And of a row of
which the stream has a change that this node has seen only as part of another one, no more than the
last change is sure to be newer.

Pure: time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a row: `version` is told apart from the others of this row."""

    row: str
    version: str
    data: bytes


@dataclass(slots=True)
class _Offered:
    change: Change
    at: float
    is_sent: bool = False


class Pending:
    """The changes between the database and the stream, at one node."""

    def __init__(self, n_most: int, oldest_s: float = 600.0):
        """At most `n_most` changes are kept.

        One of a row that the stream never showed is given up when it shows another one that came
        `oldest_s` later here: whoever appended that has seen more changes as one.
        """
        self._n_most = n_most
        self._oldest_s = oldest_s
        self._offered: OrderedDict[int, _Offered] = OrderedDict()
        self._by_row: dict[str, deque[int]] = {}
        self._ahead: OrderedDict[str, deque[str]] = OrderedDict()
        self._n_ahead = 0
        self._next = 0
        self.has_lost = False
        """Whether there were too many, so that some are not here which no stream has."""

    def __len__(self) -> int:
        return len(self._offered)

    def offer(self, change: Change, now: float) -> None:
        """The database has shown a change."""
        ahead = self._ahead.get(change.row)
        if ahead and change.version in ahead:
            while ahead.popleft() != change.version:
                self._n_ahead -= 1
            self._n_ahead -= 1
            if not ahead:
                del self._ahead[change.row]
            self._drop_all(list(self._by_row.get(change.row, ())))
            return
        self._offered[self._next] = _Offered(change, now)
        self._by_row.setdefault(change.row, deque()).append(self._next)
        self._next += 1
        if len(self._offered) > self._n_most:
            self._drop(next(iter(self._offered)))
            self.has_lost = True

    def settle(self, row: str, version: str) -> None:
        """The stream has shown a change."""
        numbers = self._by_row.get(row, ())
        versions = [self._offered[number].change.version for number in numbers]
        if version not in versions:
            self._remember_ahead(row, version)
            return
        settled = list(numbers)[: versions.index(version) + 1]
        at = self._offered[settled[-1]].at
        self._drop_all(settled)
        self._n_ahead -= len(self._ahead.pop(row, ()))
        self._give_up(at - self._oldest_s)

    def unsent(self, limit: int) -> list[Change]:
        """The first changes that are to be appended, in the order in which they were seen."""
        found: list[Change] = []
        for offered in self._offered.values():
            if len(found) == limit:
                break
            if not offered.is_sent:
                found.append(offered.change)
        return found

    def mark_sent(self, changes: list[Change]) -> None:
        """These have been appended; the stream will show them."""
        for change in changes:
            for number in self._by_row.get(change.row, ()):
                if self._offered[number].change.version == change.version:
                    self._offered[number].is_sent = True

    def take_over(self) -> None:
        """Be the one who appends, having seen all that was in the databases, and the stream."""
        for row in self._ahead:
            self._drop_all(list(self._by_row.get(row, ()))[:-1])
        self._ahead.clear()
        self._n_ahead = 0
        for offered in self._offered.values():
            offered.is_sent = False

    def _remember_ahead(self, row: str, version: str) -> None:
        self._ahead.setdefault(row, deque()).append(version)
        self._ahead.move_to_end(row)
        self._n_ahead += 1
        while self._n_ahead > self._n_most:
            _, versions = self._ahead.popitem(last=False)
            self._n_ahead -= len(versions)

    def _give_up(self, before: float) -> None:
        while self._offered and (oldest := next(iter(self._offered.items())))[1].at < before:
            self._drop(oldest[0])

    def _drop_all(self, numbers: list[int]) -> None:
        for number in numbers:
            self._drop(number)

    def _drop(self, number: int) -> None:
        row = self._offered.pop(number).change.row
        numbers = self._by_row[row]
        numbers.remove(number)
        if not numbers:
            del self._by_row[row]
        if not self._offered:
            self.has_lost = False
