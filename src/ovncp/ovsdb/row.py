"""A row, and one transaction's change of it."""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ovncp.ovsdb.table import Table

Values = tuple[Any, ...]

_NOTHING: Final[dict[int, Any]] = {}


class Row:
    """A row of a table.

    `values` holds a datum for each column, `_uuid` and `_version` first; a change replaces the
    whole tuple, so that who holds an old one keeps a consistent view. `n_refs` counts the strong
    references from other rows. `change` is what the transaction at hand does to the row.
    """

    __slots__ = ("change", "n_refs", "uuid", "values")

    def __init__(self, uuid: str, values: Values) -> None:
        self.uuid = uuid
        self.values = values
        self.n_refs = 0
        self.change: Change | None = None


class Change:
    """What a transaction does to one row.

    `old` is None for a row that it inserts, `new` for one that it deletes. `columns` holds the
    places of the columns that differ; it is empty for a row that only counts references anew.
    `touched` has those that were given a datum, with it, the same as before or not.
    """

    __slots__ = ("columns", "n_refs", "new", "old", "row", "table", "touched")

    def __init__(self, table: "Table", row: Row, old: Values | None, new: Values | None) -> None:
        self.table = table
        self.row = row
        self.old = old
        self.new = new
        self.columns: tuple[int, ...] = ()
        self.touched: dict[int, Any] = _NOTHING
        self.n_refs = row.n_refs

    @property
    def is_visible(self) -> bool:
        """Whether anything of the row differs from before the transaction."""
        if self.old is None or self.new is None:
            return self.old is not self.new
        return bool(self.columns)
