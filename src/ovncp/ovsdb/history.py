"""The latest transactions, kept for clients that come back (ovsdb-server(7) section 4.1.15).

The bound on it is one of memory. What a transaction costs has little to do with the size of its
entry in the log: a new element of an address set makes an entry of a hundred bytes, and keeps the
former set, of any size. So the cost is an estimate of what only the history holds on to: the old
values of the columns that changed, all values of a row that was deleted, the entry's text, and what
Python adds to these.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from ovncp.ovsdb.entry import base_of
from ovncp.ovsdb.row import Change, Values
from ovncp.ovsdb.table import Table

# The table and the old and new values of rows, by table name and uuid.
Difference = dict[tuple[str, str], tuple[Table, Values | None, Values | None]]

# Bytes that CPython takes on a 64-bit machine, measured: see tests/unit/test_history.py.
_STEP_BYTES: Final = 430
_CHANGE_BYTES: Final = 150
_PLACE_BYTES: Final = 8
_ATOM_BYTES: Final = 50
_MAP_BYTES: Final = 150
_PAIR_BYTES: Final = 30


class Kept:
    """What a transaction did to one row: as `Change`, without what is only needed to commit it."""

    __slots__ = ("new", "old", "table", "uuid")

    def __init__(self, table: Table, uuid: str, old: Values | None, new: Values | None) -> None:
        self.table = table
        self.uuid = uuid
        self.old = old
        self.new = new

    def cost(self, columns: Iterable[int]) -> int:
        """About how many bytes it keeps; `columns` are the places of those that changed."""
        old = self.old
        if old is None:
            return _CHANGE_BYTES
        n_bytes = _CHANGE_BYTES + _PLACE_BYTES * len(old)
        if self.new is None:
            return n_bytes + sum([_all_bytes(datum) for datum in old])
        return n_bytes + sum([_own_bytes(old[index]) for index in columns])


def _own_bytes(datum: Any) -> int:
    """The memory of a datum whose atoms mostly are the ones of its successor too."""
    if type(datum) is tuple:
        return _ATOM_BYTES + _PLACE_BYTES * len(datum)
    if type(datum) is dict:
        return _MAP_BYTES + _PAIR_BYTES * len(datum)
    return _all_bytes(datum)


def _all_bytes(datum: Any) -> int:
    if type(datum) is tuple:
        return _own_bytes(datum) + sum([_all_bytes(atom) for atom in datum]) if datum else 0
    if type(datum) is dict:
        if not datum:
            return 0
        atoms = sum([_all_bytes(key) + _all_bytes(value) for key, value in datum.items()])
        return _own_bytes(datum) + atoms
    if type(datum) is str:
        return _ATOM_BYTES + len(datum) if datum else 0
    return _ATOM_BYTES


class Step:
    """One transaction: the id of the state after it, its changes, and its entry in the log.

    `data` is None for one that is not stored. `n_bytes` is what it costs to keep.
    """

    __slots__ = ("changes", "data", "n_bytes", "transaction_id")

    def __init__(
        self, transaction_id: str, changes: list[Kept], data: bytes | None, n_bytes: int
    ) -> None:
        self.transaction_id = transaction_id
        self.changes = changes
        self.data = data
        self.n_bytes = n_bytes + _STEP_BYTES + (0 if data is None else len(data))


class History:
    """The steps of the latest transactions, of at most `max_bytes` of memory.

    `start_id` is the id of the state that the oldest of them starts from, and `stored_start_id`
    that of the last entry of the log which that state includes.
    """

    def __init__(self, max_bytes: int, start_id: str) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self.start_id = start_id
        self.stored_start_id = start_id
        self._steps: deque[Step] = deque()
        # The number, in order, of the state that each id stands for.
        self._numbers = {start_id: 0}
        self._first = 0
        self._latest: tuple[tuple[str, int], Difference] | None = None
        # The states up to this number are from before the server started.
        self._started = -1
        # The ids by their base, once that is asked for.
        self._by_base: dict[str, str] | None = None

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def newest_id(self) -> str:
        """The id of the newest state."""
        return self._steps[-1].transaction_id if self._steps else self.start_id

    def add(self, transaction_id: str, changes: list[Change], data: bytes | None) -> None:
        """Add the newest transaction, and forget the oldest ones beyond the bound.

        `data` is its entry in the log, None if there is none.
        """
        n_bytes = 0
        kept_changes: list[Kept] = []
        for change in changes:
            kept = Kept(change.table, change.row.uuid, change.old, change.new)
            n_bytes += kept.cost(change.columns)
            kept_changes.append(kept)
        self.add_step(Step(transaction_id, kept_changes, data, n_bytes))

    def add_step(self, step: Step) -> None:
        """As `add`."""
        self._latest = None
        self._steps.append(step)
        self._numbers[step.transaction_id] = self._first + len(self._steps)
        if self._by_base is not None:
            self._by_base.setdefault(base_of(step.transaction_id), step.transaction_id)
        self.n_bytes += step.n_bytes
        while self.n_bytes > self.max_bytes:
            self._forget()

    def _forget(self) -> None:
        oldest = self._steps.popleft()
        del self._numbers[self.start_id]
        if self._by_base is not None:
            self._by_base.pop(base_of(self.start_id), None)
        self.start_id = oldest.transaction_id
        if oldest.data is not None:
            self.stored_start_id = oldest.transaction_id
        self._first += 1
        self.n_bytes -= oldest.n_bytes

    @property
    def first_number(self) -> int:
        """The number of the oldest state that it leads on from."""
        return self._first

    @property
    def newest_number(self) -> int:
        """The number of the newest state."""
        return self._first + len(self._steps)

    def number(self, transaction_id: str) -> int | None:
        """The number, in order, of the state `transaction_id`; None if that is not known."""
        return self._numbers.get(transaction_id)

    def step(self, number: int) -> Step:
        """The step that led to the state with this number."""
        return self._steps[number - self._first - 1]

    def note_start(self) -> None:
        """Note that the server starts in the newest state; what is not stored has its defaults."""
        self._started = self._first + len(self._steps)

    def known_as(self, transaction_id: str, with_unstored: bool) -> str | None:
        """The state from which a client can go on that knows the state `transaction_id`.

        That is the state itself, or one with the same stored content: enough for a client that
        does not see what is not stored. One that does, `with_unstored`, would not be told that this
        is back to its defaults since the server started.
        """
        number = self._numbers.get(transaction_id)
        if with_unstored:
            return None if number is None or number < self._started else transaction_id
        return transaction_id if number is not None else self._bases().get(base_of(transaction_id))

    def _bases(self) -> dict[str, str]:
        if self._by_base is None:
            self._by_base = {}
            for transaction_id in self._numbers:
                self._by_base.setdefault(base_of(transaction_id), transaction_id)
        return self._by_base

    def includes(self, transaction_id: str) -> bool:
        """Whether it is known what changed since the state `transaction_id`."""
        return transaction_id in self._numbers

    def since(self, transaction_id: str) -> Difference | None:
        """What changed since the state `transaction_id`: the old and the new values of each row.

        None when that state is not known, or no longer.
        """
        number = self._numbers.get(transaction_id)
        if number is None:
            return None
        # Clients that come back at once mostly missed the same.
        key = (transaction_id, self._first + len(self._steps))
        if self._latest is None or self._latest[0] != key:
            self._latest = (key, self._since(number))
        return self._latest[1]

    def _since(self, number: int) -> Difference:
        difference: Difference = {}
        n_skipped = number - self._first
        for place in range(n_skipped, len(self._steps)):
            for change in self._steps[place].changes:
                key = (change.table.name, change.uuid)
                known = difference.get(key)
                old = change.old if known is None else known[1]
                difference[key] = (change.table, old, change.new)
        return difference

    def steps(self) -> list[Step]:
        """All that is kept, the oldest first."""
        return list(self._steps)
