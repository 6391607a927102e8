"""Tables: rows by uuid, rows by their indexed columns, and who refers to whom."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from ovncp.ovsdb.atom import Symbols
from ovncp.ovsdb.condition import Condition, matches_all, uuid_in
from ovncp.ovsdb.errors import OvsdbError, syntax_error
from ovncp.ovsdb.row import Change, Row
from ovncp.ovsdb.schema import UUID, VERSION, Column, TableSchema


@dataclass(eq=False)
class Reference:
    """That a column's keys, or its values, refer to rows of `target`.

    `place` is the column's; `holds_by_default` is whether its default is no empty datum.
    """

    column: Column
    place: int
    by_value: bool
    holds_by_default: bool
    target: "Table"

    def uuids(self, datum: Any) -> Collection[Any]:
        """The uuids that `datum` refers to."""
        kind = self.column.type
        return kind.values(datum) if self.by_value else kind.keys(datum)

    def difference(self, old: Any, new: Any) -> tuple[list[Any], list[Any]]:
        """The uuids that are referred to no more, and those that are newly."""
        removed, added = self.column.type.removed_and_added(old, new)
        if not self.column.type.is_map:
            return removed, added
        place = 1 if self.by_value else 0
        return [pair[place] for pair in removed], [pair[place] for pair in added]


class References:
    """The references of a table's columns, those that are strong or those that are weak."""

    __slots__ = ("_by_default", "_by_place", "all")

    def __init__(self) -> None:
        self.all: list[Reference] = []
        self._by_place: dict[int, list[Reference]] = {}
        self._by_default: list[Reference] = []

    def add(self, reference: Reference) -> None:
        """Add `reference`."""
        self.all.append(reference)
        self._by_place.setdefault(reference.place, []).append(reference)
        if reference.holds_by_default:
            self._by_default.append(reference)

    def touched_by(self, change: Change) -> list[Reference]:
        """Those that `change` may alter: of the columns that it touches, not of all."""
        if change.new is None or not self.all:
            return self.all
        by_place, touched = self._by_place, change.touched
        found = [r for place in touched if place in by_place for r in by_place[place]]
        if change.old is None and self._by_default:
            found += [r for r in self._by_default if r.place not in touched]
        return found


class Table:
    """A table of a database.

    `indexes` has a dict for each index of the schema, from the indexed values to the row, and
    `index_keys` the functions that yield these of a row's values; `key_places` has the places of
    all columns of indexes.
    `referrers` has, for each uuid that weak references point at, the rows that hold them with
    their table and the number of references. `changes` are those of the transaction at hand.
    """

    __slots__ = (
        "changes",
        "column_list",
        "columns",
        "defaults",
        "index_keys",
        "indexes",
        "invalid_defaults",
        "key_places",
        "name",
        "referrers",
        "rows",
        "schema",
        "stored",
        "strong",
        "weak",
    )

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self.name = schema.name
        self.columns = schema.columns
        self.column_list = tuple(schema.columns.values())
        self.rows: dict[str, Row] = {}
        self.changes: list[Change] = []
        self.indexes: list[dict[Any, Row]] = [{} for _ in schema.indexes]
        self.referrers: dict[str, dict[Row, tuple[Table, int]]] = {}
        self.index_keys = [_index_key(columns) for columns in schema.indexes]
        self.key_places = {column.index for columns in schema.indexes for column in columns}
        self.strong = References()
        self.weak = References()
        self.defaults = [column.type.default for column in schema.columns.values()]
        # What the log stores of a row: name, place, default, and how a datum is shown.
        self.stored = [
            (column.name, column.index, column.type.default, column.type.to_json)
            for column in schema.columns.values()
            if column.persistent and column.index != UUID
        ]
        self.invalid_defaults = dict(_invalid_defaults(schema))

    def link(self, tables: "dict[str, Table]") -> None:
        """Find the tables that this one's columns refer to."""
        for column in self.columns.values():
            for by_value, base in enumerate((column.type.key, column.type.value)):
                if base is None or base.ref_table is None:
                    continue
                target = tables[base.ref_table]
                holds = column.type.n_min > 0
                reference = Reference(column, column.index, bool(by_value), holds, target)
                (self.strong if base.is_strong_ref else self.weak).add(reference)

    def parse_row(self, json: Any, symbols: Symbols | None) -> dict[int, Any]:
        """The datums of a `<row>` (RFC 7047 section 5.1) by the places of their columns."""
        _check_object(json)
        datums: dict[int, Any] = {}
        for name, value in json.items():
            column = self._column(name, json)
            datums[column.index] = column.type.from_json(value, symbols)
        return datums

    def parse_diff(self, json: Any) -> dict[int, Any]:
        """As `parse_row`, for the differences of columns, which may have any number of elements."""
        _check_object(json)
        datums: dict[int, Any] = {}
        for name, value in json.items():
            column = self._column(name, json)
            datums[column.index] = column.diff_type.from_json(value, None)
        return datums

    def _column(self, name: str, json: Any) -> Column:
        column = self.columns.get(name)
        if column is None:
            message = f"No column {name} in table {self.name}."
            raise OvsdbError("unknown column", message, json)
        return column

    def make_row(self, uuid: str, datums: dict[int, Any], version: int) -> Row:
        """A row of these `datums`, by the places of their columns, and defaults for the others."""
        values = self.defaults.copy()
        for index, datum in datums.items():
            values[index] = datum
        values[UUID] = uuid
        values[VERSION] = version
        return Row(uuid, tuple(values))

    def query(self, clauses: Condition) -> list[Row]:
        """The rows that satisfy all `clauses`."""
        candidates = self._candidates(clauses)
        if not clauses:
            return candidates
        return [row for row in candidates if matches_all(clauses, row.values)]

    def _candidates(self, clauses: Condition) -> list[Row]:
        """Few rows that hold all those that satisfy `clauses`: an equality is a look-up."""
        uuid = uuid_in(clauses)
        if uuid is not None:
            row = self.rows.get(uuid)
            return [] if row is None else [row]
        equal = {
            clause.column.index: clause.arg
            for clause in clauses
            if clause.column is not None and clause.function == "=="
        }
        for number, columns in enumerate(self.schema.indexes):
            if all(column.index in equal for column in columns):
                return self._indexed(number, equal)
        return list(self.rows.values())

    def _indexed(self, number: int, equal: dict[int, Any]) -> list[Row]:
        found = self.indexes[number].get(self.index_keys[number](equal))
        # The index does not know yet what the transaction at hand did.
        candidates = [change.row for change in self.changes if change.new is not None]
        if found is not None and found.change is None:
            candidates.append(found)
        return candidates


def _check_object(json: Any) -> None:
    if type(json) is not dict:
        raise syntax_error(json, "row must be JSON object")


def _index_key(columns: tuple[Column, ...]) -> Callable[[Any], Any]:
    get = itemgetter(*(column.index for column in columns))
    if not any(column.type.is_map for column in columns):
        return get
    if len(columns) == 1:
        return lambda values: _hashable(get(values))
    return lambda values: tuple(map(_hashable, get(values)))


def _hashable(datum: Any) -> Any:
    return tuple(datum.items()) if type(datum) is dict else datum


def _invalid_defaults(schema: TableSchema) -> Iterator[tuple[int, OvsdbError]]:
    """The columns that an "insert" must name, since their default breaks their constraints."""
    for column in schema.columns.values():
        try:
            column.type.check(column.type.default)
        except OvsdbError as error:
            yield column.index, error
