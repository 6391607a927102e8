"""The entry that a snapshot is: it inserts every row of a database (ovsdb(5), "Record Format").

It is written and read in pieces, each of which takes little time and memory.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from ovncp.ovsdb.row import Values
from ovncp.ovsdb.schema import UUID
from ovncp.ovsdb.table import Table

_ROWS_PER_PIECE = 200

# All rows of a table, as of one moment.
TableRows = tuple[Table, list[Values]]


def rows_of(tables: Iterable[Table]) -> list[TableRows]:
    """The content of `tables`, to be written out while they change.

    Rows never change in place, so that holding on to their values is enough.
    """
    return [(table, [row.values for row in table.rows.values()]) for table in tables if table.rows]


def encode(
    content: list[TableRows], comment: str, date_msec: int, is_diff: bool
) -> Iterator[bytes]:
    """The JSON text of the entry that inserts `content`, in pieces.

    `is_diff` says so in it, as the C server does; it means nothing for a row that is inserted.
    """
    yield b"{"
    for table, rows in content:
        separator = b'"%b":{' % table.name.encode()
        for start in range(0, len(rows), _ROWS_PER_PIECE):
            yield separator + encode_rows(table, rows[start : start + _ROWS_PER_PIECE])
            separator = b","
        yield b"},"
    yield _tail(comment, date_msec, is_diff)


def row_json(table: Table, values: Values) -> dict[str, Any]:
    """The columns of a row that are stored and differ from their defaults."""
    json = {}
    for name, index, default, to_json in table.stored:
        datum = values[index]
        if datum is not default and datum != default:
            json[name] = datum if to_json is None else to_json(datum)
    return json


def encode_rows(table: Table, rows: Iterable[Values]) -> bytes:
    """The members of a table's object for `rows` of it, with no braces."""
    json = {values[UUID]: row_json(table, values) for values in rows}
    return orjson.dumps(json)[1:-1]


def _tail(comment: str, date_msec: int, is_diff: bool) -> bytes:
    """The last members of the object."""
    mark = {"_is_diff": True} if is_diff else {}
    return orjson.dumps({**mark, "_date": date_msec, "_comment": comment})[1:]


def decode(data: bytes, piece_bytes: int = 1 << 17) -> Iterator[dict[str, Any]]:
    """The JSON value of the entry `data` in pieces: objects of which it is the union.

    Each is made of at least `piece_bytes` of the text, or the rest of it.

    Raises ValueError where that does not work out, as it may for an entry that was not written in
    the usual way. Cuts are made after the end of a row or of a table. Were one within a string, the
    piece before it would end within that string, and be no JSON.
    """
    start, name = 0, b""
    while (end := data.find(b'},"', start + piece_bytes)) >= 0:
        is_end_of_table = data[end - 1 : end] == b"}"
        text = b"%b%b%b" % (name, data[start : end + 1], b"}" if is_end_of_table else b"}}")
        piece = orjson.loads(text)
        yield piece
        start = end + 2
        name = b"{" if is_end_of_table else b"{%b:{" % orjson.dumps(next(reversed(piece)))
    yield orjson.loads(name + data[start:])
