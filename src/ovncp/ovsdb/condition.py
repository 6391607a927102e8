"""Conditions: which rows an operation or a monitor is about (RFC 7047 section 5.1).

`parse` turns a `<condition>` into clauses, each of which holds its test as one function of a
row's values. A "where" of an operation wants all its clauses, that of a monitor any of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from ovncp.ovsdb.atom import Symbols
from ovncp.ovsdb.column_type import UNLIMITED, ColumnType, Datum
from ovncp.ovsdb.errors import OvsdbError, syntax_error
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.schema import UUID, Column, TableSchema

# Whether a row with the datum meets a clause with the argument.
Test = Callable[[ColumnType, Datum, Datum], bool]

# In the order in which they are tried: those that leave the fewest rows first.
FUNCTIONS = ("false", "==", "<", "<=", ">=", ">", "includes", "excludes", "!=", "true")
_RANK: Final = {name: rank for rank, name in enumerate(FUNCTIONS)}
_ORDERINGS: Final = ("<", "<=", ">=", ">")


class Clause:
    """One clause. `column` is None for the literals `true` and `false`."""

    __slots__ = ("_holds", "arg", "column", "function")

    def __init__(self, column: Column | None, function: str, arg: Datum) -> None:
        self.column = column
        self.function = function
        self.arg = arg
        self._holds = None if column is None else _TESTS[function]

    def test(self, values: Values) -> bool:
        """Whether a row with `values` meets the clause."""
        column, holds = self.column, self._holds
        if column is None or holds is None:
            return self.function == "true"
        return holds(column.type, values[column.index], self.arg)

    def to_json(self) -> Any:
        """The `<clause>`."""
        if self.column is None:
            return self.function == "true"
        return [self.column.name, self.function, self.column.type.json(self.arg)]


Condition = Sequence[Clause]


def _ordering(compare: Callable[[Any, Any], bool]) -> Test:
    def holds(kind: ColumnType, datum: Datum, arg: Datum) -> bool:
        if kind.is_scalar:
            return compare(datum, arg)
        # An optional scalar: nothing is neither less than a value nor greater.
        return bool(datum) and compare(datum[0], arg[0])

    return holds


_TESTS: Final[dict[str, Test]] = {
    "==": lambda kind, datum, arg: bool(datum == arg),
    "!=": lambda kind, datum, arg: bool(datum != arg),
    "<": _ordering(lambda a, b: bool(a < b)),
    "<=": _ordering(lambda a, b: bool(a <= b)),
    ">": _ordering(lambda a, b: bool(a > b)),
    ">=": _ordering(lambda a, b: bool(a >= b)),
    "includes": lambda kind, datum, arg: kind.includes(datum, arg),
    "excludes": lambda kind, datum, arg: kind.excludes(datum, arg),
}


def parse(table: TableSchema, json: Any, symbols: Symbols | None) -> list[Clause]:
    """The clauses of a `<condition>`, the most selective first. Raises OvsdbError."""
    clauses = [parse_clause(table, clause, symbols) for clause in json]
    if len(clauses) > 1:
        clauses.sort(key=lambda clause: _RANK[clause.function])
    return clauses


def uuid_in(clauses: Condition) -> str | None:
    """The uuid of the only row that can satisfy all `clauses`, if they name it."""
    for clause in clauses:
        if clause.function == "==" and clause.column is not None and clause.column.index == UUID:
            uuid: str = clause.arg
            return uuid
    return None


def parse_clause(table: TableSchema, json: Any, symbols: Symbols | None) -> Clause:
    """One `<clause>`, or a literal true or false. Raises OvsdbError."""
    if type(json) is bool:
        return Clause(None, "true" if json else "false", None)
    column, function, arg = table.column_triple(json, "condition")
    if function not in _TESTS:
        raise OvsdbError("unknown function", f"No function named {function}.")
    return Clause(column, function, _arg_type(column, function, json).from_json(arg, symbols))


def _arg_type(column: Column, function: str, json: Any) -> ColumnType:
    """The type of the argument: the column's, relaxed where the function allows it."""
    kind = column.type
    if function in _ORDERINGS:
        ordered = kind.is_scalar or kind.is_optional_scalar
        if not ordered or kind.key.kind not in ("integer", "real"):
            raise syntax_error(
                json,
                f'Type mismatch: "{function}" operator may not be applied to column '
                f"{column.name} of type {kind.to_english()}.",
            )
        return kind.with_bounds(1, 1)
    if function == "excludes" and not kind.is_scalar:
        return kind.with_bounds(0, UNLIMITED)
    if function == "includes" and not kind.is_scalar:
        return kind.with_bounds(0, kind.n_max)
    return kind


def matches_all(clauses: Condition, values: Values) -> bool:
    """Whether `values` satisfy every clause, as a "where" of an operation wants it."""
    return all(clause.test(values) for clause in clauses)


def matches_any(clauses: Condition, values: Values) -> bool:
    """Whether `values` satisfy a clause, as a monitor wants it; no clause at all means yes."""
    return not clauses or any(clause.test(values) for clause in clauses)
