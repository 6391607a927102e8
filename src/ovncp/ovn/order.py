"""Rows in the order of columns: sorted in slices, between which others have their turn, and kept in
order from then on at the cost of what differs.

It is a sample sort: a few of the rows tell where to part them, and each part is sorted by itself.
What changes meanwhile is done to the order when it is there.
"""

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from ovncp.ovsdb.row import Row, Values
from ovncp.ovsdb.schema import Column

_SLICE = 500
_SAMPLES = 4  # of each part: the more, the more alike the parts are

OrderedBy = tuple[tuple[Column, bool], ...]
"""Columns, of which the later ones decide where others tie; each the other way round if True."""
Key = tuple[Any, str]
"""A place in an order: what is ordered by, and the uuid."""


class Order:
    """The rows of a table in the order of columns, and of their uuids where these are the same."""

    def __init__(self, columns: OrderedBy, rows: Iterable[Row]) -> None:
        self.keys: list[Key] = []
        self._key = order_key(columns)
        self._before: dict[str, Values | None] = {}
        self._late: deque[tuple[str, Values | None, Values | None]] = deque()
        self._sorting: Iterator[None] | None = self._sort(list(rows))
        self._task: asyncio.Task[None] | None = None
        self._n_waiting = 0

    # Being sorted

    @property
    def is_wanted(self) -> bool:
        """Whether it is being sorted, or somebody who waited for that is still to see it."""
        return self._sorting is not None or self._n_waiting > 0

    async def ready(self) -> None:
        """Return when it is sorted: in slices, and once for all who wait."""
        if self._sorting is None:
            return
        if self._task is None:
            self._task = asyncio.create_task(self._sort_in_slices())
        self._n_waiting += 1
        try:
            await asyncio.shield(self._task)
        finally:
            self._n_waiting -= 1

    async def _sort_in_slices(self) -> None:
        while self._step():
            await asyncio.sleep(0)

    def finish(self) -> None:
        """Have it sorted at once."""
        while self._step():
            pass

    def _step(self) -> bool:
        """Do a slice of the work; whether there may be more."""
        if self._sorting is None:
            return False
        for _ in self._sorting:
            return True
        self._sorting = None
        return False

    def _sort(self, rows: Sequence[Row]) -> Iterator[None]:
        entries: list[Key] = []
        for some in _slices(rows):
            entries += [(self._key(self._values_of(row)), row.uuid) for row in some]
            yield
        marks = sorted(entries[:: _SLICE // _SAMPLES])[_SAMPLES::_SAMPLES]
        parts: list[list[Key]] = [[] for _ in range(len(marks) + 1)]
        for several in _slices(entries):
            for entry in several:
                parts[bisect_right(marks, entry)].append(entry)
            yield
        for part in parts:
            part.sort()
            self.keys += part
            yield
        while self._late:
            for _ in range(min(_SLICE, len(self._late))):
                self._put(*self._late.popleft())
            if self._late:  # or it would never be done where something changes in each slice
                yield
        self._before.clear()

    def _values_of(self, row: Row) -> Values:
        """What a row was when the sorting began; it was there."""
        before = self._before.get(row.uuid)
        return row.values if before is None else before

    # Being kept up to date

    def change(self, uuid: str, old: Values | None, new: Values | None) -> None:
        """Note that the row `uuid`, which was `old`, is `new` now."""
        if self._sorting is None:
            self._put(uuid, old, new)
        else:
            self._before.setdefault(uuid, old)
            self._late.append((uuid, old, new))

    def _put(self, uuid: str, old: Values | None, new: Values | None) -> None:
        old_key = None if old is None else self._key(old)
        new_key = None if new is None else self._key(new)
        if old is not None and new is not None and old_key == new_key:
            return
        if old is not None:
            place = bisect_left(self.keys, (old_key, uuid))
            del self.keys[place]
        if new is not None:
            insort(self.keys, (new_key, uuid))

    # Being asked

    def page(self, after: Key | None, n_rows: int, *, descending: bool = False) -> Sequence[Key]:
        """The `n_rows` keys that follow `after`, from the first one where that is None."""
        keys = self.keys
        if not descending:
            start = 0 if after is None else bisect_right(keys, after)
            return keys[start : start + n_rows]
        end = len(keys) if after is None else bisect_left(keys, after)
        return keys[max(0, end - n_rows) : end][::-1]


def _slices(several: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(several), _SLICE):
        yield several[start : start + _SLICE]


# What is compared


@lru_cache(1024)
def sort_key(column: Column) -> Callable[[Values], Any]:
    """What rows are compared by that are ordered by `column`."""
    if column.type.is_map:
        return lambda values: tuple(values[column.index].items())
    return itemgetter(column.index)


class Inverted:
    """A value that is ordered the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Inverted) and bool(self.value == other.value)

    def __lt__(self, other: "Inverted") -> bool:
        return bool(other.value < self.value)


def order_key(columns: OrderedBy) -> Callable[[Values], Any]:
    """What rows are compared by that are ordered by `columns`; of several ones a tuple."""
    keys = [sort_key(column) for column, _ in columns]
    if len(keys) == 1:
        return keys[0]
    return lambda values: joined_key([key(values) for key in keys], columns)


def joined_key(values: Sequence[Any], columns: OrderedBy) -> Any:
    """What a row is compared by that is ordered by `columns`, where it has `values`."""
    if len(columns) == 1:
        return values[0]
    pairs = zip(values, columns, strict=True)
    return tuple([Inverted(value) if inverted else value for value, (_, inverted) in pairs])
