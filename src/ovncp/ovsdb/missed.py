"""What clients that come back, or lag, have missed: found out once for all, whatever each knows.

Thousands come back at once, each with the state of the last update that concerned it, hardly two
with the same. So the latest steps of the history are arranged by rows, and these by the values that
conditions ask for: a client costs a look-up for each of its values, and what it is told.

The steps are taken in a few at a time, and the database may go on in between.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from ovncp.ovsdb.aspect import AnyOf, Aspect
from ovncp.ovsdb.history import History, Kept
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.value_map import ValueMap

_STEPS_PER_SLICE = 200
_CHANGES_PER_SLICE = 1000

# A row's uuid, and what is seen of it before and after.
Seen = tuple[str, Values | None, Values | None]


class _Past:
    """What became of one row: its changes, each with the number of the state that it led to."""

    __slots__ = ("changes", "numbers")

    def __init__(self) -> None:
        self.changes: list[Kept] = []
        self.numbers: list[int] = []

    def old(self, number: int) -> Values | None:
        """The row as it was in the state `number`, after which it was changed."""
        return self.changes[bisect_right(self.numbers, number)].old


class _Index:
    """Rows by what they have, or had, in `aspect`; of the first `n_taken` changes of the table."""

    __slots__ = ("aspect", "n_taken", "uuids")

    def __init__(self, aspect: Aspect) -> None:
        self.aspect = aspect
        self.uuids = ValueMap()
        self.n_taken = 0

    def take(self, change: Kept) -> None:
        """Find the row of `change` by its values, too."""
        old, new, aspect = change.old, change.new, self.aspect
        if old is not None and (new is None or old[aspect.place] is not new[aspect.place]):
            self._add(change.uuid, old)
        if new is not None:
            self._add(change.uuid, new)

    def _add(self, uuid: str, values: Values) -> None:
        for value in self.aspect.values(values):
            self.uuids.add(value, uuid)


class _Table:
    """What became of one table: its changes in order, and its rows, the latest changed last."""

    __slots__ = ("changes", "indexes", "rows")

    def __init__(self) -> None:
        self.changes: list[Kept] = []
        self.rows: dict[str, _Past] = {}
        self.indexes: dict[Aspect, _Index] = {}

    def take(self, number: int, change: Kept) -> None:
        """Add a `change` that led to the state `number`."""
        past = self.rows.pop(change.uuid, None)
        if past is None:
            past = _Past()
        past.numbers.append(number)
        past.changes.append(change)
        self.rows[change.uuid] = past
        self.changes.append(change)

    def since(self, number: int) -> list[str]:
        """The rows that were changed after the state `number`."""
        found: list[str] = []
        for uuid in reversed(self.rows):
            if self.rows[uuid].numbers[-1] <= number:
                break
            found.append(uuid)
        return found

    def refresh(self, condition: AnyOf) -> Iterator[None]:
        """Have all changes in the indexes that `condition` needs, step by step."""
        for aspect in condition.by_aspect:
            index = self.indexes.get(aspect)
            if index is None:
                index = self.indexes[aspect] = _Index(aspect)
            while index.n_taken < len(self.changes):
                for change in self.changes[index.n_taken : index.n_taken + _CHANGES_PER_SLICE]:
                    index.take(change)
                    index.n_taken += 1
                yield

    def concerned(self, condition: AnyOf) -> dict[str, None]:
        """The rows that met `condition` at some time, or do."""
        for _ in self.refresh(condition):
            pass
        found: dict[str, None] = {}
        for aspect, values in condition.by_aspect.items():
            uuids = self.indexes[aspect].uuids
            for value in values:
                found.update(dict.fromkeys(uuids.get(value)))
        return found


class Missed:
    """The steps of `history` that lead from one of its states, which may change, to the newest."""

    __slots__ = ("_first", "_newest", "_tables", "history")

    def __init__(self, history: History) -> None:
        self.history = history
        self._begin(history.newest_number)

    def _begin(self, number: int) -> None:
        self._first = self._newest = number
        self._tables: dict[str, _Table] = {}

    def reach(self, number: int) -> Iterator[None]:
        """Take in all that changed since the state `number`, step by step."""
        history = self.history
        # What the history forgets is to be forgotten here too, but not all anew each time.
        is_stale = history.first_number > (self._first + self._newest) // 2
        if number < self._first or is_stale:
            # Others may come from before that, and all is to be done anew only so often.
            n_steps = 2 * (history.newest_number - number)
            self._begin(max(history.first_number, history.newest_number - n_steps))
        while self._newest < history.newest_number:
            if self._newest < history.first_number:
                self._begin(history.first_number)
            end = min(self._newest + _STEPS_PER_SLICE, history.newest_number)
            while self._newest < end:
                self._newest += 1
                self._take(self._newest)
            yield

    def _take(self, number: int) -> None:
        for change in self.history.step(number).changes:
            table = self._tables.get(change.table.name)
            if table is None:
                table = self._tables[change.table.name] = _Table()
            table.take(number, change)

    def prepare(self, name: str, condition: AnyOf | None) -> Iterator[None]:
        """Do beforehand, step by step, most of what `seen` has to do."""
        table = self._tables.get(name)
        if table is not None and condition is not None:
            yield from table.refresh(condition)

    def seen(self, number: int, name: str, condition: AnyOf | None) -> Iterator[Seen]:
        """What of the table `name` is seen under `condition` in the state `number`, or is now.

        `reach` is to be called before; what changes meanwhile may be left out.
        """
        table = self._tables.get(name)
        if table is None:
            return
        uuids: Iterable[str]
        uuids = table.since(number) if condition is None else table.concerned(condition)
        for uuid in uuids:
            past = table.rows[uuid]
            if past.numbers[-1] <= number:
                continue
            old, new = past.old(number), past.changes[-1].new
            if condition is not None:
                old = old if old is not None and condition.matches(old) else None
                new = new if new is not None and condition.matches(new) else None
            if old is not None or new is not None:
                yield uuid, old, new
