"""Who has to be told of what, and when the last of them was.

The writer puts a mark with the row's number and version into each row that it writes. Whoever sees
that version has been told of all before it too: a server may merge the changes of a row for a
client that is slow, or away. So nothing has to arrive one by one to be counted one by one, and what
never arrives shows.
"""

from array import array


class Commit:
    """One write. `waiting` is how many watchers have not been told yet; below 0 it failed."""

    __slots__ = ("sent", "waiting", "watchers")

    def __init__(self, sent: float, watchers: int) -> None:
        self.sent = sent
        self.watchers = watchers
        self.waiting = watchers


class Ledger:
    """All writes to the rows of a run, each of which `watchers` clients are to be told of.

    Times are in seconds, by whatever clock the caller has.
    """

    def __init__(self, key: str, watchers: list[int]) -> None:
        self._mark = b'"%b","~' % key.encode()
        self._watchers = watchers
        self._rows: list[list[Commit]] = [[] for _ in watchers]
        self.latencies = array("d")
        """From sending a write to the last delivery of it, in the order of their ends."""
        self.expected = 0
        self.delivered = 0
        self.merged = 0
        """How many of the deliveries came within that of a later write."""
        self.last_delivery = 0.0

    @property
    def outstanding(self) -> int:
        """How many deliveries are still to come."""
        return self.expected - self.delivered

    def write(self, row: int, now: float) -> int:
        """Note that `row` is written; its new version."""
        commits = self._rows[row]
        commits.append(Commit(now, self._watchers[row]))
        self.expected += self._watchers[row]
        return len(commits)

    def fail(self, row: int, version: int) -> None:
        """Note that a write did not happen, so that nobody can be told of it."""
        commit = self._rows[row][version - 1]
        self.expected -= commit.watchers
        commit.waiting = -1

    def take(self, seen: dict[int, int], data: bytes, now: float) -> None:
        """Count what `data` tells a client that has `seen` a version of each row."""
        if not self.expected:
            return  # nothing was written yet, which spares looking through first dumps
        for part in data.split(self._mark)[1:]:
            row_text, version_text, _ = part.split(b"~", 2)
            row, version = int(row_text), int(version_text)
            known = seen.get(row, 0)
            if version <= known:
                continue
            seen[row] = version
            commits = self._rows[row]
            for index in range(known, version):
                commit = commits[index]
                commit.waiting -= 1
                if not commit.waiting:
                    self.latencies.append(now - commit.sent)
                if commit.waiting >= 0:
                    self.delivered += 1
            self.merged += version - known - 1
            self.last_delivery = now
