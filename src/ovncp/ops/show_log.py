"""What a database file's records say, for people (ovsdb-tool(1), "show-log").

With verbosity 1 the rows that each transaction touched are listed, with 2 their columns too.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from ovncp.ops import database_file
from ovncp.ops.hash_order import in_hash_order
from ovncp.ovsdb.errors import OvsdbError, json_text
from ovncp.ovsdb.parser import is_integer
from ovncp.ovsdb.schema import DatabaseSchema

# Old servers wrote dates in seconds.
_FIRST_DATE_IN_MSEC = 2**31 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def show(path: str, verbosity: int) -> Iterator[str]:
    """The listing of the file `path`, in pieces. Raises OvsdbError where it cannot be read."""
    if not database_file.is_standalone(path):
        from ovncp.ops import show_raft_log

        yield from show_raft_log.show(path, Listing(verbosity))
        return
    listing = Listing(verbosity)
    for number, json in enumerate(database_file.records(path)):
        yield f"record {number}:"
        if number == 0:
            schema = listing.schema = DatabaseSchema.from_json(json)
            yield f' "{schema.name}" schema, version="{schema.version}", cksum="{schema.cksum}"\n'
        else:
            yield from listing.transaction_lines(json)
        yield "\n"


class Listing:
    """The state of one listing: the schema, and in `names` what each row is called by its uuid."""

    def __init__(self, verbosity: int) -> None:
        self.schema: DatabaseSchema | None = None
        self.verbosity = verbosity
        self.names: dict[str, str] = {}

    def transaction_lines(self, json: dict[str, Any]) -> Iterator[str]:
        """What is said of a transaction; the first line is begun already."""
        date, comment = json.get("_date"), json.get("_comment")
        if date is not None and is_integer(date):
            yield _date_text(date)
        if type(comment) is str:
            yield f' "{comment}"'
        if not self.verbosity:
            return
        suffix = " diff" if json.get("_is_diff") is True else ""
        tables = [name for name in in_hash_order(json) if _is_table(name, json[name])]
        if tables:
            yield "\n"
        for name in tables:
            for uuid in in_hash_order(json[name]):
                yield from self._row_lines(name, uuid, json[name][uuid], suffix)

    def _row_lines(self, table: str, uuid: str, row: Any, suffix: str) -> Iterator[str]:
        old_name = self.names.get(uuid)
        new_name = json_text(row["name"]) if type(row) is dict and "name" in row else None
        yield f"  table {table} {_row_title(uuid, old_name, new_name, suffix)}:\n"
        if type(row) is dict:
            if self.verbosity > 1:
                yield from self._column_lines(table, row)
            self.names[uuid] = new_name or old_name or uuid[:8]
        elif row is None:
            yield "    delete row\n"
            self.names.pop(uuid, None)

    def _column_lines(self, table: str, row: dict[str, Any]) -> Iterator[str]:
        for name in in_hash_order(row):
            yield f"    {name}={self._value_text(table, name, row[name])}\n"

    def _value_text(self, table_name: str, column_name: str, value: Any) -> str:
        """`value` as the tools print it, or as JSON if it is not one of the column's type."""
        table = self.schema.tables.get(table_name) if self.schema is not None else None
        column = table.columns.get(column_name) if table is not None else None
        if column is None:
            return json_text(value)
        try:
            return column.type.to_string(column.type.from_json(value, None))
        except OvsdbError:
            return json_text(value)


def _is_table(name: str, rows: Any) -> bool:
    return not name.startswith("_") and type(rows) is dict


def _row_title(uuid: str, old_name: str | None, new_name: str | None, suffix: str) -> str:
    if old_name is not None:
        return f"row {old_name} ({uuid:.8}){suffix}"
    if new_name is not None:
        return f"insert row {new_name} ({uuid:.8})"
    return f"insert row {uuid:.8}"


def date_msec(date: int) -> int:
    """The `_date` of an entry in milliseconds since the epoch."""
    return date if date >= _FIRST_DATE_IN_MSEC else date * 1000


def _date_text(date: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=date_msec(date))
    return f" {moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}"
