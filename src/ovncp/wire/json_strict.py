"""JSON exactly as the C server reads it: what it accepts, refuses, and says (lib/json.c).

Slow and complete, where `ovncp.wire.json_stream` is fast and leaves the odd cases to this.  Its
rules beyond RFC 4627: a text is an object or an array; strings hold no NUL; nesting stops at
1000; a number of integral value within 64 bits is an integer however it is written, any other a
double; bytes of a string that are not UTF-8 are let through (as lone surrogates, Python's
``surrogateescape``), for the check of the atom to name.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from enum import Enum, auto
from typing import Any, Final

MAX_DEPTH: Final = 1000  # of nested arrays and objects

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_SMALLEST_NORMAL = 2.2250738585072014e-308  # strtod() reports a range error below
_EXPONENT_LIMIT = (2**31 - 1) // 10

_TOKEN = re.compile(
    rb"[ \t\n\r]*+(?:"
    rb'([{}\[\]:,])|("(?:[^"\\\x00-\x1f]++|\\.)*+")'
    rb"|([-0-9][-+.0-9eE\x00]*+)|([a-z][A-Za-z]*+))",
    re.DOTALL,
)
_BLANK = re.compile(rb"[ \t\n\r]*+")
_STRING_PREFIX = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\.)*+', re.DOTALL)

_PUNCTUATION, _STRING, _NUMBER, _KEYWORD = 1, 2, 3, 4  # groups of _TOKEN

_KEYWORDS = {b"true": True, b"false": False, b"null": None}

_NUMBER_FORM = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?([0-9]+))?")
_NUMBER_ERRORS = (
    (re.compile(rb"-(?![0-9])"), "'-' must be followed by digit"),
    (re.compile(rb"-?0[0-9]"), "leading zeros not allowed"),
    (re.compile(rb"-?[0-9]+\.(?![0-9])"), "decimal point must be followed by digit"),
    (
        re.compile(rb"-?[0-9]+(?:\.[0-9]+)?[eE][+-]?(?![0-9])"),
        "exponent must contain at least one digit",
    ),
)

_FOUR_HEX = re.compile(rb"[0-9a-fA-F]{4}")
_SIMPLE_ESCAPES = {
    b'"': b'"',
    b"\\": b"\\",
    b"/": b"/",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
}


class JsonError(ValueError):
    """Text that is not JSON to the C server; `completed` is what was read before it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.completed: list[Any] = []


class Incomplete(Exception):
    """The text ends inside a value that more bytes could complete."""


def read_strictly(text: bytes, *, final: bool, trailer: bool) -> tuple[Any, int]:
    """The value at the start of `text` and its length in bytes.

    With `final`, the end of `text` is the end of input; without, it raises `Incomplete`.  With
    `trailer`, only white space may follow the value.  Raises `JsonError` with C's words.
    """
    return _Reader(text, final=final, trailer=trailer).read()


class _State(Enum):
    START = auto()
    END = auto()
    OBJECT_INIT = auto()
    OBJECT_NAME = auto()
    OBJECT_COLON = auto()
    OBJECT_VALUE = auto()
    OBJECT_NEXT = auto()
    ARRAY_INIT = auto()
    ARRAY_VALUE = auto()
    ARRAY_NEXT = auto()


_EXPECTED = {
    _State.START: "syntax error at beginning of input",
    _State.END: "trailing garbage at end of input",
    _State.OBJECT_INIT: "syntax error parsing object expecting string",
    _State.OBJECT_NAME: "syntax error parsing object expecting string",
    _State.OBJECT_COLON: "syntax error parsing object expecting ':'",
    _State.OBJECT_VALUE: "syntax error expecting value",
    _State.OBJECT_NEXT: "syntax error expecting '}' or ','",
    _State.ARRAY_INIT: "syntax error expecting value",
    _State.ARRAY_VALUE: "syntax error expecting value",
    _State.ARRAY_NEXT: "syntax error expecting ']' or ','",
}


