"""What the rows that meet a clause have in common, so that they are found by looking it up.

An *aspect* is one way to look at a row: at a column's datum as a whole, at its elements, or at
whether it meets a clause for which there is nothing better. The rows that meet a clause (RFC 7047
section 5.1) are those that have a certain value in a certain aspect. So a monitor's condition,
which wants any of its clauses, amounts to a set of values for each of some aspects.
"""

from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import Any

from ovncp.ovsdb.condition import Clause
from ovncp.ovsdb.errors import json_text
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.schema import Column

_MOST_KEPT = 1024


class Aspect:
    """A way to look at the column at `place`. Those with the same `key` are the same.

    This one sees the datum itself.
    """

    __slots__ = ("_hash", "key", "place")

    def __init__(self, column: Column, way: str) -> None:
        """`way` tells the aspects of a column apart."""
        self.place: int = column.index
        self.key = (self.place, way)
        self._hash = hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Aspect) and self.key == other.key)

    def values(self, values: Values) -> Collection[Any]:
        """What a row with `values` has in it."""
        return (values[self.place],)

    def has_any(self, values: Values, wanted: set[Any]) -> bool:
        """Whether a row with `values` has any of those that are `wanted` in it."""
        return values[self.place] in wanted

    def difference(self, old: Values, new: Values) -> tuple[Collection[Any], Collection[Any]]:
        """The values that only `old` has in it and those that only `new` has, or all of either."""
        return self.values(old), self.values(new)


class _WholeMap(Aspect):
    """The pairs of a map together, which are in order."""

    def values(self, values: Values) -> Collection[Any]:
        return (tuple(values[self.place].items()),)

    def has_any(self, values: Values, wanted: set[Any]) -> bool:
        return tuple(values[self.place].items()) in wanted


class _Elements(Aspect):
    """The elements of a set."""

    __slots__ = ("_type",)

    def __init__(self, column: Column) -> None:
        super().__init__(column, "elements")
        self._type = column.type

    def values(self, values: Values) -> Collection[Any]:
        found: Collection[Any] = values[self.place]
        return found

    def has_any(self, values: Values, wanted: set[Any]) -> bool:
        return not wanted.isdisjoint(self.values(values))

    def difference(self, old: Values, new: Values) -> tuple[Collection[Any], Collection[Any]]:
        return self._type.removed_and_added(old[self.place], new[self.place])


class _Pairs(_Elements):
    """The pairs of a map."""

    def values(self, values: Values) -> Collection[Any]:
        found: Collection[Any] = values[self.place].items()
        return found


class _Outcome(Aspect):
    """True for the rows that meet `clause`."""

    __slots__ = ("_clause",)

    def __init__(self, column: Column, clause: Clause) -> None:
        super().__init__(column, json_text(clause.to_json()))
        self._clause = clause

    def values(self, values: Values) -> Collection[Any]:
        return (True,) if self._clause.test(values) else ()

    def has_any(self, values: Values, wanted: set[Any]) -> bool:
        return self._clause.test(values)


# Kept, since thousands of conditions ask for the same few.
@lru_cache(_MOST_KEPT)
def _whole(column: Column) -> Aspect:
    return _WholeMap(column, "whole") if column.type.is_map else Aspect(column, "whole")


@lru_cache(_MOST_KEPT)
def _elements(column: Column) -> Aspect:
    return _Pairs(column) if column.type.is_map else _Elements(column)


def _found_by(clause: Clause, column: Column) -> tuple[Aspect, Any]:
    """The aspect in which the rows that meet `clause`, and no others, have a value, and which."""
    function, arg, kind = clause.function, clause.arg, column.type
    if function == "==" or (function == "includes" and kind.is_scalar):
        return _whole(column), tuple(arg.items()) if kind.is_map else arg
    if function == "includes" and len(arg) == 1:
        (element,) = arg.items() if kind.is_map else arg
        return _elements(column), element
    return _Outcome(column, clause), True


def _is_met_by_all(clause: Clause) -> bool:
    """Whether every row meets `clause`, as it does one that includes or excludes nothing."""
    if clause.column is None:
        return clause.function == "true"
    asks_elements = clause.function in ("includes", "excludes")
    return asks_elements and not clause.column.type.is_scalar and not clause.arg


class AnyOf:
    """The condition of a monitor on a table, for one that not every row meets.

    `by_aspect` has the values that make a row meet it.
    """

    __slots__ = ("by_aspect",)

    def __init__(self, clauses: Iterable[Clause]) -> None:
        self.by_aspect: dict[Aspect, set[Any]] = {}
        for clause in clauses:
            if clause.column is not None:
                aspect, value = _found_by(clause, clause.column)
                self.by_aspect.setdefault(aspect, set()).add(value)

    def matches(self, values: Values) -> bool:
        """Whether a row with `values` meets the condition."""
        return any(aspect.has_any(values, wanted) for aspect, wanted in self.by_aspect.items())

    def unlike(self, other: "AnyOf") -> Iterator[tuple[Aspect, set[Any]]]:
        """The values that are in only one of the two: rows whose outcome differs have one."""
        for aspect in self.by_aspect.keys() | other.by_aspect.keys():
            mine = self.by_aspect.get(aspect, set())
            yield aspect, mine ^ other.by_aspect.get(aspect, set())


def any_of(clauses: Collection[Clause]) -> AnyOf | None:
    """The condition of a monitor that wants any of `clauses`; None for all rows."""
    if not clauses or any(map(_is_met_by_all, clauses)):
        return None
    return AnyOf(clauses)
