"""Rows a page at a time: filtered, in an order, from where the last page ended.

A cursor holds what the last row of a page was ordered by, so that the next page goes on there,
whatever was added or deleted meanwhile, and whichever node is asked. Long scans are done in slices,
between which others have their turn.
"""

import asyncio
import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

import orjson

from ovncp.ovn.filters import Filter
from ovncp.ovn.order import joined_key, sort_key
from ovncp.ovn.rows import Rows
from ovncp.ovn.values import refuse
from ovncp.ovsdb.row import Row
from ovncp.ovsdb.schema import VERSION, Column

_FEW = 2_000  # rows that are rather sorted than looked for in an order,
_FEW_OF = 20  # or a part of the table: of more, a page is full before long
_SLICE = 2_000
_STEPS = 10  # of an index that is new, at once

Orders = Sequence[tuple[Column, bool]]
"""What rows are ordered by, and whether from the greatest on."""


@dataclass(frozen=True)
class Question:
    """Which rows of a table are asked for."""

    filters: Sequence[Filter]
    orders: Orders
    limit: int
    cursor: str | None = None


@dataclass(frozen=True)
class Page:
    """The rows of a page; `cursor` is None for the last one."""

    rows: Sequence[Row]
    cursor: str | None


def parse_orders(rows: Rows, text: str) -> Orders:
    """The orders that `-priority,name` asks for. Raises Invalid."""
    orders: list[tuple[Column, bool]] = []
    for word in text.split(","):
        column = rows.table.columns.get(word.removeprefix("-"))
        if column is None or column.index == VERSION:
            raise refuse("sort", "unknown", f"{rows.table.name} has no column {word!r} to sort by")
        orders.append((column, word.startswith("-")))
    return orders


async def page(rows: Rows, question: Question, among: Iterable[Row] | None = None) -> Page:
    """The rows that are asked for, of those few `among` which they are; None is the whole table.

    Raises Invalid for a cursor that is not of such a question.
    """
    after = _parse_cursor(question)
    await _prepare(question.filters)
    try:
        few = _few(rows, question, among)
        if few is None:
            found = await _in_order(rows, question, after)
        else:
            found = _sorted(_meeting(few, question.filters), question, after)
    except TypeError as error:  # the cursor has values that are not of the columns' types
        raise refuse("cursor", "format", "this is no cursor of such a list") from error
    more = len(found) > question.limit
    found = found[: question.limit]
    return Page(found, _cursor(question, found[-1]) if more else None)


async def count(rows: Rows, filters: Sequence[Filter], among: Iterable[Row] | None = None) -> int:
    """How many rows meet all filters."""
    if not filters and among is None:
        return len(rows)
    await _prepare(filters)
    lookups = [f.lookup for f in filters if f.lookup is not None]
    several = list(among if among is not None else rows.values())
    if among is None and lookups:
        several = list({row.uuid: row for row in lookups[0]()}.values())
    n_found = 0
    for start in range(0, len(several), _SLICE):
        n_found += sum(1 for _ in _meeting(several[start : start + _SLICE], filters))
        await asyncio.sleep(0)
    return n_found


async def _prepare(filters: Sequence[Filter]) -> None:
    for each in filters:
        steps = iter(()) if each.prepare is None else each.prepare()
        for number, _ in enumerate(steps):
            if number % _STEPS == 0:
                await asyncio.sleep(0)


def _few(rows: Rows, question: Question, among: Iterable[Row] | None) -> Sequence[Row] | None:
    """Rows that hold all that are asked for, if these are few enough to sort, or given."""
    if among is not None:
        return list(among)
    most = max(_FEW, len(rows) // _FEW_OF)
    for each in question.filters:
        if each.lookup is not None:
            found = list(islice(each.lookup(), most + 1))
            if len(found) <= most:
                return list({row.uuid: row for row in found}.values())
    return None


def _meeting(rows: Iterable[Row], filters: Sequence[Filter]) -> Iterator[Row]:
    tests = [each.test for each in filters]
    return (row for row in rows if all(test(row) for test in tests))


async def _in_order(rows: Rows, question: Question, after: list[Any] | None) -> Sequence[Row]:
    """By going through the table in its order, until the page is full."""
    descending = question.orders[0][1]
    columns = tuple((column, other != descending) for column, other in question.orders)
    order = await rows.order(columns)
    key = None if after is None else (joined_key(after[:-1], columns), after[-1])
    wanted = question.limit + 1
    found: list[Row] = []
    n_rows = wanted
    while len(found) < wanted:
        keys = order.page(key, n_rows, descending=descending)
        known = (rows.get(uuid) for _, uuid in keys)
        found += _meeting((row for row in known if row is not None), question.filters)
        if len(keys) < n_rows:
            break
        key, n_rows = keys[-1], _SLICE
        await asyncio.sleep(0)
    return found[:wanted]


def _sorted(rows: Iterable[Row], question: Question, after: list[Any] | None) -> Sequence[Row]:
    """By sorting all, and the place where the last page ended among them."""
    keys = [sort_key(column) for column, _ in question.orders]
    entries: list[tuple[Any, ...]] = [
        (*(key(row.values) for key in keys), row.uuid, row) for row in rows
    ]
    if after is not None:
        entries.append((*after, None))
    entries.sort(key=lambda entry: entry[-2], reverse=question.orders[0][1])
    for place, (_, descending) in reversed(list(enumerate(question.orders))):
        entries.sort(key=itemgetter(place), reverse=descending)
    ordered = [entry[-1] for entry in entries]
    # The last row of the last page, if it is there still, was before its mark already.
    start = 0 if after is None else ordered.index(None) + 1
    return ordered[start : start + question.limit + 1]


# Cursors


def _spec(orders: Orders) -> str:
    return ",".join(f"{'-' if descending else ''}{column.name}" for column, descending in orders)


def _cursor(question: Question, row: Row) -> str:
    keys = [sort_key(column)(row.values) for column, _ in question.orders]
    text = orjson.dumps([_spec(question.orders), *keys, row.uuid])
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _parse_cursor(question: Question) -> list[Any] | None:
    """What the last row of the last page was ordered by, with its uuid. Raises Invalid."""
    text = question.cursor
    if text is None:
        return None
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        spec, *keys = orjson.loads(data)
    except (ValueError, TypeError, binascii.Error) as error:
        raise refuse("cursor", "format", "this is no cursor") from error
    if spec != _spec(question.orders) or len(keys) != len(question.orders) + 1:
        raise refuse("cursor", "order", "this is the cursor of another order")
    return [_hashable(key) for key in keys]


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if type(value) is list else value
