"""Answers to POST, PATCH and DELETE of a resource: one write, executed together with others."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, quote

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ovncp.api import reading, sight
from ovncp.api.call import Call
from ovncp.api.execution import execute
from ovncp.api.idempotency import LONGEST_KEY, Answer, fingerprint_of, uuid_for
from ovncp.api.location import DATABASES, PREFIX, RAW, Location
from ovncp.api.problem import Problem
from ovncp.ovn.barrier import LEVELS
from ovncp.ovn.rows import encode
from ovncp.ovn.values import refuse
from ovncp.ovn.write import CHANGE, CREATE, DELETE, Write, Written

JSON = "application/json"
CAUGHT_UP = "OVN-Caught-Up"
KEY = "idempotency-key"
DEFAULT_WAIT_SECONDS = 30.0
MOST_WAIT_SECONDS = 600.0

_ACTIONS = {"POST": CREATE, "PATCH": CHANGE, "DELETE": DELETE}
_MEDIA_TYPES = (JSON, "application/merge-patch+json")


def parse_body(request: Request, body: bytes) -> Any:
    """The JSON value in the body. Raises Problem."""
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if kind not in _MEDIA_TYPES:
        raise Problem("unsupported-media-type", f"{JSON} is wanted, not {kind}")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem("bad-request", f"the body is not JSON: {error}") from error


def write_of(
    method: str,
    location: Location,
    body: Any,
    if_match: str | None = None,
    uuid: str | None = None,
    name: str | None = None,
) -> Write:
    """The write that a request asks for. Raises Problem, Invalid."""
    action = _ACTIONS[method]
    if location.resource.is_read_only:
        raise _not_allowed(f"{location.resource.name} can only be read")
    if (action == CREATE) != (location.target is None):
        others = ("POST",) if location.target is None else ("PATCH", "DELETE")
        raise _not_allowed(f"{method} is not for this path", *others)
    if action == CREATE and if_match is not None:
        raise Problem("bad-request", "If-Match is for a row that is there already")
    if action != DELETE and type(body) is not dict:
        raise refuse("", "type", "an object is wanted")
    return Write(
        action,
        location.resource,
        location.target,
        location.place,
        body if action != DELETE else {},
        None if if_match is None else _versions(if_match),
        uuid if action == CREATE else None,
        name,
    )


def _not_allowed(text: str, *others: str) -> Problem:
    """The path is for reading, and for `others` perhaps (RFC 9110 section 15.5.6)."""
    headers = {"Allow": ", ".join(("GET", "HEAD", *others))}
    return Problem("method-not-allowed", text, headers=headers)


def _versions(if_match: str) -> frozenset[str] | None:
    """The versions that a row may have, None for any; weak tags are nobody's here (RFC 9110
    section 13.1.1). Raises Problem.
    """
    found = reading.tags(if_match)
    return None if found is None else frozenset(tag[1:-1] for tag in found if tag[0] == '"')


async def once(
    call: Call, work: Callable[[bytes, str | None], Awaitable[Answer]], body: bytes
) -> Response:
    """The answer that `work` gives, of the body and the idempotency key, or gave before."""
    request = call.request
    key = request.headers.get(KEY)
    if key is None:
        return _response(await work(body, None))
    if not 1 <= len(key) <= LONGEST_KEY:
        raise Problem("bad-request", f"a key has from 1 to {LONGEST_KEY} characters")
    keys, principal_id = call.platform.keys, call.principal.id
    url = request.url
    whose = call.principal.tenant or ""
    fingerprint = fingerprint_of(request.method, f"{url.path}?{url.query} {whose}", body)
    known = await keys.take(principal_id, key, fingerprint)
    if known is not None:
        # Another node may have given it, and this one must have come as far to say so.
        await call.platform.sight.catch_up(principal_id, sight.shown_by(request))
        sight.give_mark(request)
        return _response(known)
    try:
        answer = await work(body, key)
    except BaseException:
        await keys.give_back(principal_id, key)
        raise
    await keys.keep(principal_id, key, fingerprint, answer)
    return _response(answer)


def _response(answer: Answer) -> Response:
    media_type = JSON if answer.body else None
    return Response(answer.body, answer.status, answer.headers, media_type=media_type)


async def write(call: Call, location: Location) -> Response:
    """Do what the request asks for, and tell of the row. Raises what `problem.of` knows."""
    reading.rows_of(call.platform, location)
    request = call.request
    level, seconds = _wait_of(request.url.query)
    if level is not None:
        call.platform.barrier.check()

    async def work(body: bytes, key: str | None) -> Answer:
        value = None if request.method == "DELETE" else parse_body(request, body)
        uuid = None if key is None else uuid_for(call.principal.id, key, 0)
        if_match = reading.given_tags(request, "if-match")
        wanted = write_of(request.method, location, value, if_match, uuid)
        (written,) = await execute(call, [wanted])
        answer = told(call, location, written)
        if level is None:
            return answer
        with call.platform.spans.step("wait"):
            caught_up = await call.platform.barrier.seen(level, seconds)
        headers = answer.headers | {CAUGHT_UP: str(caught_up).lower()}
        return Answer(answer.status if caught_up else 202, headers, answer.body)

    return await once(call, work, await request.body())


def _wait_of(query: str) -> tuple[str | None, float]:
    """What a query says to wait for, and for how long. Raises Invalid."""
    level, seconds = None, DEFAULT_WAIT_SECONDS
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name == "wait":
            if text not in ("none", *LEVELS):
                raise refuse("wait", "enum", f"{text!r} is none of none, {', '.join(LEVELS)}")
            level = None if text == "none" else text
        elif name == "timeout":
            seconds = _seconds(text)
        else:
            raise refuse(name, "unknown", "a write takes `wait` and `timeout`")
    return level, seconds


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise refuse("timeout", "type", "a number of seconds is wanted") from error
    if not 0 <= seconds <= MOST_WAIT_SECONDS:
        rule = "minimum" if seconds < 0 else "maximum"
        raise refuse("timeout", rule, f"from 0 to {MOST_WAIT_SECONDS:g} seconds")
    return seconds


def told(call: Call, location: Location, written: Written) -> Answer:
    """What a client is told of a write."""
    if written.action == DELETE:
        return Answer(204, {}, b"")
    rows = call.platform.nb.rows[written.resource.table]
    row = rows.get(written.uuid)
    status = 201 if written.action == CREATE else 200
    headers: dict[str, str] = {}
    if written.action == CREATE:
        headers["Location"] = path_of(location, written.uuid)
    if row is None:  # somebody deleted it in the meantime
        return Answer(status, headers, encode({"_uuid": written.uuid}))
    headers["ETag"] = reading.etag(row)
    return Answer(status, headers, rows.json(row))


def path_of(location: Location, uuid: str) -> str:
    """Where the row `uuid` of a resource is to be found."""
    resource = location.resource
    if location.is_raw:
        short = next(name for name, database in DATABASES.items() if database == resource.database)
        return f"{PREFIX}/{RAW}/{short}/{quote(resource.table)}/{uuid}"
    return f"{PREFIX}/{resource.name}/{uuid}"
