"""How changes of rows are shown to monitors: the JSON of one row, encoded once for all who see it.

`<row-update>` of RFC 7047 section 4.1.6 and `<row-update2>` of ovsdb-server(7) section 4.1.14. A
`Shape` is what monitors of a table have in common: the form, the columns, and which kinds of
change are wanted of each column. It keeps the bytes of every row that it showed, so that a first
dump is put together from what is there.
"""

from collections.abc import Iterator
from itertools import compress
from operator import is_not, itemgetter
from typing import Any

import orjson

from ovncp.ovsdb.atom import ZERO_UUID
from ovncp.ovsdb.dump import Dump
from ovncp.ovsdb.encoded import ROWS
from ovncp.ovsdb.row import Row, Values
from ovncp.ovsdb.schema import Column
from ovncp.ovsdb.table import Table

INITIAL, INSERT, DELETE, MODIFY = 1, 2, 4, 8
EVERYTHING = INITIAL | INSERT | DELETE | MODIFY

# A column, and the kinds of change of it that are wanted.
Selection = tuple[Column, int]

# What tells shapes of a table apart: the version, the places of the columns in order, each with the
# kinds of change of it that are wanted, and the kinds that are wanted of the table, with columns
# to show or without.
Form = tuple[int, tuple[tuple[int, int], ...], int]

_INITIAL_HEAD_BYTES = len(f'"{ZERO_UUID}":{{"initial":')


class _Plan:
    """The columns that one kind of change shows, and how.

    Rows mostly hold the very objects that are their columns' defaults, so that what a row says
    beyond its defaults is found by comparing identities, in C.
    """

    __slots__ = ("_columns", "_defaults", "_pick")

    def __init__(self, selections: tuple[Selection, ...], kind: int) -> None:
        columns = [column for column, select in selections if select & kind]
        self._columns = [(column.name, column.index, column.type.to_json) for column in columns]
        self._defaults = [column.type.default for column in columns]
        # itemgetter returns no tuple for a single place, so it is asked for one more.
        self._pick = itemgetter(*(column.index for column in columns), 0)

    def full(self, values: Values) -> dict[str, Any]:
        """All columns."""
        return {
            name: values[index] if to_json is None else to_json(values[index])
            for name, index, to_json in self._columns
        }

    def sparse(self, values: Values) -> dict[str, Any]:
        """The columns that differ from their defaults."""
        differs = map(is_not, self._pick(values), self._defaults)
        json = {}
        for (name, index, to_json), default in compress(
            zip(self._columns, self._defaults, strict=True), differs
        ):
            datum = values[index]
            if datum != default:
                json[name] = datum if to_json is None else to_json(datum)
        return json


