"""Conditions: which rows an operation or a monitor is about (RFC 7047 section 5.1).

`parse` turns a `<condition>` into clauses, each of which holds its test as one function of a
row's values. A "where" of an operation wants all its clauses, that of a monitor any of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ovncp.ovsdb.atom import Symbols
from ovncp.ovsdb.column_type import UNLIMITED, ColumnType, Datum
from ovncp.ovsdb.errors import OvsdbError, syntax_error
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.schema import Column, TableSchema

Test = Callable[[Values], bool]

# In the order in which they are tried: those that leave the fewest rows first.
FUNCTIONS = ("false", "==", "<", "<=", ">=", ">", "includes", "excludes", "!=", "true")
_RANK = {name: rank for rank, name in enumerate(FUNCTIONS)}
_ORDERINGS = ("<", "<=", ">=", ">")


class Clause:
    """One clause. `column` is None for the literals `true` and `false`."""

    __slots__ = ("arg", "column", "function", "test")

    def __init__(self, column: Column | None, function: str, arg: Datum) -> None:
        self.column = column
        self.function = function
        self.arg = arg
        self.test = _make_test(column, function, arg)

    def to_json(self) -> Any:
        """The `<clause>`."""
        if self.column is None:
            return self.function == "true"
        return [self.column.name, self.function, self.column.type.json(self.arg)]


Condition = Sequence[Clause]


def _make_test(column: Column | None, function: str, arg: Datum) -> Test:
    if column is None:
        outcome = function == "true"
        return lambda values: outcome
    return _TESTS[function](column.index, column.type, arg)


def _equal(index: int, kind: ColumnType, arg: Datum) -> Test:
    return lambda values: bool(values[index] == arg)


def _unequal(index: int, kind: ColumnType, arg: Datum) -> Test:
    return lambda values: bool(values[index] != arg)


def _includes(index: int, kind: ColumnType, arg: Datum) -> Test:
    includes = kind.includes
    return lambda values: includes(values[index], arg)


def _excludes(index: int, kind: ColumnType, arg: Datum) -> Test:
    excludes = kind.excludes
    return lambda values: excludes(values[index], arg)


def _ordering(compare: Callable[[Any, Any], bool]) -> Callable[[int, ColumnType, Datum], Test]:
    def make(index: int, kind: ColumnType, arg: Datum) -> Test:
        if kind.is_scalar:
            return lambda values: compare(values[index], arg)
        # An optional scalar: nothing is neither less than a value nor greater.
        return lambda values: bool(values[index]) and compare(values[index][0], arg[0])

    return make


_TESTS: dict[str, Callable[[int, ColumnType, Datum], Test]] = {
    "==": _equal,
    "!=": _unequal,
    "<": _ordering(lambda a, b: bool(a < b)),
    "<=": _ordering(lambda a, b: bool(a <= b)),
    ">": _ordering(lambda a, b: bool(a > b)),
    ">=": _ordering(lambda a, b: bool(a >= b)),
    "includes": _includes,
    "excludes": _excludes,
}


def parse(table: TableSchema, json: Any, symbols: Symbols | None) -> list[Clause]:
    """The clauses of a `<condition>`, the most selective first. Raises OvsdbError."""
    clauses = [parse_clause(table, clause, symbols) for clause in json]
    if len(clauses) > 1:
        clauses.sort(key=lambda clause: _RANK[clause.function])
    return clauses


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
