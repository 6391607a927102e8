"""Answers to GET: one row, or a page of rows, from the replica."""

import re
from collections.abc import Iterable, Sequence
from functools import partial
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import Response

from ovncp.api.call import Call
from ovncp.api.location import Location
from ovncp.api.platform import Platform
from ovncp.api.problem import Problem
from ovncp.ovn import filters, listing, names
from ovncp.ovn.filters import Filter
from ovncp.ovn.listing import Question
from ovncp.ovn.replica import Replica
from ovncp.ovn.resources import BY_NAME
from ovncp.ovn.rows import Rows, encode
from ovncp.ovn.southbound import FIELD_SCHEMAS, FIELDS, FILTERS
from ovncp.ovn.tenancy import View
from ovncp.ovn.values import Unresolved, refuse
from ovncp.ovn.write import Place
from ovncp.ovsdb.row import Row
from ovncp.ovsdb.schema import VERSION, format_uuid

DEFAULT_LIMIT = 100
MOST_LIMIT = 1000
AGE = "OVN-Age"

_JSON = "application/json"
_TAG = r'(?:W/)?"[^"]*"'
_TAGS = re.compile(rf"[\s,]*{_TAG}(?:\s*,[\s,]*{_TAG})*[\s,]*")
_EACH_TAG = re.compile(_TAG)
_WHOLE = re.compile("-?[0-9]+")


def rows_of(platform: Platform, location: Location) -> tuple[Replica, Rows]:
    """The rows that a path is about, and whose they are. Raises Problem."""
    replica = platform.replicas[location.resource.database]
    rows = replica.rows.get(location.resource.table)
    if rows is not None:
        return replica, rows
    raise Problem("not-found", f"{replica.name} has no table {location.resource.table}")


def etag(row: Row) -> str:
    """The entity tag of a row: its version."""
    return f'"{format_uuid(row.values[VERSION])}"'


def tags(header: str) -> list[str] | None:
    """The entity tags in a header as they are, None for `*`, any (RFC 9110 section 13.1).

    Raises Problem.
    """
    if header.strip() == "*":
        return None
    if not _TAGS.fullmatch(header):
        raise Problem("bad-request", f'{header!r} is not entity tags, such as "...", nor *')
    return _EACH_TAG.findall(header)


def given_tags(request: Request, name: str) -> str | None:
    """What a request has in a header of entity tags, which may come in several lines."""
    lines = request.headers.getlist(name)
    return ", ".join(lines) if lines else None


def is_known(tag: str, header: str) -> bool:
    """Whether `tag` is among those of a header, by weak comparison (RFC 9110 section 8.8.3.2)."""
    known = [each.removeprefix("W/") for each in _EACH_TAG.findall(header)]
    return tag in known or header.strip() == "*"


def one(call: Call, location: Location) -> Response:
    """The row that `location` names. Raises Problem."""
    request = call.request
    replica, rows = rows_of(call.platform, location)
    row = find(replica, location, call.view)
    headers = {AGE: f"{replica.age:.3f}"}
    if location.resource.name not in FIELDS:  # which may change while the row does not
        headers["ETag"] = etag(row)
        known = given_tags(request, "if-none-match")
        if known is not None and is_known(headers["ETag"], known):
            return Response(status_code=304, headers=headers)
    query = parse_qsl(request.url.query, keep_blank_values=True)
    for name, _ in query:
        if name != "fields":
            raise refuse(name, "unknown", "one row is asked for: only `fields` makes sense")
    shape = Shape(replica, rows, location, dict(query).get("fields"))
    return Response(shape.text(row), headers=headers, media_type=_JSON)


def find(replica: Replica, location: Location, view: View) -> Row:
    """The row that `location` names. Raises Problem."""
    assert location.target is not None
    try:
        row = names.find(replica, location.resource.table, location.target, view.sees)
        if location.place is None or row.uuid in members(replica, location.place, view):
            return row
    except Unresolved as error:
        raise Problem("not-found", str(error)) from error
    text = f"{location.place.text!r} has no {location.resource.singular} {location.target!r}"
    raise Problem("not-found", text)


def members(replica: Replica, place: Place, view: View) -> Sequence[str]:
    """The uuids of the rows in `place`. Raises Unresolved."""
    table = BY_NAME[place.parent.resource].table
    row = names.find(replica, table, place.text, view.sees)
    column = replica.rows[table].table.columns[place.parent.column]
    found: Sequence[str] = row.values[column.index]
    return found