class Shape:
    """The common part of monitors of `table` that have the same `form`.

    `version` is 1 for "update", 2 for "update2" and later, `select` has every kind of change that
    is wanted of any column.
    """

    def __init__(self, table: Table, form: Form) -> None:
        self.table = table
        self.form = form
        self.version, columns, self.select = form
        selections = tuple((table.column_list[index], bits) for index, bits in columns)
        self.n_monitors = 0
        self._columns = frozenset(index for index, _ in columns)
        self._initial = _Plan(selections, INITIAL)
        self._insert = _Plan(selections, INSERT)
        self._delete = _Plan(selections, DELETE)
        self._modify = _Plan(selections, MODIFY)
        self._inserts_as_initial = all(
            bits & (INITIAL | INSERT) == INITIAL | INSERT for bits in (self.select, *_bits(columns))
        )
        self._modified = [column for column, select in selections if select & MODIFY]
        # What was shown of a row before is kept until the row changes.
        self._rows: dict[str, bytes] = {}
        self._dump: Dump | None = None
        self._merged: dict[
            tuple[str, bool, bool], tuple[Values | None, Values | None, bytes | None]
        ] = {}
        self._was_used = True

    @property
    def is_cached(self) -> bool:
        """Whether the bytes of any row are kept."""
        return bool(self._rows)

    def forget(self, uuid: str) -> None:
        """Note that the row `uuid` is no longer what it was."""
        self._rows.pop(uuid, None)
        if self._dump is not None:
            self._dump.touch(uuid)

    def drop_unused(self) -> None:
        """Forget all rows if nobody asked for any since this was called before."""
        if not self._was_used:
            self._rows = {}
            self._merged = {}
            self._dump = None
        self._was_used = False

    def refresh(self) -> Iterator[None]:
        """Do step by step what `dump` would do at once."""
        yield from self._kept_dump().refresh()

    def dump(self) -> list[bytes]:
        """Every row as `"UUID":<row-update>`, joined by commas, for a first dump."""
        return self._kept_dump().pieces()

    def _kept_dump(self) -> Dump:
        self._was_used = True
        if self._dump is None:
            self._dump = Dump(self.table, self.row)
        return self._dump

    def row(self, row: Row) -> bytes:
        """`row` for a first dump, from what is kept if it is there."""
        self._was_used = True
        ROWS.used += 1
        known = self._rows.get(row.uuid)
        if known is None:
            ROWS.made += 1
            known = self._rows[row.uuid] = self.initial(row.uuid, row.values)
        return known

    def merged(self, uuid: str, old: Values | None, new: Values | None) -> bytes | None:
        """As `update`, for changes that several clients have missed; kept for the others."""
        self._was_used = True
        key = (uuid, old is None, new is None)
        known = self._merged.get(key)
        if known is None or known[0] is not old or known[1] is not new:
            known = self._merged[key] = (old, new, self.update(uuid, old, new))
        return known[2]

    def initial(self, uuid: str, values: Values) -> bytes:
        """A row of a first dump."""
        if self.version == 1:
            return _member(uuid, {"new": self._initial.full(values)})
        return _member(uuid, {"initial": self._initial.sparse(values)})

    def update(self, uuid: str, old: Values | None, new: Values | None) -> bytes | None:
        """The update from `old` to `new`; None when this shape wants to see nothing of it."""
        if old is None:
            return self._inserted(uuid, new) if new is not None else None
        if new is None:
            return self._deleted(uuid, old)
        return self._changed(uuid, old, new)

    def inserted(self, row: Row) -> bytes | None:
        """The update that shows `row` to those who did not see it, made of what is kept of it."""
        if self.version == 1 or not self._inserts_as_initial:
            return self.update(row.uuid, None, row.values)
        return b'"%b":{"insert":%b' % (row.uuid.encode(), self.row(row)[_INITIAL_HEAD_BYTES:])

    def _inserted(self, uuid: str, new: Values) -> bytes | None:
        if not self.select & INSERT:
            return None
        if self.version == 1:
            return _member(uuid, {"new": self._insert.full(new)})
        return _member(uuid, {"insert": self._insert.sparse(new)})

    def _deleted(self, uuid: str, old: Values) -> bytes | None:
        if not self.select & DELETE:
            return None
        if self.version == 1:
            return _member(uuid, {"old": self._delete.full(old)})
        return _member(uuid, {"delete": None})

    def _changed(self, uuid: str, old: Values, new: Values) -> bytes | None:
        if not self.select & MODIFY:
            return None
        if all(old[index] is new[index] or old[index] == new[index] for index in self._columns):
            return None
        changed = [column for column in self._modified if old[column.index] != new[column.index]]
        if self.version == 1:
            before = {column.name: column.type.json(old[column.index]) for column in changed}
            return _member(uuid, {"old": before, "new": self._modify.full(new)})
        diff = {
            column.name: column.type.json(column.type.diff(old[column.index], new[column.index]))
            for column in changed
        }
        return _member(uuid, {"modify": diff})


def _bits(columns: tuple[tuple[int, int], ...]) -> list[int]:
    return [bits for _, bits in columns]


def _member(uuid: str, json: dict[str, Any]) -> bytes:
    return b'"%b":%b' % (uuid.encode(), orjson.dumps(json))


def table_updates(rows: dict[str, list[bytes]]) -> bytes:
    """The `<table-updates>` object with these rows, or parts of them that have commas between."""
    members = [
        b'"%b":{%b}' % (name.encode(), b",".join(updates))
        for name, updates in rows.items()
        if updates
    ]
    return b"{%b}" % b",".join(members)
