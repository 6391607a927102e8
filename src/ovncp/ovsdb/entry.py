"""Entries of the log: a transaction's effect as JSON (ovsdb(5), "Record Format").

An entry names the rows that changed by table and uuid, with the difference of each changed column
(`_is_diff`), null for a deleted row, the date and the comment.
"""

import hashlib
from typing import Any, Final

from ovncp.ovsdb import json_bytes
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.parser import is_integer
from ovncp.ovsdb.row import Change
from ovncp.ovsdb.schema import VERSION


def encode(
    changes: list[Change], comment: str, date_msec: int, as_difference: bool
) -> bytes | None:
    """The entry for `changes`; None when none of them is of a kind that is stored.

    A column that changed is stored as the difference from before, or as a whole.
    """
    tables: dict[str, Any] = {}
    for change in changes:
        json = _change_json(change, as_difference)
        if json is not _NOT_STORED:
            tables.setdefault(change.table.name, {})[change.row.uuid] = json
    if not tables:
        return None
    if as_difference:
        # Not the last member, as it is taken out with a comma where files are compared as text.
        tables["_is_diff"] = True
    tables["_date"] = date_msec
    if comment:
        tables["_comment"] = comment
    # A copy: what orjson makes takes four kilobytes, however short it is.
    return b"%b" % json_bytes.encode(tables)


_NOT_STORED: Final = object()


def _change_json(change: Change, as_difference: bool) -> Any:
    if change.new is None:
        return None
    columns = change.table.column_list
    json = {}
    if change.old is None:
        for index in change.touched:
            column = columns[index]
            datum = change.new[index]
            if index > VERSION and column.persistent and datum != column.type.default:
                json[column.name] = column.type.json(datum)
        return json
    for index in change.columns:
        column = columns[index]
        if column.persistent:
            datum = change.new[index]
            if as_difference:
                datum = column.type.diff(change.old[index], datum)
            json[column.name] = column.type.json(datum)
    return json or _NOT_STORED


class NextId:
    """The transaction id of the entry that follows the transaction `previous_id`.

    It depends on nothing but the log's own content, so that it is the same after a restart and on
    every server of the log.
    """

    __slots__ = ("_hash",)

    def __init__(self, previous_id: str) -> None:
        self._hash = hashlib.sha1(previous_id.encode(), usedforsecurity=False)

    def take(self, piece: bytes) -> None:
        """Take the next piece of the entry's text."""
        self._hash.update(piece)

    def id(self) -> str:
        """The id, when the text was taken as a whole."""
        h = self._hash.hexdigest()
        return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:32]}"


def next_id(previous_id: str, data: bytes) -> str:
    """The transaction id of the entry `data` that follows the transaction `previous_id`."""
    h = hashlib.sha1(previous_id.encode() + data, usedforsecurity=False).hexdigest()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:32]}"


# The part of an id that states have in common which differ only in what is not stored.
_BASE = 28


def unstored_id(stored_id: str, number: int) -> str:
    """An id of a state that differs from the state `stored_id` only in what is not stored.

    `number` tells it from others. A server that starts again knows the state `stored_id`, and by
    the id knows what a client has that saw this one.
    """
    return f"{stored_id[:_BASE]}{number & 0xFFFFFFFF:08x}"


def base_of(transaction_id: str) -> str:
    """What an id has in common with those of states with the same stored content."""
    return transaction_id[:_BASE]


class Entry:
    """A parsed entry. `json` is the whole of it, `tables` what is not about the entry itself."""

    __slots__ = ("comment", "date_msec", "is_diff", "json", "tables")

    def __init__(self, json: Any) -> None:
        if type(json) is not dict:
            raise OvsdbError("syntax error", "object expected", json)
        self.date_msec: int | None = None
        self.comment: str | None = None
        self.json: dict[str, Any] = json
        self.tables = json.copy()
        self.is_diff = bool(self.tables.pop("_is_diff", False))
        if is_integer(json.get("_date")):
            self.date_msec = int(self.tables.pop("_date"))
        comment = self.tables.pop("_comment", None)
        if type(comment) is str:
            self.comment = comment
