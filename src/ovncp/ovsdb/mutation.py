"""Mutations: changes to columns that start from their present value (RFC 7047 section 5.1)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from ovncp.ovsdb.atom import Symbols
from ovncp.ovsdb.column_type import (
    UNLIMITED,
    ColumnType,
    Datum,
    MapType,
    ScalarType,
    SetType,
    store_error,
)
from ovncp.ovsdb.errors import OvsdbError, constraint_violation, syntax_error
from ovncp.ovsdb.parser import INT64_MAX, INT64_MIN
from ovncp.ovsdb.schema import Column, TableSchema

Mutate = Callable[[Datum], Datum]


class Mutation:
    """One mutation: `apply` leads from a column's old datum to its new one. It may raise."""

    __slots__ = ("apply", "column")

    def __init__(self, column: Column, apply: Mutate) -> None:
        self.column = column
        self.apply = apply


def parse(table: TableSchema, json: Any, symbols: Symbols | None) -> list[Mutation]:
    """The mutations of an operation "mutate". Raises OvsdbError."""
    return [_parse_mutation(table, mutation, symbols) for mutation in json]


def _parse_mutation(table: TableSchema, json: Any, symbols: Symbols | None) -> Mutation:
    column, mutator, arg = table.column_triple(json, "mutation")
    if not column.mutable:
        message = f"Cannot mutate immutable column {column.name} in table {table.name}."
        raise OvsdbError("constraint violation", message, json)
    make = _MUTATORS.get(mutator)
    if make is None:
        raise OvsdbError("unknown mutator", f"No mutator named {mutator}.")
    return Mutation(column, make(column, mutator, arg, json, symbols))


def _mismatch(column: Column, mutator: str, json: Any) -> OvsdbError:
    return syntax_error(
        json,
        f'Type mismatch: "{mutator}" operator may not be applied to column '
        f"{column.name} of type {column.type.to_english()}.",
    )


def _domain_error() -> OvsdbError:
    return OvsdbError("domain error", "Division by zero.")


def _range_error(mutator: str) -> OvsdbError:
    return OvsdbError("range error", f'Result of "{mutator}" operation is out of range.')


def _divide(x: Any, y: Any) -> Any:
    if y == 0:
        raise _domain_error()
    if type(x) is float:
        return x / y
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient


def _modulo(x: int, y: int) -> int:
    if y == 0:
        raise _domain_error()
    if x == INT64_MIN and y == -1:
        raise _range_error("%=")
    # The sign of the dividend, as in C.
    return int(math.copysign(1, x)) * (abs(x) % abs(y))


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+=": lambda x, y: x + y,
    "-=": lambda x, y: x - y,
    "*=": lambda x, y: x * y,
    "/=": _divide,
    "%=": _modulo,
}


def _in_range(atom: Any) -> bool:
    if type(atom) is float:
        return math.isfinite(atom)
    return bool(INT64_MIN <= atom <= INT64_MAX)


def _make_arithmetic(
    column: Column, mutator: str, arg: Any, json: Any, symbols: Symbols | None
) -> Mutate:
    kind = column.type
    key = kind.key.kind
    if kind.is_map or key not in ("integer", "real") or (mutator == "%=" and key == "real"):
        raise _mismatch(column, mutator, json)
    operand = ScalarType(kind.key.unconstrained(), None, 1, 1).from_json(arg, symbols)
    compute = _ARITHMETIC[mutator]

    def mutate_atom(atom: Any) -> Any:
        result = compute(atom, operand)
        if not _in_range(result):
            raise _range_error(mutator)
        return result

    def mutate(datum: Datum) -> Datum:
        atoms = [mutate_atom(atom) for atom in kind.keys(datum)]
        for atom in atoms:
            kind.key.check(atom)
        if kind.is_scalar:
            return atoms[0]
        if len(set(atoms)) != len(atoms):
            raise constraint_violation(f'Result of "{mutator}" operation contains duplicates.')
        return tuple(sorted(atoms))

    return mutate


def _make_insert(
    column: Column, mutator: str, arg: Any, json: Any, symbols: Symbols | None
) -> Mutate:
    kind = column.type
    if kind.is_scalar:
        raise _mismatch(column, mutator, json)
    addition = kind.with_bounds(0, kind.n_max).from_json(arg, symbols)
    return _counted(kind, lambda datum: kind.union(datum, addition))


def _make_delete(
    column: Column, mutator: str, arg: Any, json: Any, symbols: Symbols | None
) -> Mutate:
    kind = column.type
    if kind.is_scalar:
        raise _mismatch(column, mutator, json)
    try:
        removal = kind.with_bounds(0, UNLIMITED).from_json(arg, symbols)
    except OvsdbError:
        if not isinstance(kind, MapType):
            raise
        return _delete_keys(kind, SetType(kind.key, None, 0, UNLIMITED).from_json(arg, symbols))
    return _counted(kind, lambda datum: kind.without(datum, removal))


def _delete_keys(kind: MapType, keys: Datum) -> Mutate:
    return _counted(kind, lambda datum: kind.without_keys(datum, keys))


def _counted(kind: ColumnType, compute: Mutate) -> Mutate:
    """`compute`, with a check that the column may hold as many elements as it yields."""

    def mutate(datum: Datum) -> Datum:
        result = compute(datum)
        if not kind.n_min <= len(result) <= kind.n_max:
            raise store_error(kind, len(result))
        return result

    return mutate


_MUTATORS: dict[str, Callable[[Column, str, Any, Any, Symbols | None], Mutate]] = {
    **dict.fromkeys(_ARITHMETIC, _make_arithmetic),
    "insert": _make_insert,
    "delete": _make_delete,
}


def apply_all(mutations: Sequence[Mutation], values: Sequence[Any]) -> dict[int, Datum]:
    """The new datums, by the places of their columns, that `mutations` lead to in order."""
    result: dict[int, Datum] = {}
    for mutation in mutations:
        index = mutation.column.index
        result[index] = mutation.apply(result.get(index, values[index]))
    return result
