"""JSON text in, JSON values out, message by message (RFC 7047 section 4, RFC 4627).

OVSDB peers send JSON values one after another with nothing between them, so the reader itself
has to find where each ends.  Well-formed text is left to orjson; what is asked here is only
where to cut.  Two cuts cover nearly all traffic: a chunk is whole messages (cut at ``}{``), or
it is a piece of one big message (its *outline*, the brackets and quotes left when all else is
deleted in C, says whether the message ends).  Every byte is looked at a bounded number of times.

Whatever orjson refuses, and what it would decide differently from the C server (``\\u0000``,
nesting over 1000, integers beyond 64 bits), is decided by the strict reader in
`ovncp.wire.json_strict`, which has the C server's rules and its error strings.  Two things about
numbers are not found here, since looking for them would cost more than reading them: C takes a
number of integral value for an integer (``1.0`` is 1, ``-0.0`` is 0), orjson gives a float, which
the check of the atom has to narrow; and C refuses denormal doubles, which are let through.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import orjson

from ovncp.wire.json_strict import MAX_DEPTH, Incomplete, JsonError, read_strictly

__all__ = ["JsonError", "JsonStream", "parse"]

_ORJSON_DEPTH = 1024
_PAD: Final = _ORJSON_DEPTH - MAX_DEPTH
_OPEN, _CLOSE = b"[" * _PAD, b"]" * _PAD
_SHALLOW_BYTES: Final = 2 * MAX_DEPTH  # a shorter text cannot nest deeper than MAX_DEPTH

_DIGITS_TO_ZERO: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_BEYOND_INT64: Final = re.compile(rb"9[2-9][0-9]{17}|[1-9][0-9]{19}")

_NOT_OUTLINE = bytes(byte for byte in range(256) if byte not in b'"{}[],')
_BOUNDARIES = (b"}{", b"}[", b"]{", b"][")  # one message's end against the next one's start
_HIDDEN_END = re.compile(rb"[]}],")  # of a message, perhaps, with junk behind it
_MARK = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)
_RISES = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}  # of nesting
_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)

_RETRY_BYTES: Final = 4096  # an unfinished message up to this size is simply looked at again
_CHECK_GROWTH = 8  # a longer one is checked for errors each time it has grown so many times


def parse(text: bytes | str) -> Any:
    """The one JSON object or array in `text`, as files and command lines have them.

    Raises `JsonError` with the C server's message.
    """
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    try:
        value = _read_fast(data)
    except ValueError:
        return read_strictly(data, final=True, trailer=True)[0]
    if not isinstance(value, (dict, list)):
        return read_strictly(data, final=True, trailer=True)[0]  # refused, with C's words
    return value


def pieces(data: bytes, n_bytes: int) -> Iterator[bytes]:
    """`data` in pieces of `n_bytes` or more, which end where a message seems to end."""
    start = 0
    while len(data) - start > n_bytes:
        end = data.find(b"}{", start + n_bytes) + 1
        if not end:
            break
        yield data[start:end]
        start = end
    yield data[start:] if start else data


class JsonStream:
    """Cuts one peer's bytes into JSON values; a message may have at most `max_bytes`.

    One of `raw_bytes` or more comes as it is, as bytes, whose brackets are balanced and no more.
    """

    __slots__ = (
        "_check_at",
        "_depth",
        "_escape",
        "_in_string",
        "_max_bytes",
        "_pieces",
        "_raw_bytes",
        "_size",
    )

    def __init__(self, max_bytes: int, raw_bytes: int | None = None) -> None:
        self._max_bytes = max_bytes
        self._raw_bytes = max_bytes + 1 if raw_bytes is None else raw_bytes
        self._forget()

    def _forget(self) -> None:
        """Between messages: no piece is kept."""
        self._pieces: list[bytes] = []
        self._size = 0
        self._depth = 0
        self._in_string = False
        self._escape = False
        self._check_at = 0

    @property
    def pending_bytes(self) -> int:
        """How much of an unfinished message is held."""
        return self._size

    def feed(self, data: bytes) -> list[Any]:
        """The values that `data` completes, in order.

        Raises `JsonError`, whose `completed` holds the values before the error; the stream is
        of no more use then.
        """
        if not data:
            return []
        if not self._size:
            return self._begin(data)
        if self._size <= _RETRY_BYTES:
            data = b"".join((*self._pieces, data))
            self._forget()
            return self._begin(data)
        return self._absorb(data)

    def _begin(self, data: bytes) -> list[Any]:
        """Reads `data` from a message's first byte: whole messages first, then the rest."""
        if data[:1] != b"{" or len(data) > self._max_bytes or _is_odd(data):
            return self._absorb(data)
        texts = [data] if b"}{" not in data else _cut(data)
        values: list[Any] = []
        try:
            for text in texts:
                values.append(_loads(text))
        except ValueError:
            return self._after(values, b"".join(texts[len(values) :]))
        return values

    def _after(self, values: list[Any], rest: bytes) -> list[Any]:
        """`values` and those in `rest`; an error in `rest` must not lose the former."""
        try:
            return values + self._absorb(rest)
        except JsonError as error:
            error.completed[:0] = values
            raise

    def _absorb(self, data: bytes) -> list[Any]:
        """Adds `data` to the unfinished message, whose end shows in the outline."""
        outside, in_string, escape = self._outline(data)
        depth = self._depth + _rise(outside)
        several = any(map(outside.__contains__, _BOUNDARIES))
        ends = depth <= 0 and (self._depth > 0 or outside.strip(b",") != b"")
        if ends and not several:
            try:
                return [self._whole(data)]
            except ValueError:
                several = True  # a message and junk, or an odd one
        if several:
            return self._resume(data) if self._size else self._walk(data)
        if not self._size and len(data) <= _RETRY_BYTES and _HIDDEN_END.search(outside):
            return self._walk(data)
        self._keep(data, outside, in_string, escape)
        return []

    def _whole(self, data: bytes) -> Any:
        """The unfinished message's value, if `data` is exactly its rest; else ValueError."""
        text = b"".join((*self._pieces, data))
        self._check_size(len(text))
        value = text if len(text) >= self._raw_bytes else _read_fast(text)
        self._forget()
        return value

    def _resume(self, data: bytes) -> list[Any]:
        """Ends the unfinished message at the first ``}{``; what follows is read as from the start.

        That the cut was right shows in what it ends being well-formed, which is not known of a
        message that is not read here.
        """
        end = data.find(b"}{") + 1
        if not end or self._size + end >= self._raw_bytes:
            return self._walk(data)
        try:
            values = [self._whole(data[:end])]
        except ValueError:
            return self._walk(data)
        try:
            return values + self._begin(data[end:])
        except JsonError as error:
            error.completed[:0] = values
            raise

    def _outline(self, data: bytes) -> tuple[bytes, bool, bool]:
        """`data`'s brackets and commas outside strings, and the state after its last byte.

        Taking out pairs of adjacent quotes keeps every other byte's parity, hence its side.
        """
        if self._escape:
            data = data[1:]
        escape = False
        if b"\\" in data:
            data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
            escape = data.endswith(b"\\")
        marks = data.translate(None, _NOT_OUTLINE).replace(b'""', b"")
        if b'"' not in marks:
            return b"" if self._in_string else marks, self._in_string, escape
        sides = marks.split(b'"')
        outside = b"".join(sides[self._in_string :: 2])
        return outside, self._in_string ^ (len(sides) % 2 == 0), escape

    def _walk(self, data: bytes) -> list[Any]:
        """Cuts `data` at the end of every message in it, bracket by bracket: exact, slower."""
        values: list[Any] = []
        start = 0
        try:
            for end in self._ends(data):
                values.append(self._complete(data[start:end]))
                start = end
            if start < len(data):
                self._keep(data[start:], *self._outline(data[start:]))
        except JsonError as error:
            error.completed[:0] = values
            raise
        return values

    def _ends(self, data: bytes) -> Iterator[int]:
        """Where in `data` messages end, given the unfinished one that it continues."""
        at, depth = int(self._escape), self._depth
        if self._in_string:
            rest = _STRING_REST.match(data, at)
            at = len(data) if rest is None else rest.end()
        for match in _MARK.finditer(data, at):
            rise = _RISES.get(match[0], 0)
            depth += rise
            if rise and depth <= 0:
                yield match.end()
                depth = 0

    def _complete(self, data: bytes) -> Any:
        """The value of the unfinished message, of which `data` is the rest."""
        text = b"".join((*self._pieces, data))
        self._forget()
        self._check_size(len(text))
        return text if len(text) >= self._raw_bytes else _decode(text)

    def _keep(self, data: bytes, outside: bytes, in_string: bool, escape: bool) -> None:
        """Holds `data` and its outline, if the unfinished message can still become one."""
        self._depth += _rise(outside)
        self._in_string, self._escape = in_string, escape
        self._pieces.append(data)
        self._size += len(data)
        self._check_size(self._size)
        if self._check_at <= self._size < self._raw_bytes or self._depth > MAX_DEPTH:
            self._check_at = self._size * _CHECK_GROWTH
            self._pieces = [b"".join(self._pieces)]
            _check_prefix(self._pieces[0], self._depth)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise JsonError(f"message is larger than the limit of {self._max_bytes} bytes")


