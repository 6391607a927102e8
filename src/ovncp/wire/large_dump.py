"""A first dump that is too large to be parsed at once (ovsdb-server(7) section 4.1.15).

The answer to "monitor_cond_since" may have hundreds of megabytes, and parsing that takes seconds in
which nothing else happens. So it is cut into rows without being parsed, and these are parsed a few
at a time. The cuts are where `":{"initial":{` stands: a quote that is not escaped, and is followed
by a colon, ends the name of a member, and only rows have a member "initial".
"""

import re
from collections.abc import Iterator
from typing import Any

from ovncp.wire.json_stream import parse

_ROW = b'":{"initial":{'
_UUID_BYTES = 36
_END = b"}}}}]"  # of a row's columns, the row, the table, the dump, and the array that it is in
_ROW_START = re.compile(rb'([{,])"\Z')
_TABLE_START = re.compile(rb'([{,])"([A-Za-z_][A-Za-z0-9_]*)":\{\Z')
_LONGEST_NAME = 1 << 10
_ROWS_PER_PIECE = 200


class LargeDump:
    """The `<table-updates2>` object of a first dump, between two places of a message's text."""

    def __init__(self, text: bytes, start: int, end: int) -> None:
        self._text = text
        self._start = start
        self._end = end

    def pieces(self) -> Iterator[dict[str, Any]]:
        """The dump in pieces of a few rows, each a `<table-updates2>` object. Raises JsonError."""
        text, place = self._text, self._start
        table = _table_before(text, place)[1]
        while place < self._end:
            stop, following = self._piece_end(place)
            rows = parse(b"{" + text[place:stop] + b"}")
            yield {table: rows}
            table = following or table
            place = self._next_row(stop)

    def _next_row(self, stop: int) -> int:
        """Where the next row starts, its quote, at or after `stop`."""
        found = self._text.find(_ROW, stop, self._end)
        return self._end if found < 0 else found - _UUID_BYTES - 1

    def _piece_end(self, place: int) -> tuple[int, str | None]:
        """Where the piece ends that starts at `place`; the next table, if that ends this one."""
        text = self._text
        for _ in range(_ROWS_PER_PIECE):
            place = self._next_row(place + _UUID_BYTES + len(_ROW))
            if place >= self._end:
                return self._end, None
            if text[place - 1] != ord(","):
                start, name = _table_before(text, place)
                return start - 1, name
        return place - 1, None


def _table_before(text: bytes, place: int) -> tuple[int, str]:
    """Where the table's member starts whose first row is at `place`, and its name."""
    found = _TABLE_START.search(text, max(0, place - _LONGEST_NAME), place)
    if found is None:
        raise ValueError("no table where one must be")
    return found.start(), found[2].decode()


def cut(text: bytes) -> dict[str, Any] | None:
    """The message `text`, with a `LargeDump` in it; None if it is no answer with a first dump."""
    first, end = text.find(_ROW) - _UUID_BYTES - 1, text.rfind(_END)
    if first < 0 or end < first:
        return None
    start = _TABLE_START.search(text, max(0, first - _LONGEST_NAME), first)
    if start is None or start[1] != b"{":
        return None
    message: dict[str, Any] = parse(text[: start.start()] + b"{}" + text[end + 4 :])
    result = message.get("result")
    if type(result) is not list or len(result) != 3 or result[2] != {}:
        return None
    result[2] = LargeDump(text, first, end + 2)
    return message
