"""The latest transactions, kept for clients that come back (ovsdb-server(7) section 4.1.15)."""

from collections import deque

from ovncp.ovsdb.row import Change, Values
from ovncp.ovsdb.table import Table

# The table and the old and new values of rows, by table name and uuid.
Difference = dict[tuple[str, str], tuple[Table, Values | None, Values | None]]


class History:
    """The changes of the latest transactions, of at most `max_bytes` of entries.

    `start_id` is the id of the state that the oldest of them starts from.
    """

    def __init__(self, max_bytes: int, start_id: str) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._start_id = start_id
        self._items: deque[tuple[str, list[Change], int]] = deque()
        # The number, in order, of the state that each id stands for.
        self._numbers = {start_id: 0}
        self._first = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, transaction_id: str, changes: list[Change], n_bytes: int) -> None:
        """Add the newest transaction, and forget the oldest ones beyond the bound."""
        self._items.append((transaction_id, changes, n_bytes))
        self._numbers[transaction_id] = self._first + len(self._items)
        self.n_bytes += n_bytes
        while self.n_bytes > self.max_bytes:
            self._forget()

    def _forget(self) -> None:
        oldest_id, _, n_bytes = self._items.popleft()
        del self._numbers[self._start_id]
        self._start_id = oldest_id
        self._first += 1
        self.n_bytes -= n_bytes

    def since(self, transaction_id: str) -> Difference | None:
        """What changed since the state `transaction_id`: the old and the new values of each row.

        None when that state is not known, or no longer.
        """
        number = self._numbers.get(transaction_id)
        if number is None:
            return None
        difference: Difference = {}
        n_skipped = number - self._first
        for place in range(n_skipped, len(self._items)):
            for change in self._items[place][1]:
                key = (change.table.name, change.row.uuid)
                known = difference.get(key)
                old = change.old if known is None else known[1]
                difference[key] = (change.table, old, change.new)
        return difference

    def transactions(self) -> list[list[Change]]:
        """The changes of each transaction that is kept, the oldest first."""
        return [changes for _, changes, _ in self._items]