def _rise(outside: bytes) -> int:
    """How much deeper nesting is after these brackets than before."""
    count = outside.count
    return count(b"{") + count(b"[") - count(b"}") - count(b"]")


def _cut(data: bytes) -> list[bytes]:
    """`data` cut at every ``}{``; a cut inside a string shows when its parts do not parse."""
    first, *middle, last = data.split(b"}{")
    return [first + b"}", *[b"{" + part + b"}" for part in middle], b"{" + last]


def _is_odd(data: bytes) -> bool:
    """Whether orjson might accept what C refuses, or read a number as C does not."""
    if b"\\u0000" in data:
        return True
    if b"0" * 19 not in data.translate(_DIGITS_TO_ZERO):
        return False
    return _BEYOND_INT64.search(data) is not None


def _loads(text: bytes) -> Any:
    """orjson's reading; raises ValueError also for nesting over `MAX_DEPTH`.

    Long texts are wrapped in as many arrays as make orjson's own limit the one that is wanted.
    """
    if len(text) <= _SHALLOW_BYTES:
        return orjson.loads(text)
    value = orjson.loads(b"".join((_OPEN, text, _CLOSE)))
    for _ in range(_PAD):
        (value,) = value  # two here: the text had brackets of its own to match ours
    return value


def _read_fast(text: bytes) -> Any:
    """The one message that `text` is, by orjson; ValueError if the strict reader has to see it."""
    if _is_odd(text):
        raise ValueError
    return _loads(text)


def _decode(text: bytes) -> Any:
    try:
        return _read_fast(text)
    except ValueError:
        return _read_alone(text, final=True)


def _check_prefix(text: bytes, depth: int) -> None:
    """Raises `JsonError` if no continuation of `text`, now nested so deep, is one message."""
    try:
        if depth <= MAX_DEPTH:
            orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if error.msg.startswith("unexpected end of data"):
            return
    with suppress(Incomplete):
        _read_alone(text, final=False)


def _read_alone(text: bytes, *, final: bool) -> Any:
    """The message that `text` is; what stands behind it, and begins no other, is an error."""
    value, end = read_strictly(text, final=final, trailer=False)
    if end < len(text):
        try:
            read_strictly(text[end:], final=final, trailer=False)
        except JsonError as error:
            error.completed.append(value)
            raise
    return value
