"""Errors as clients see them: `application/problem+json` (RFC 9457).

What went wrong is translated here, once, from the exceptions of the parts below. `type` is what a
program goes by; `errors` has the fields that are wrong, and the rules that they break.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response

from ovncp.auth.errors import (
    BadData,
    BadToken,
    BadValue,
    Conflict,
    DatabaseUnavailable,
    NoSuch,
    OutcomeUnknown,
    ProviderUnavailable,
    Refused,
    TooManyTries,
)
from ovncp.auth.errors import Taken as NameTaken
from ovncp.cluster.base import Unavailable
from ovncp.cluster.sessions import NoSuchNode, NoSuchSession
from ovncp.ovn.draft import Gone, Stale, Taken, Unmet
from ovncp.ovn.session import SessionLost
from ovncp.ovn.values import Invalid, Mistake
from ovncp.ovn.writer import Rejected

MEDIA_TYPE = "application/problem+json"
_TYPE = "urn:ovncp:problem:"

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    428: "Precondition Required",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

KINDS = {
    "bad-request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "quota": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "conflict": 409,
    "in-use": 409,
    "key-in-use": 409,
    "stale": 412,
    "too-large": 413,
    "unsupported-media-type": 415,
    "invalid": 422,
    "rejected": 422,
    "too-many-requests": 429,
    "error": 500,
    "database-refuses": 502,
    "database-unreachable": 503,
    "unavailable": 503,
    "outcome-unknown": 503,
    "timeout": 504,
}
"""The kinds of problems, as the end of their `type`, with the status of each."""


class Wrong(BaseModel):
    """A field that is wrong."""

    field: str = Field(examples=["tag"])
    rule: str = Field(examples=["maximum"], description="In the words of JSON Schema.")
    detail: str


class ProblemDetails(BaseModel):
    """What is wrong (RFC 9457)."""

    type: str = Field(examples=["urn:ovncp:problem:invalid"], description="For programs.")
    title: str
    status: int
    detail: str = Field(description="For people.")
    errors: list[Wrong] = []
    request_id: str = ""


class Problem(Exception):
    """What a client is told; `kind` is one of KINDS."""

    def __init__(
        self,
        kind: str,
        detail: str,
        errors: Sequence[Mistake] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status = KINDS[kind]
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})

    def to_json(self) -> dict[str, Any]:
        """The problem object."""
        members: dict[str, Any] = {
            "type": _TYPE + self.kind,
            "title": _TITLES[self.status],
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            members["errors"] = [mistake._asdict() for mistake in self.errors]
        return members


class NotAllowed(Problem):
    """Who asks may not do that; a write that they tried is for the audit trail.

    `operation` is the one of many that it is about: its method, and its path below /api/v1.
    """

    def __init__(self, detail: str) -> None:
        super().__init__("forbidden", detail)
        self.operation: tuple[str, str] | None = None


_REJECTIONS = {
    "constraint violation": "conflict",
    "referential integrity violation": "in-use",
    "duplicate uuid": "conflict",
    "permission error": "database-refuses",
    "not allowed": "database-refuses",
    "I/O error": "database-unreachable",
    "resources exhausted": "database-unreachable",
    "canceled": "database-unreachable",
}


_OF_ACCOUNTS_AND_NODES: dict[type[Exception], str] = {
    BadValue: "invalid",
    BadData: "invalid",
    ClientDisconnect: "bad-request",
    Conflict: "conflict",
    NoSuch: "not-found",
    NameTaken: "conflict",
    Refused: "conflict",
    NoSuchSession: "not-found",
    NoSuchNode: "not-found",
    BadToken: "unauthorized",
    TooManyTries: "too-many-requests",
    DatabaseUnavailable: "unavailable",
    ProviderUnavailable: "unavailable",
    Unavailable: "unavailable",
    OutcomeUnknown: "outcome-unknown",
}
_RETRY = {"Retry-After": "1"}


def _of_accounts_and_nodes(error: Exception) -> Problem | None:
    for kind, name in _OF_ACCOUNTS_AND_NODES.items():
        if isinstance(error, kind):
            mistakes, headers = [], _RETRY if KINDS[name] == 503 else {}
            if isinstance(error, BadValue):
                mistakes = [Mistake(error.field, "value", error.text)]
            if isinstance(error, TooManyTries):
                headers = {"Retry-After": f"{math.ceil(error.wait_s)}"}
            return Problem(name, str(error), mistakes, headers)
    return None


def of(error: Exception) -> Problem | None:
    """The problem that `error` is, if it is one that is foreseen."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Invalid):
        fields = ", ".join(m.field or "the request" for m in error.mistakes)
        return Problem("invalid", f"not valid: {fields}", error.mistakes)
    if isinstance(error, Unmet):
        kinds: dict[type[Unmet], str] = {Gone: "not-found", Stale: "stale", Taken: "conflict"}
        return Problem(kinds.get(type(error), "conflict"), str(error))
    if isinstance(error, Rejected):
        return Problem(_REJECTIONS.get(error.tag, "rejected"), str(error))
    if isinstance(error, SessionLost):
        if error.sent:
            text = f"{error}: what was asked for may have been done or not"
            return Problem("outcome-unknown", text)
        return Problem("database-unreachable", str(error), headers=_RETRY)
    return _of_accounts_and_nodes(error)


def response(problem: Problem, request: HTTPConnection) -> Response:
    """The answer that tells of `problem`."""
    members = problem.to_json()
    request_id = request.scope.get("request_id")
    if request_id is not None:
        members["request_id"] = request_id
    return Response(orjson.dumps(members), problem.status, problem.headers, media_type=MEDIA_TYPE)


async def on_known(request: Request, error: Exception) -> Response:
    """Answer to an exception of those that `of` knows."""
    problem = of(error)
    assert problem is not None
    return response(problem, request)


async def on_http(request: Request, error: Exception) -> Response:
    """Answer to what the framework refuses."""
    assert isinstance(error, HTTPException)
    kinds = {status: kind for kind, status in reversed(KINDS.items())}
    words = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not for this path",
    }
    detail = words.get(error.status_code, str(error.detail))
    problem = Problem(kinds.get(error.status_code, "bad-request"), detail)
    problem.headers = dict(error.headers or {})
    return response(problem, request)


async def on_invalid(request: Request, error: Exception) -> Response:
    """Answer to a body or parameter that is not what the route declares."""
    assert isinstance(error, RequestValidationError)
    mistakes = [
        Mistake(".".join(map(str, each["loc"][1:])), each["type"], each["msg"])
        for each in error.errors()
    ]
    return response(Problem("invalid", "not valid", mistakes), request)


KNOWN: tuple[type[Exception], ...] = (
    Problem,
    Invalid,
    Unmet,
    Rejected,
    SessionLost,
    *_OF_ACCOUNTS_AND_NODES,
)
