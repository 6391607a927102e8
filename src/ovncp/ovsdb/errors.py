"""Errors of the OVSDB protocol, as clients see them (RFC 7047 section 3.1, "error")."""

from typing import Any

import orjson

_ABSENT: Any = object()

UNKNOWN_TAG = "ovsdb error"


class OvsdbError(Exception):
    """An error that is reported to a client as a JSON object.

    `tag` is the short string that RFC 7047 defines ("constraint violation"), `details` the
    sentence for people, `syntax` the JSON value that was refused, if there is one.
    """

    def __init__(
        self,
        tag: str,
        details: str | None = None,
        syntax: Any = _ABSENT,
        io_error: str | None = None,
    ) -> None:
        super().__init__(tag, details)
        self.tag = tag
        self.details = details
        self.io_error = io_error
        self.syntax = None if syntax is _ABSENT else json_text(syntax)

    def to_json(self) -> dict[str, str]:
        """The `<error>` object of RFC 7047 section 3.1."""
        members = {
            "error": self.tag,
            "details": self.details,
            "syntax": self.syntax,
            "io-error": self.io_error,
        }
        return {name: value for name, value in members.items() if value is not None}

    def __str__(self) -> str:
        syntax = f'syntax "{self.syntax}": ' if self.syntax is not None else ""
        io_error = f" ({self.io_error})" if self.io_error else ""
        details = f": {self.details}" if self.details else ""
        return f"{syntax}{self.tag}{details}{io_error}"


def json_text(value: Any) -> str:
    """`value` as compact JSON with sorted keys, the form that error messages quote."""
    try:
        return orjson.dumps(_with_short_reals(value), option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        # Not valid UTF-8 (lone surrogates stand for the raw bytes), or an integer over 64 bits.
        return _lenient_json_text(value)


def _with_short_reals(value: Any) -> Any:
    # A real has 15 digits, and one that is a whole number is an integer.
    if type(value) is float:
        whole = value.is_integer() and abs(value) < 2**63
        return orjson.Fragment(str(int(value)) if whole else f"{value:.15g}")
    if type(value) is dict:
        return {name: _with_short_reals(member) for name, member in value.items()}
    if type(value) is list:
        return [_with_short_reals(element) for element in value]
    return value


def _lenient_json_text(value: Any) -> str:
    import json

    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def syntax_error(syntax: Any, details: str) -> OvsdbError:
    """An error of the tag "syntax error" about the JSON value `syntax`."""
    return OvsdbError("syntax error", details, syntax)


def constraint_violation(details: str) -> OvsdbError:
    """An error of the tag "constraint violation"."""
    return OvsdbError("constraint violation", details)
