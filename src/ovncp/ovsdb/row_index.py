"""The rows of a table by what they have in an aspect, for conditions that ask for it.

A schema's indexes are few. Monitors ask by other columns (`datapath == X`), a thousand clients each
with another X, so the first who asks has an index made that serves the others. It costs each change
what differs, and is dropped when it has not been used for a while, or for one that is more wanted.

An index is read from the table in pieces, between which the database goes on; see `RowIndex`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from ovncp.ovsdb.aspect import AnyOf, Aspect
from ovncp.ovsdb.row import Row, Values
from ovncp.ovsdb.schema import UUID
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.value_map import ValueMap

_MOST_INDEXES = 32  # of one table
_ROWS_PER_STEP = 64


class RowIndex:
    """The uuids of a table's rows by the values that they have in `aspect`.

    While it is being read, and at any time, the table may be ahead of what is visible. A row is
    read as it is; when its change becomes visible, or is taken back, `change` is called and puts
    the row where it belongs, whether it was read before or after. So the index is true of what is
    visible as soon as that is all there is.
    """

    __slots__ = ("_aspect", "_table", "_unread", "_uuids", "was_used")

    def __init__(self, table: Table, aspect: Aspect) -> None:
        self._table = table
        self._aspect = aspect
        self._uuids = ValueMap()
        self._unread: list[Row] = list(table.rows.values())
        self.was_used = True

    def read(self) -> Iterator[None]:
        """Read what is not read yet, step by step."""
        rows, unread = self._table.rows, self._unread
        while unread:
            for row in unread[-_ROWS_PER_STEP:]:
                if rows.get(row.uuid) is row:
                    self._add(row.uuid, row.values)
            del unread[-_ROWS_PER_STEP:]
            yield

    def _add(self, uuid: str, values: Values) -> None:
        for value in self._aspect.values(values):
            self._uuids.add(value, uuid)

    def change(self, uuid: str, old: Values | None, new: Values | None) -> None:
        """Note that the row `uuid`, which was `old`, is `new` now."""
        if old is not None and new is not None:
            removed, added = self._aspect.difference(old, new)
        else:
            removed = () if old is None else self._aspect.values(old)
            added = () if new is None else self._aspect.values(new)
        for value in removed:
            self._uuids.discard(value, uuid)
        for value in added:
            self._uuids.add(value, uuid)

    def find(self, value: Any) -> Iterable[str]:
        """The uuids of the rows that have `value`."""
        for _ in self.read():
            pass
        return self._uuids.get(value)


class RowIndexes:
    """The indexes that are kept of one table."""

    __slots__ = ("_indexes", "_table")

    def __init__(self, table: Table) -> None:
        self._table = table
        # The one that was asked for last is the last.
        self._indexes: dict[Aspect, RowIndex] = {}

    def __len__(self) -> int:
        return len(self._indexes)

    def _index(self, aspect: Aspect) -> RowIndex:
        index = self._indexes.pop(aspect, None)
        if index is None:
            index = RowIndex(self._table, aspect)
            if len(self._indexes) >= _MOST_INDEXES:
                del self._indexes[next(iter(self._indexes))]
        self._indexes[aspect] = index
        index.was_used = True
        return index

    def prepare(self, condition: AnyOf) -> Iterator[None]:
        """Do step by step what `find` would do at once for the values of `condition`."""
        for aspect in condition.by_aspect:
            if not _is_uuid(aspect):
                yield from self._index(aspect).read()

    def find(self, aspect: Aspect, values: Iterable[Any]) -> Iterator[str]:
        """The uuids of the rows that have one of `values`, several times if it has several.

        Those of `_uuid` are what was asked for, and may be of no row.
        """
        if _is_uuid(aspect):
            yield from values
            return
        index = self._index(aspect)
        for value in values:
            yield from index.find(value)

    def change(
        self, uuid: str, old: Values | None, new: Values | None, columns: tuple[int, ...]
    ) -> None:
        """Note that the row `uuid`, which was `old`, is `new` now, which differs in `columns`."""
        is_modified = old is not None and new is not None
        for aspect, index in self._indexes.items():
            if not is_modified or aspect.place in columns:
                index.change(uuid, old, new)

    def drop_unused(self) -> None:
        """Forget the indexes that nobody asked for since this was called before."""
        self._indexes = {a: index for a, index in self._indexes.items() if index.was_used}
        for index in self._indexes.values():
            index.was_used = False


def _is_uuid(aspect: Aspect) -> bool:
    """Whether the table itself is the index."""
    return aspect.key == (UUID, "whole")