class _Reader:
    """A tokenizer and a push-down automaton over one text; `at` is where an error would be."""

    def __init__(self, text: bytes, *, final: bool, trailer: bool) -> None:
        self.text = text
        self.final = final
        self.trailer = trailer
        self.at = 0
        self.added_space = 0  # C ends a number or keyword at the end of input with a space
        self.state = _State.START
        self.stack: list[Any] = []
        self.names: list[str] = []
        self.result: Any = None

    def read(self) -> tuple[Any, int]:
        at = 0
        while match := _TOKEN.match(self.text, at):
            at = match.end()
            kind, value = self._evaluate(match)
            action = _GRAMMAR[self.state].get(kind)
            if action is None:
                raise self.error(_EXPECTED[self.state])
            action(self, value)
            if self.state is _State.END and not self.trailer:
                return self.result, at
        self._stop(at)
        return self.result, len(self.text)

    def error(self, message: str) -> JsonError:
        """`message` at the current place, numbered as the C server does."""
        line = self.text.count(b"\n", 0, self.at)
        column = self.at - (self.text.rfind(b"\n", 0, self.at) + 1)
        return JsonError(f"line {line}, column {column}, byte {self.at}: {message}")

    def _evaluate(self, match: re.Match[bytes]) -> tuple[str, Any]:
        """The token's kind in `_GRAMMAR` and its value."""
        group = match.lastindex
        token = match[group or 0]
        if group == _PUNCTUATION:
            self.at = match.end() - 1
            return chr(token[0]), None
        if group == _STRING:
            self.at = match.end() - 1
            return "string", self._string(token[1:-1])
        self.at = match.end()
        if self.at == len(self.text):
            if not self.final:
                raise Incomplete
            self.added_space = 1
        return "value", self._number(token) if group == _NUMBER else self._keyword(token)

    def _stop(self, at: int) -> None:
        """No token at `at`: the end of the text, or what cannot begin a token."""
        blank = _BLANK.match(self.text, at)
        self.at = at if blank is None else blank.end()
        if self.at < len(self.text):
            self._bad_token(self.text[self.at])
        if not self.final:
            raise Incomplete
        self.at += self.added_space
        if self.state is _State.START:
            raise self.error("empty input stream")
        if self.state is not _State.END:
            raise self.error("unexpected end of input")

    def _bad_token(self, byte: int) -> None:
        prefix = _STRING_PREFIX.match(self.text, self.at)
        if prefix is None:
            shown = f"'{byte:c}'" if 0x20 <= byte < 0x7F else f"U+{byte:04x}"
            raise self.error(f"invalid character {shown}")
        self.at = prefix.end()
        if self.text[self.at : self.at + 1] not in (b"", b"\\"):
            raise self.error(f"U+{self.text[self.at]:04X} must be escaped in quoted string")
        if not self.final:
            raise Incomplete
        self.at = len(self.text)
        raise self.error("unexpected end of input in quoted string")

    def _keyword(self, token: bytes) -> bool | None:
        if token not in _KEYWORDS:
            raise self.error(f"invalid keyword '{token.decode()}'")
        return _KEYWORDS[token]

    def _number(self, token: bytes) -> int | float:
        token = token.partition(b"\0")[0]  # C takes NUL for a digit, then for the number's end
        form = _NUMBER_FORM.fullmatch(token)
        if form is None:
            raise self.error(_number_error(token))
        if int((form[1] or b"")[:-1] or b"0") >= _EXPONENT_LIMIT:
            raise self.error("exponent outside valid range")
        number = _narrow(token)
        if number is None:
            raise self.error("number outside valid range")
        return number

    def _string(self, raw: bytes) -> str:
        if b"\\" in raw:
            try:
                raw = _unescape(raw)
            except _BadEscape as error:
                raise self.error(str(error)) from None
        return raw.decode("utf-8", "surrogateescape")

    # The grammar's actions.

    def push_object(self, _: Any) -> None:
        self._push({}, _State.OBJECT_INIT)

    def push_array(self, _: Any) -> None:
        self._push([], _State.ARRAY_INIT)

    def _push(self, container: Any, state: _State) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise self.error(f"input exceeds maximum nesting depth {MAX_DEPTH}")
        if self.stack:
            self.put(container)
        self.stack.append(container)
        self.state = state

    def put(self, value: Any) -> None:
        top = self.stack[-1]
        if isinstance(top, list):
            top.append(value)
            self.state = _State.ARRAY_NEXT
        else:
            top[self.names.pop()] = value
            self.state = _State.OBJECT_NEXT

    def name(self, value: str) -> None:
        self.names.append(value)
        self.state = _State.OBJECT_COLON

    def colon(self, _: Any) -> None:
        self.state = _State.OBJECT_VALUE

    def next_name(self, _: Any) -> None:
        self.state = _State.OBJECT_NAME

    def next_value(self, _: Any) -> None:
        self.state = _State.ARRAY_VALUE

    def pop(self, _: Any) -> None:
        self.result = self.stack.pop()
        if not self.stack:
            self.state = _State.END
        else:
            in_array = isinstance(self.stack[-1], list)
            self.state = _State.ARRAY_NEXT if in_array else _State.OBJECT_NEXT


