"""What rows are asked for in a query: `column=value`, `column.operator=value`, `map.key=value`.

An equality is looked up in an index; all others are tests of one row. Of a set, `=` asks whether it
has the element; of a map whether it has the key.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import translate
from typing import Any, NamedTuple

from ovncp.ovn import names
from ovncp.ovn.names import Sees
from ovncp.ovn.replica import Replica
from ovncp.ovn.rows import Rows
from ovncp.ovn.values import Unresolved, from_text, refuse
from ovncp.ovsdb.atom import BaseType, uuid_from_string
from ovncp.ovsdb.row import Row
from ovncp.ovsdb.schema import VERSION, Column

Test = Callable[[Row], bool]
Lookup = Callable[[], Iterator[Row]]


class Filter(NamedTuple):
    """Whether a row with such values is asked for, and what finds all that are, if anything.

    `prepare` does step by step what that would else do at once when it is new.
    """

    test: Test
    lookup: Lookup | None = None
    prepare: Callable[[], Iterator[None]] | None = None


_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "lt": lambda a, b: bool(a < b),
    "le": lambda a, b: bool(a <= b),
    "gt": lambda a, b: bool(a > b),
    "ge": lambda a, b: bool(a >= b),
}
OPERATORS = ("ne", "in", "like", "empty", *_ORDERINGS)


def parse(replica: Replica, rows: Rows, name: str, text: str, sees: Sees) -> Filter:
    """The filter that the member `name` of a query stands for. Raises Invalid.

    A row that it names is one of those that somebody `sees`.
    """
    column_name, dot, operator = name.partition(".")
    column = rows.table.columns.get(column_name)
    if column is None or column.index == VERSION:
        raise refuse(name, "unknown", f"{rows.table.name} has no column {column_name!r}")
    if column.type.is_map:
        return _of_map(rows, column, operator if dot else None, text, name)
    if not dot:
        return _equal(replica, rows, column, [text], name, sees)
    if operator not in OPERATORS:
        raise refuse(name, "unknown", f"the operators are {', '.join(OPERATORS)}")
    if operator == "in":
        return _equal(replica, rows, column, text.split(","), name, sees)
    if operator == "ne":
        equal = _equal(replica, rows, column, [text], name, sees)
        return Filter(lambda row: not equal.test(row))
    return Filter(_test(column, operator, text, name))


def atoms(column: Column, row: Row) -> Sequence[Any]:
    """The atoms of a column that is no map."""
    datum = row.values[column.index]
    return (datum,) if column.type.is_scalar else datum


def _of_map(rows: Rows, column: Column, key: str | None, text: str, name: str) -> Filter:
    place = column.index
    key_type, value_type = column.type.key, column.type.value
    assert value_type is not None
    if key is None:
        wanted = from_text(key_type, text, name)
        return Filter(lambda row: wanted in row.values[place])
    pair = {from_text(key_type, key, name): from_text(value_type, text, name)}
    ((pair_key, pair_value),) = pair.items()
    return Filter(
        lambda row: row.values[place].get(pair_key, row) == pair_value,
        lambda: rows.where(column, "includes", pair),
        lambda: rows.prepare(column, "includes", pair),
    )


def _equal(
    replica: Replica, rows: Rows, column: Column, texts: Sequence[str], name: str, sees: Sees
) -> Filter:
    wanted = {_atom(replica, column.type.key, text, name, sees) for text in texts}
    function = "==" if column.type.is_scalar else "includes"
    data = [atom if column.type.is_scalar else (atom,) for atom in wanted]

    def lookup() -> Iterator[Row]:
        found: dict[str, Row] = {}
        for datum in data:
            found.update((row.uuid, row) for row in rows.where(column, function, datum))
        return iter(found.values())

    def prepare() -> Iterator[None]:
        for datum in data:
            yield from rows.prepare(column, function, datum)

    return Filter(lambda row: not wanted.isdisjoint(atoms(column, row)), lookup, prepare)


def _atom(replica: Replica, base: BaseType, text: str, name: str, sees: Sees) -> Any:
    if base.kind != "uuid":
        return from_text(base, text, name)
    uuid = uuid_from_string(text)
    if uuid is not None:
        return uuid
    if base.ref_table is None:
        raise refuse(name, "format", f"{text!r} is no uuid")
    try:
        return names.find(replica, base.ref_table, text, sees).uuid
    except Unresolved as error:
        raise refuse(name, "reference", str(error)) from error


def _test(column: Column, operator: str, text: str, name: str) -> Test:
    if operator == "empty":
        if text not in ("true", "false"):
            raise refuse(name, "type", "true or false is wanted")
        wants_empty = text == "true"
        return lambda row: all(atom == "" for atom in atoms(column, row)) is wants_empty
    if operator == "like":
        pattern = re.compile(translate(text))
        return lambda row: any(pattern.match(str(a)) for a in atoms(column, row))
    bound, compare = from_text(column.type.key, text, name), _ORDERINGS[operator]
    return lambda row: any(compare(atom, bound) for atom in atoms(column, row))


def having_text(rows: Rows, text: str) -> Filter:
    """The rows of which some column has `text` in one of its strings."""
    columns = [c for c in rows.table.column_list if "string" in (c.type.key.kind, _kind(c))]

    def test(row: Row) -> bool:
        for column in columns:
            datum = row.values[column.index]
            if type(datum) is str:
                if text in datum:
                    return True
            elif any(text in part for part in _strings(datum)):
                return True
        return False

    return Filter(test)


def _kind(column: Column) -> str:
    return "" if column.type.value is None else column.type.value.kind


def _strings(datum: Any) -> Iterator[str]:
    parts = (*datum.keys(), *datum.values()) if type(datum) is dict else datum
    return (part for part in parts if type(part) is str)
