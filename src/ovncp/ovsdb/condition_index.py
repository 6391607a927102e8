"""Who is concerned by a change of a row, found by the values that the row has.

For each aspect of the table's rows that some condition looks at there is a map from values to those
who want them. So a change costs a look-up for each such aspect and the work for those whom it
concerns, however many others there are. A clause that only trying can decide is an aspect of its
own: it is tried once, however many have it.
"""

from collections.abc import Iterable
from typing import Any

from ovncp.ovsdb.aspect import AnyOf, Aspect
from ovncp.ovsdb.row import Change, Values
from ovncp.ovsdb.value_map import ValueMap


class ConditionIndex:
    """Conditions on one table with their holders, which are hashable."""

    __slots__ = ("_by_aspect",)

    def __init__(self) -> None:
        self._by_aspect: dict[Aspect, ValueMap] = {}

    def __len__(self) -> int:
        """The number of different clauses."""
        return sum(map(len, self._by_aspect.values()))

    def add(self, holder: Any, condition: AnyOf) -> None:
        """Add the condition of `holder`."""
        for aspect, values in condition.by_aspect.items():
            holders = self._by_aspect.get(aspect)
            if holders is None:
                holders = self._by_aspect[aspect] = ValueMap()
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

    def concerned(self, change: Change) -> list[tuple[Any, bool, bool]]:
        """Whose condition the row meets before or after `change`, and which of the two it is."""
        if not self._by_aspect:
            return []
        old, new = change.old, change.new
        if old is None or new is None:
            aspects = self._by_aspect.items()
            return [(holder, new is None, old is None)
                    for holder in _holders(aspects, old if new is None else new)]  # fmt: skip
        # Most of what conditions look at is the same before and after.
        columns = change.columns
        alike = [item for item in self._by_aspect.items() if item[0].place not in columns]
        both = _holders(alike, new)
        found = [(holder, True, True) for holder in both]
        if len(alike) < len(self._by_aspect):
            others = [item for item in self._by_aspect.items() if item[0].place in columns]
            before, after = _holders(others, old), _holders(others, new)
            found += [(h, True, h in after) for h in before if h not in both]
            found += [(h, False, True) for h in after if h not in both and h not in before]
        return found


def _holders(aspects: Iterable[tuple[Aspect, ValueMap]], values: Values | None) -> dict[Any, None]:
    """Those who want what a row with `values` has in some of `aspects`."""
    found: dict[Any, None] = {}
    if values is not None:
        for aspect, holders in aspects:
            for value in aspect.values(values):
                for holder in holders.get(value):
                    found[holder] = None
    return found
