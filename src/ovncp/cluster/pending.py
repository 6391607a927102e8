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
last change is sure to be newer; what it says is against a state that those who were told never
knew, so it is told as the whole row instead.

What was seen before this node began to read the stream may be there, unread: `forget` is for when
all of that is known to be.

Pure: time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a row: `version` is told apart from the others of this row."""

    row: str
    version: str
    data: bytes


def database_of(row: str) -> str:
    """The database that a row belongs to: the first part of its name."""
    return row.partition("/")[0]


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
        self._is_leading = False
        self.n_seen = 0
        """How many changes have been pending here; see `forget`."""
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
        self._offered[self.n_seen] = _Offered(change, now)
        self._by_row.setdefault(change.row, deque()).append(self.n_seen)
        self.n_seen += 1
        if len(self._offered) > self._n_most:
            self._drop(next(iter(self._offered)))
            self.has_lost = True

    def settle(self, row: str, version: str) -> None:
        """The stream has shown a change."""
        numbers = self._by_row.get(row, ())
        versions = [self._offered[number].change.version for number in numbers]
        if version not in versions:
            if not self._is_leading:
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

    def is_ahead(self, database: str) -> bool:
        """Whether the stream has shown changes of a database that have not been seen there."""
        return any(database_of(row) == database for row in self._ahead)

    def forget(self, n_seen: int) -> None:
        """All of the first `n_seen` changes are in the stream, read here or not."""
        while self._offered and (oldest := next(iter(self._offered))) < n_seen:
            self._drop(oldest)

    def take_over(self, whole: Callable[[Change], Change]) -> None:
        """Be the one who appends, having seen all that was in the databases, and the stream.

        `whole` makes the latest change of a row tell all of the row, in place of what is other.
        From now on nothing in the stream is ahead of what is offered, until `stand_back`: a row
        that is again what it once was has changed.
        """
        for row in self._ahead:
            numbers = list(self._by_row.get(row, ()))
            self._drop_all(numbers[:-1])
            for last in map(self._offered.__getitem__, numbers[-1:]):
                last.change = whole(last.change)
        self._ahead.clear()
        self._n_ahead = 0
        for offered in self._offered.values():
            offered.is_sent = False
        self._is_leading = True

    def stand_back(self) -> None:
        """Be one of those who do not append."""
        self._is_leading = False

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