class Shape:
    """What of a row is shown: all of it, or the fields that a text with commas names.

    Raises Invalid.
    """

    def __init__(self, replica: Replica, rows: Rows, location: Location, text: str | None) -> None:
        self._replica = replica
        self._rows = rows
        self._more = FIELDS.get(location.resource.name)
        self._wanted = None if text is None else text.split(",")
        known = {*rows.table.columns, *FIELD_SCHEMAS.get(location.resource.name, ())}
        for name in self._wanted or ():
            if name not in known:
                raise refuse("fields", "unknown", f"{rows.table.name} has no column {name!r}")

    def text(self, row: Row) -> bytes:
        """The JSON text of `row`."""
        if self._wanted is None and self._more is None:
            return self._rows.json(row)
        if self._more is None:
            return encode(self._rows.object(row.values, self._wanted))
        whole = self._rows.object(row.values) | self._more(self._replica, self._rows, row)
        return encode(whole if self._wanted is None else {n: whole[n] for n in self._wanted})


async def several(call: Call, location: Location) -> Response:
    """A page of the rows that `location` names. Raises Problem, Invalid."""
    request = call.request
    replica, rows = rows_of(call.platform, location)
    asked = Asked(replica, rows, location, request.url.query, call.view)
    among = _among(replica, location, call.view)
    page = await listing.page(rows, asked.question, among)
    members = [b'{"items":[', b",".join([asked.shape.text(row) for row in page.rows])]
    members.append(b'],"next":' + encode(page.cursor))
    if asked.counts:
        again = _among(replica, location, call.view)
        n_rows = await listing.count(rows, asked.question.filters, again)
        members.append(b',"count":%d' % n_rows)
    members.append(b"}")
    headers = {AGE: f"{replica.age:.3f}"}
    if page.cursor is not None:
        query = [pair for pair in asked.query if pair[0] != "cursor"]
        query.append(("cursor", page.cursor))
        headers["Link"] = f'<{request.url.path}?{urlencode(query)}>; rel="next"'
    return Response(b"".join(members), headers=headers, media_type=_JSON)


def _among(replica: Replica, location: Location, view: View) -> Iterable[Row] | None:
    """The rows to look among; None is the whole table."""
    if location.place is None:
        return None
    rows = replica.rows[location.resource.table]
    try:
        uuids = members(replica, location.place, view)
    except Unresolved as error:
        raise Problem("not-found", str(error)) from error
    return [row for uuid in uuids if (row := rows.get(uuid)) is not None]


class Asked:
    """A query, understood: which rows, in which order, and what of them."""

    def __init__(
        self, replica: Replica, rows: Rows, location: Location, text: str, view: View
    ) -> None:
        self.query = parse_qsl(text, keep_blank_values=True)
        own: dict[str, str] = {}
        found: list[Filter] = []
        if view.tenant is not None:
            found.append(_of_tenant(rows, view))
        for name, value in self.query:
            if name in ("limit", "cursor", "sort", "fields", "count"):
                own[name] = value
            elif name == "q":
                found.append(filters.having_text(rows, value))
            elif (location.resource.name, name) in FILTERS:
                own_filter = FILTERS[location.resource.name, name]
                found.append(own_filter(replica, rows, value, view.sees))
            else:
                found.append(filters.parse(replica, rows, name, value, view.sees))
        self.shape = Shape(replica, rows, location, own.get("fields"))
        self.counts = _boolean("count", own.get("count", "false"))
        orders = listing.parse_orders(rows, own.get("sort", _usual_order(rows, location)))
        self.question = Question(found, orders, _limit(own.get("limit")), own.get("cursor"))


def _of_tenant(rows: Rows, view: View) -> Filter:
    sees = partial(view.sees, rows)
    if view.all(rows) is None:
        return Filter(sees)
    return Filter(sees, lambda: iter(view.all(rows) or ()))


def _usual_order(rows: Rows, location: Location) -> str:
    wanted = location.resource.order
    return wanted if wanted in rows.table.columns else "_uuid"


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not _WHOLE.fullmatch(text):
        raise refuse("limit", "type", "a whole number is wanted")
    limit = int(text[:9])  # which Python refuses to read of thousands of digits
    if not 1 <= limit <= MOST_LIMIT:
        rule = "minimum" if limit < 1 else "maximum"
        raise refuse("limit", rule, f"from 1 to {MOST_LIMIT} is wanted")
    return limit


def _boolean(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise refuse(name, "type", "true or false is wanted")
    return text == "true"
