"""What the rows that meet a clause have in common, so that they are found by looking it up.

An *aspect* is one way to look at a row: at a column's datum as a whole, at its elements, or at
whether it meets a clause for which there is nothing better. The rows that meet a clause (RFC 7047
section 5.1) are those that have a certain value in a certain aspect. So a monitor's condition,
which wants any of its clauses, amounts to a set of values for each of some aspects.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from ovncp.ovsdb.column_type import ColumnType
from ovncp.ovsdb.condition import Clause
from ovncp.ovsdb.errors import json_text
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.schema import Column


class Aspect:
    """A way to look at the column at `place`. Those with the same `key` are the same.

    `values` yields what a row's values have in it.
    """

    __slots__ = ("_elements", "_hash", "key", "place", "values")

    def __init__(
        self,
        column: Column,
        way: str,
        values: Callable[[Values], Collection[Any]],
        elements: ColumnType | None = None,
    ) -> None:
        """`way` tells the aspects of a column apart; `elements` is the type of those looked at."""
        self.place: int = column.index
        self.key = (self.place, way)
        self.values = values
        self._elements = elements
        self._hash = hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Aspect) and self.key == other.key

    def difference(self, old: Values, new: Values) -> tuple[Collection[Any], Collection[Any]]:
        """The values that only `old` has in it and those that only `new` has, or all of either."""
        if self._elements is None:
            return self.values(old), self.values(new)
        return self._elements.removed_and_added(old[self.place], new[self.place])


def _whole(clause: Clause, column: Column) -> Aspect:
    """The datum itself; of a map its pairs, which are in order."""
    place = column.index
    if column.type.is_map:
        return Aspect(column, "whole", lambda values: (tuple(values[place].items()),))
    return Aspect(column, "whole", lambda values: (values[place],))


def _elements(clause: Clause, column: Column) -> Aspect:
    """The elements of a set, the pairs of a map."""
    place = column.index
    if column.type.is_map:
        return Aspect(column, "elements", lambda values: values[place].items(), column.type)
    return Aspect(column, "elements", lambda values: values[place], column.type)


def _outcome(clause: Clause, column: Column) -> Aspect:
    """True for the rows that meet `clause`."""
    test = clause.test
    return Aspect(
        column, json_text(clause.to_json()), lambda values: (True,) if test(values) else ()
    )


_Make = Callable[[Clause, Column], Aspect]


def _found_by(clause: Clause, column: Column) -> tuple[_Make, Any]:
    """What makes the aspect in which the rows that meet `clause`, and no others, have a value."""
    function, arg, kind = clause.function, clause.arg, column.type
    if function == "==" or (function == "includes" and kind.is_scalar):
        return _whole, tuple(arg.items()) if kind.is_map else arg
    if function == "includes" and len(arg) == 1:
        (element,) = arg.items() if kind.is_map else arg
        return _elements, element
    return _outcome, True


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
        # There may be hundreds of clauses, with few aspects.
        known: dict[tuple[Column, _Make], set[Any]] = {}
        for clause in clauses:
            column = clause.column
            if column is None:
                continue
            make, value = _found_by(clause, column)
            values = known.get((column, make))
            if values is None or make is _outcome:
                values = self.by_aspect.setdefault(make(clause, column), set())
                known[column, make] = values
            values.add(value)

    def matches(self, values: Values) -> bool:
        """Whether a row with `values` meets the condition."""
        for aspect, wanted in self.by_aspect.items():
            for value in aspect.values(values):
                if value in wanted:
                    return True
        return False

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
