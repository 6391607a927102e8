"""What two databases do not have in common, row by row and column by column.

Compared is what is stored. Values are compared as such where a column has the same type in both,
and as JSON where it has not.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from ovncp.ops.db.row_json import datum_json, row_json
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.schema import Column, DatabaseSchema
from ovncp.ovsdb.table import Table

_LINES = 40
_ELEMENTS = 8
_LONGEST_VALUE = 60


@dataclass(frozen=True)
class RowDifference:
    """A row that is not the same in both: its stored columns, None where it is missing.

    Of a row that is in both, `first` and `second` have only the columns that differ.
    """

    table: str
    uuid: str
    first: dict[str, Any] | None
    second: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """The difference for programs."""
        return {
            "table": self.table,
            "uuid": self.uuid,
            "first": self.first,
            "second": self.second,
        }


@dataclass
class Comparison:
    """What came of a comparison; `n_rows` were compared."""

    first: str
    second: str
    schema: list[str] = field(default_factory=list)
    rows: list[RowDifference] = field(default_factory=list)
    n_rows: int = 0

    @property
    def is_equal(self) -> bool:
        """Whether there is no difference."""
        return not self.schema and not self.rows

    def lines(self) -> Iterator[str]:
        """The differences for people; of very many the first."""
        yield from self.schema
        for difference in self.rows[:_LINES]:
            yield f"{difference.table} {difference.uuid}: {self._words(difference)}"
        if len(self.rows) > _LINES:
            yield f"... and {len(self.rows) - _LINES:,} more rows differ; --json has them all"

    def _words(self, difference: RowDifference) -> str:
        if difference.first is None or difference.second is None:
            return f"only in {self.first if difference.second is None else self.second}"
        second = difference.second
        return "; ".join(
            f"{name}: {_change_words(value, second[name])}"
            for name, value in difference.first.items()
        )

    def to_json(self) -> dict[str, Any]:
        """The differences for programs."""
        return {
            "first": self.first,
            "second": self.second,
            "equal": self.is_equal,
            "rows_compared": self.n_rows,
            "schema": self.schema,
            "rows": [difference.to_json() for difference in self.rows],
        }


def _change_words(first: Any, second: Any) -> str:
    """What became of a column: of sets and maps, which elements went and came."""
    if not _is_many(first) and not _is_many(second):
        return f"{_short(first)} -> {_short(second)}"
    before, after = _elements(first), _elements(second)
    gone = [f"-{_cut(text)}" for text in before if text not in after]
    come = [f"+{_cut(text)}" for text in after if text not in before]
    words = gone + come
    more = [f"and {len(words) - _ELEMENTS:,} more"] if len(words) > _ELEMENTS else []
    return " ".join(words[:_ELEMENTS] + more)


def _is_many(value: Any) -> bool:
    return isinstance(value, list | tuple) and value[0] in ("set", "map")


def _elements(value: Any) -> dict[str, None]:
    """The elements of a datum's JSON as text, in order: a set of one may be that one."""
    elements = value[1] if _is_many(value) else [value]
    return dict.fromkeys(orjson.dumps(element).decode() for element in elements)


def _short(value: Any) -> str:
    return _cut(orjson.dumps(value).decode())


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


Watch = Callable[[int], None]


def compare(
    first: Database, second: Database, names: tuple[str, str], watch: Watch = lambda n_rows: None
) -> Comparison:
    """Compare two databases, called `names`; `watch` is told how many rows are done."""
    comparison = Comparison(*names)
    comparison.schema = list(_schema_differences(first.schema, second.schema, names))
    for name in sorted(first.tables.keys() & second.tables.keys()):
        pair = _TablePair(first.tables[name], second.tables[name])
        for uuid in sorted(pair.first.rows.keys() | pair.second.rows.keys()):
            if (difference := pair.difference(uuid)) is not None:
                comparison.rows.append(difference)
            comparison.n_rows += 1
            watch(comparison.n_rows)
    return comparison


def _schema_differences(
    first: DatabaseSchema, second: DatabaseSchema, names: tuple[str, str]
) -> Iterable[str]:
    if first.to_json() == second.to_json():
        return
    for what in ("name", "version"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other:
            yield f"schema {what}: {one} -> {other}"
    for table, one, other in _pairs(first.tables, second.tables):
        if one is None or other is None:
            yield f"table {table}: only in {names[0] if other is None else names[1]}"
        else:
            yield from _table_differences(table, one, other, names)


def _table_differences(
    table: str, first: Any, second: Any, names: tuple[str, str]
) -> Iterable[str]:
    for column, one, other in _pairs(first.columns, second.columns):
        if one is None or other is None:
            yield f"column {table}.{column}: only in {names[0] if other is None else names[1]}"
        elif _meaning(one) != _meaning(other):
            yield f"column {table}.{column}: {_short(_meaning(one))} -> {_short(_meaning(other))}"
    one, other = (({**table.to_json(False), "columns": {}}) for table in (first, second))
    if one != other:
        yield f"table {table}: {_short(one)} -> {_short(other)}"


def _pairs(first: dict[str, Any], second: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted(first.keys() | second.keys()):
        yield name, first.get(name), second.get(name)


class _TablePair:
    """Two tables of one name."""

    def __init__(self, first: Table, second: Table) -> None:
        self.first, self.second = first, second
        others = {name: (place, to_json) for name, place, _, to_json in second.stored}
        self._columns = [
            (name, place, to_json, *others[name], _same_type(first, second, name))
            for name, place, _, to_json in first.stored
            if name in others
        ]

    def difference(self, uuid: str) -> RowDifference | None:
        """What differs in the row `uuid`, which at least one of them has."""
        mine, theirs = self.first.rows.get(uuid), self.second.rows.get(uuid)
        name = self.first.name
        if mine is None or theirs is None:
            return RowDifference(
                name,
                uuid,
                None if mine is None else row_json(self.first, mine.values),
                None if theirs is None else row_json(self.second, theirs.values),
            )
        one, other = self._values(mine.values, theirs.values)
        return RowDifference(name, uuid, one, other) if one else None

    def _values(self, mine: Values, theirs: Values) -> tuple[dict[str, Any], dict[str, Any]]:
        """The columns in which two rows differ, of either."""
        one: dict[str, Any] = {}
        other: dict[str, Any] = {}
        for name, place, to_json, their_place, their_to_json, is_same_type in self._columns:
            if is_same_type and mine[place] == theirs[their_place]:
                continue
            first = datum_json(mine[place], to_json)
            second = datum_json(theirs[their_place], their_to_json)
            if is_same_type or orjson.dumps(first) != orjson.dumps(second):
                one[name], other[name] = first, second
        return one, other


def _same_type(first: Table, second: Table, column: str) -> bool:
    return _meaning(first.columns[column]) == _meaning(second.columns[column])


def _meaning(column: Column) -> dict[str, Any]:
    """The column in the schema, but for whether it is stored: on clusters, each is."""
    return {name: value for name, value in column.to_json().items() if name != "ephemeral"}
