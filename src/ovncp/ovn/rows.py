"""The rows of one table as they are read: as JSON, by what they have, and in an order.

What is asked for often is kept: the JSON text of each row, an index of the values of a column, the
uuids in the order of a column. Each is made when it is first asked for, and costs a change of a row
what differs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from ovncp.ovn.order import Order, OrderedBy
from ovncp.ovsdb.aspect import Aspect, any_of
from ovncp.ovsdb.condition import Clause
from ovncp.ovsdb.row import Change, Row, Values
from ovncp.ovsdb.row_index import RowIndexes
from ovncp.ovsdb.schema import VERSION, Column, format_uuid
from ovncp.ovsdb.table import Table

_MOST_ORDERS = 8

Show = Callable[[Any], Any]


def shown(column: Column) -> Show | None:
    """How a datum of `column` becomes a value for JSON; None where it is one as it is.

    What may be missing is null then, a set is an array, a map an object, and a uuid its text.
    """
    if column.index == VERSION:
        return format_uuid
    if column.type.is_map or column.type.is_scalar or column.type.n_max > 1:
        return None
    return lambda datum: datum[0] if datum else None


class Rows:
    """The rows of `table`."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._shown = [(column.name, column.index, shown(column)) for column in table.column_list]
        self._json: dict[str, bytes] = {}
        self._indexes = RowIndexes(table)
        self._orders: dict[OrderedBy, Order] = {}
        self._holding: list[tuple[Rows, Column]] = []

    def __len__(self) -> int:
        return len(self.table.rows)

    def get(self, uuid: str) -> Row | None:
        """The row of that uuid, if there is one."""
        return self.table.rows.get(uuid)

    def values(self) -> Iterable[Row]:
        """All rows: not to be kept over a change."""
        return self.table.rows.values()

    # As JSON

    def json(self, row: Row) -> bytes:
        """All columns of `row`, as a JSON object."""
        text = self._json.get(row.uuid)
        if text is None:
            text = self._json[row.uuid] = encode(self._object(row.values))
        return text

    def _object(self, values: Values) -> dict[str, Any]:
        return {
            name: values[index] if show is None else show(values[index])
            for name, index, show in self._shown
        }

    def object(self, values: Values, names: Iterable[str] | None = None) -> dict[str, Any]:
        """The columns `names` of a row with `values`, all when None, as a value for JSON."""
        whole = self._object(values)
        return whole if names is None else {name: whole[name] for name in names}

    # By what they have

    def where(self, column: Column, function: str, datum: Any) -> Iterator[Row]:
        """The rows that meet a clause (RFC 7047 section 5.1); `datum` is of the column's type."""
        condition = any_of((Clause(column, function, datum),))
        if condition is None:
            yield from list(self.table.rows.values())
            return
        for aspect, values in condition.by_aspect.items():
            yield from self.having(aspect, values)

    def prepare(self, column: Column, function: str, datum: Any) -> Iterator[None]:
        """Do step by step what `where` would do at once, the first time that it is asked for."""
        condition = any_of((Clause(column, function, datum),))
        return iter(()) if condition is None else self._indexes.prepare(condition)

    def having(self, aspect: Aspect, values: Iterable[Any]) -> Iterator[Row]:
        """The rows that have one of `values` in `aspect`."""
        rows = self.table.rows
        for uuid in list(self._indexes.find(aspect, values)):
            row = rows.get(uuid)
            if row is not None:
                yield row

    def link(self, tables: "Mapping[str, Rows]") -> None:
        """Find the tables that this one's columns hold rows of."""
        for reference in self.table.strong.all:
            if not reference.by_value:
                tables[reference.target.name]._holding.append((self, reference.column))

    @property
    def holding(self) -> "Sequence[tuple[Rows, Column]]":
        """The columns that refer strongly to rows of this table, with the rows that they are of."""
        return self._holding

    def holders(self, uuid: str) -> "Iterator[tuple[Rows, Column, Row]]":
        """The rows that refer strongly to a row of this table, and the columns in which they do."""
        for rows, column in self._holding:
            datum = uuid if column.type.is_scalar else (uuid,)
            for row in rows.where(column, "includes", datum):
                yield rows, column, row

    # In an order

    async def order(self, columns: OrderedBy) -> Order:
        """The rows in the order of `columns`; the first time it takes a while, in slices."""
        order = self._order(columns)
        await order.ready()
        return order

    def order_at_once(self, columns: OrderedBy) -> Order:
        """As `order`, where nobody can wait: of tables that have a few thousand rows."""
        order = self._order(columns)
        order.finish()
        return order

    def _order(self, columns: OrderedBy) -> Order:
        order = self._orders.pop(columns, None)
        if order is None:
            order = Order(columns, self.table.rows.values())
            self._forget_one()
        self._orders[columns] = order
        return order

    def _forget_one(self) -> None:
        # One that is wanted has to be told what changes.
        others = (columns for columns, order in self._orders.items() if not order.is_wanted)
        if len(self._orders) >= _MOST_ORDERS and (oldest := next(others, None)) is not None:
            del self._orders[oldest]

    # Being kept up to date

    def change(self, change: Change) -> None:
        """Note what a transaction did to a row."""
        uuid, old, new = change.row.uuid, change.old, change.new
        self._json.pop(uuid, None)
        self._indexes.change(uuid, old, new, change.columns)
        for order in self._orders.values():
            order.change(uuid, old, new)


def encode(value: Any) -> bytes:
    """JSON text, with keys of maps that are no strings made such."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
