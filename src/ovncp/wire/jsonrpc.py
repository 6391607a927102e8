"""JSON-RPC 1.0 messages, as OVSDB uses them (RFC 7047 section 4).

What a peer's value must look like to be a message, in the C server's words, and how ours are
written.  A member that is null counts as absent.
"""

from enum import Enum
from typing import Any, Final

from ovncp.ovsdb.json_bytes import encode


class Kind(Enum):
    """What a message is."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    REPLY = "reply"
    ERROR = "error"


class InvalidMessage(Exception):
    """A JSON value that is no JSON-RPC message; the text says why, as the C server logs it."""


# The members that a message of each kind must have; it must not have the others.
_MEMBERS = {
    Kind.REQUEST: frozenset(("method", "params", "id")),
    Kind.NOTIFICATION: frozenset(("method", "params")),
    Kind.REPLY: frozenset(("result", "id")),
    Kind.ERROR: frozenset(("error", "id")),
}
_CALL: Final = ("method", "params", "id")  # what nearly all messages have
_ALL = ("method", "params", "result", "error", "id")


def check(message: Any) -> Kind:
    """The kind of `message`. Raises InvalidMessage."""
    if type(message) is not dict:
        raise InvalidMessage("message is not a JSON object")
    has_call = type(message.get("method")) is str and type(message.get("params")) is list
    if has_call and "id" in message and len(message) == len(_CALL):
        return Kind.NOTIFICATION if message["id"] is None else Kind.REQUEST
    return _check_slowly(message)


def _check_slowly(message: dict[str, Any]) -> Kind:
    if "method" in message and type(message["method"]) is not str:
        raise InvalidMessage("method is not a JSON string")
    for name in message:
        if name not in _ALL:
            raise InvalidMessage(f'message has unexpected member "{name}"')
    present = {name for name in _ALL if message.get(name) is not None}
    if "params" in present and type(message["params"]) is not list:
        raise InvalidMessage('"params" must be JSON array')
    kind = _kind(present)
    for name in _ALL:
        if (name in present) != (name in _MEMBERS[kind]):
            negation = "" if name in _MEMBERS[kind] else " not"
            raise InvalidMessage(f'{kind.value} must{negation} have "{name}"')
    return kind


def _kind(present: set[str]) -> Kind:
    if "result" in present:
        return Kind.REPLY
    if "error" in present:
        return Kind.ERROR
    return Kind.REQUEST if "id" in present else Kind.NOTIFICATION


def encode_id(value: Any) -> bytes:
    """The JSON text by which a request is known: 1.0 is the same id as 1."""
    if type(value) is int:
        return b"%d" % value
    is_whole = type(value) is float and value.is_integer() and abs(value) < 2**63
    return encode(int(value) if is_whole else value)


def encode_request(request_id: Any, method: str, params: list[Any]) -> bytes:
    """A request."""
    return encode({"id": request_id, "method": method, "params": params})


def encode_notification(method: str, params: list[Any]) -> bytes:
    """A notification."""
    return encode({"id": None, "method": method, "params": params})


def encode_reply(request_id: Any, result: Any) -> bytes:
    """The answer to a request."""
    return encode({"id": request_id, "result": result, "error": None})


def encode_error(request_id: Any, error: Any) -> bytes:
    """The answer to a request that failed; like the C server's, it has no "result"."""
    return encode({"id": request_id, "error": error})