_Action = Callable[[_Reader, Any], None]

_VALUE: dict[str, _Action] = {
    "{": _Reader.push_object,
    "[": _Reader.push_array,
    "string": _Reader.put,
    "value": _Reader.put,
}

_GRAMMAR: dict[_State, dict[str, _Action]] = {
    _State.START: {"{": _Reader.push_object, "[": _Reader.push_array},
    _State.END: {},
    _State.OBJECT_INIT: {"string": _Reader.name, "}": _Reader.pop},
    _State.OBJECT_NAME: {"string": _Reader.name},
    _State.OBJECT_COLON: {":": _Reader.colon},
    _State.OBJECT_VALUE: _VALUE,
    _State.OBJECT_NEXT: {",": _Reader.next_name, "}": _Reader.pop},
    _State.ARRAY_INIT: {**_VALUE, "]": _Reader.pop},
    _State.ARRAY_VALUE: _VALUE,
    _State.ARRAY_NEXT: {",": _Reader.next_value, "]": _Reader.pop},
}


def _number_error(token: bytes) -> str:
    for form, message in _NUMBER_ERRORS:
        if form.match(token):
            return message
    return "syntax error in number"


def _narrow(token: bytes) -> int | float | None:
    """The number as C holds it, int64 if it is integral and fits; None if no double is near."""
    exact = Decimal(token.decode())
    if not exact:
        return 0
    if _INT64_MIN <= exact <= _INT64_MAX and exact == int(exact):
        return int(exact)
    real = float(exact)
    return real if _SMALLEST_NORMAL <= abs(real) < float("inf") else None


class _BadEscape(Exception):
    """A backslash sequence that C refuses."""


def _unescape(raw: bytes) -> bytes:
    """A quoted string's bytes with its escapes replaced."""
    pieces = []
    at = 0
    while (slash := raw.find(b"\\", at)) >= 0:
        pieces.append(raw[at:slash])
        letter = raw[slash + 1 : slash + 2]
        at = slash + 2
        if letter == b"u":
            code, at = _code_point(raw, at)
            pieces.append(chr(code).encode("utf-8", "surrogatepass"))
        elif letter in _SIMPLE_ESCAPES:
            pieces.append(_SIMPLE_ESCAPES[letter])
        else:
            raise _BadEscape(f"bad escape \\{letter.decode('ascii', 'backslashreplace')}")
    return b"".join((*pieces, raw[at:]))


def _code_point(raw: bytes, at: int) -> tuple[int, int]:
    """The code point written from `at`, past its ``\\u``, and where it ends."""
    high = _four_hex(raw, at)
    at += 4
    if not 0xD800 <= high <= 0xDBFF:
        return high, at  # a lone trailing surrogate too, as bytes that are no UTF-8
    if raw[at : at + 2] != b"\\u":
        raise _BadEscape("malformed escaped surrogate pair")
    low = _four_hex(raw, at + 2)
    if not 0xDC00 <= low <= 0xDFFF:
        raise _BadEscape("second half of escaped surrogate pair is not trailing surrogate")
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00), at + 6


def _four_hex(raw: bytes, at: int) -> int:
    if at + 4 > len(raw):
        raise _BadEscape("quoted string ends within \\u escape")
    if not _FOUR_HEX.match(raw, at):
        raise _BadEscape("malformed \\u escape")
    value = int(raw[at : at + 4], 16)
    if not value:
        raise _BadEscape("null bytes not supported in quoted strings")
    return value
