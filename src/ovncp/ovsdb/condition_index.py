"""Who is concerned by a change of a row, found by the values that the row has.

For each aspect of the table's rows that some condition looks at there is a map from values to those
who want them. So a change costs a look-up for each such aspect and the work for those whom it
concerns, however many others there are. A clause that only trying can decide is an aspect of its
own: it is tried once, however many have it.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from ovncp.ovsdb.aspect import AnyOf, Aspect
from ovncp.ovsdb.row import Change, Values
from ovncp.ovsdb.value_map import ValueMap


class ConditionIndex:
    """Conditions on one table with their holders, which are hashable."""

    __slots__ = ("_by_aspect", "_places")

    def __init__(self) -> None:
        self._by_aspect: dict[Aspect, ValueMap] = {}
        self._places: set[int] = set()

    def __len__(self) -> int:
        """The number of different clauses."""
        return sum(map(len, self._by_aspect.values()))

    def add(self, holder: Any, condition: AnyOf) -> None:
        """Add the condition of `holder`."""
        for aspect, values in condition.by_aspect.items():
            holders = self._by_aspect.get(aspect)
            if holders is None:
                holders = self._by_aspect[aspect] = ValueMap()
                self._places.add(aspect.place)
            for value in values:
                holders.add(value, holder)

    def remove(self, holder: Any, condition: AnyOf) -> None:
        """The inverse of `add`."""
        for aspect, values in condition.by_aspect.items():
            holders = self._by_aspect[aspect]
            for value in values:
                holders.discard(value, holder)
            if not len(holders):
                del self._by_aspect[aspect]
                self._places = {known.place for known in self._by_aspect}

    def concerned(self, change: Change) -> Iterator[tuple[Any, bool, bool]]:
        """Whose condition the row meets before or after `change`, and which of the two it is."""
        if not self._by_aspect:
            return
        before = self._holders(change.old)
        after = before if self._is_alike(change) else self._holders(change.new)
        for holder in before:
            yield holder, True, holder in after
        if after is not before:
            for holder in after:
                if holder not in before:
                    yield holder, False, True

    def _is_alike(self, change: Change) -> bool:
        """Whether a changed row is the same in all that conditions look at."""
        exists = change.old is not None and change.new is not None
        return exists and self._places.isdisjoint(change.columns)

    def _holders(self, values: Values | None) -> dict[Any, None]:
        found: dict[Any, None] = {}
        if values is None:
            return found
        for aspect, holders in self._by_aspect.items():
            for value in aspect.values(values):
                concerned: Iterable[Any] = holders.get(value)
                found.update(dict.fromkeys(concerned))
        return found
