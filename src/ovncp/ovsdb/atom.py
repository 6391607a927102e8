"""Atoms: integers, reals, booleans, strings and uuids, and the constraints on them.

RFC 7047 sections 3.2 (`<base-type>`) and 5.1 (`<atom>`). An atom is a plain Python value:
int, float, bool or str; a uuid is its 36 characters in lower case, so that it needs no
conversion between the wire, the row and the log.
"""

import re
from collections.abc import Callable
from math import isinf
from typing import Any, Final

from ovncp.ovsdb.errors import OvsdbError, constraint_violation, json_text, syntax_error
from ovncp.ovsdb.parser import is_id, is_integer

Atom = int | float | bool | str
AtomParser = Callable[[Any, "Symbols | None"], Atom]

ATOMIC_TYPES = ("integer", "real", "boolean", "string", "uuid")
ZERO_UUID = "00000000-0000-0000-0000-000000000000"
DEFAULTS: Final[dict[str, Atom]] = {
    "integer": 0,
    "real": 0.0,
    "boolean": False,
    "string": "",
    "uuid": ZERO_UUID,
}

_LOWER_UUID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z"
).match
_PLAIN_STRING = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z").match

_JSON_TYPE_NAMES: dict[type, str] = {dict: "object", list: "array", str: "string"}


class Symbols:
    """The named-uuids of one transaction (RFC 7047 section 5.1, `<named-uuid>`).

    A name may be used before the "insert" that defines it, so that its uuid exists from its first
    use on.
    """

    __slots__ = ("created", "new_uuid", "uuids")

    def __init__(self, new_uuid: Callable[[], str]) -> None:
        self.new_uuid = new_uuid
        self.uuids: dict[str, str] = {}
        self.created: set[str] = set()

    def uuid(self, name: str) -> str:
        """The uuid that `name` stands for."""
        uuid = self.uuids.get(name)
        if uuid is None:
            uuid = self.uuids[name] = self.new_uuid()
        return uuid


def uuid_from_string(text: str) -> str | None:
    """`text` in its canonical form, or None when it is not a uuid."""
    if _LOWER_UUID(text):
        return text
    lower = text.lower()
    return lower if _LOWER_UUID(lower) else None


def unwrap(value: Any, name: str, kind: type) -> Any:
    """The second element of `[name, <kind>]`, or an error that says what was expected."""
    if (
        type(value) is list
        and len(value) == 2
        and type(value[0]) is str
        and value[0] == name
        and type(value[1]) is kind
    ):
        return value[1]
    raise syntax_error(value, f'expected ["{name}", <{_JSON_TYPE_NAMES[kind]}>]')


def _expected(value: Any, kind: str) -> OvsdbError:
    return syntax_error(value, f"expected {kind}")


def _parse_integer(value: Any, symbols: Symbols | None) -> Atom:
    if is_integer(value):
        return int(value)
    raise _expected(value, "integer")


def _parse_real(value: Any, symbols: Symbols | None) -> Atom:
    if type(value) is float or type(value) is int:
        return float(value)
    raise _expected(value, "real")


def _parse_boolean(value: Any, symbols: Symbols | None) -> Atom:
    if type(value) is bool:
        return value
    raise _expected(value, "boolean")


def _parse_string(value: Any, symbols: Symbols | None) -> Atom:
    if type(value) is str:
        if not value.isascii():
            _check_utf8(value)
        return value
    raise _expected(value, "string")


def _parse_uuid(value: Any, symbols: Symbols | None) -> Atom:
    if type(value) is list and len(value) == 2 and type(value[1]) is str:
        kind, text = value
        if kind == "uuid":
            uuid = text if _LOWER_UUID(text) else uuid_from_string(text)
            if uuid is None:
                raise syntax_error(value, f'"{text}" is not a valid UUID')
            return uuid
        if kind == "named-uuid" and symbols is not None:
            if not is_id(text):
                raise syntax_error(value, "named-uuid string is not a valid <id>")
            return symbols.uuid(text)
    raise syntax_error(value, 'expected ["uuid", <string>]')


def _check_utf8(text: str) -> None:
    """Refuse a string whose bytes on the wire were not UTF-8.

    The wire decodes such bytes to lone surrogates.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) & 0xFF
        raise constraint_violation(
            f"not a valid UTF-8 string: invalid UTF-8 sequence 0x{byte:02x}"
        ) from error


_PARSERS: Final[dict[str, AtomParser]] = {
    "integer": _parse_integer,
    "real": _parse_real,
    "boolean": _parse_boolean,
    "string": _parse_string,
    "uuid": _parse_uuid,
}


def format_real(value: float) -> str:
    """`value` with 15 significant digits, as OVSDB prints reals."""
    return f"{value:.15g}"


def real_to_json(value: Any) -> Any:
    """The JSON number for a real: 15 digits, and an integer where it is one, as C prints it."""
    rounded = float(format_real(value))
    if isinf(rounded):
        # The largest reals round to what JSON has no number for.
        return value
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def uuid_to_json(uuid: Any) -> Any:
    """`["uuid", uuid]`."""
    return ("uuid", uuid)


# How an atom is shown in JSON; None where JSON shows it as it is.
TO_JSON: Final[dict[str, Callable[[Any], Any] | None]] = {
    "integer": None,
    "real": real_to_json,
    "boolean": None,
    "string": None,
    "uuid": uuid_to_json,
}


def atom_to_string(atom: Any, kind: str) -> str:
    """`atom` as ovs-vsctl and its kin print and read it (ovsdb(7), "Database Values")."""
    if kind == "boolean":
        return "true" if atom else "false"
    if kind == "real":
        return format_real(atom)
    if kind == "string":
        plain = _PLAIN_STRING(atom) and atom not in ("true", "false") and not uuid_from_string(atom)
        return atom if plain else json_text(atom)
    return str(atom)


class BaseType:
    """A `<base-type>` of RFC 7047 section 3.2: an atomic type with its constraints.

    `parse` turns JSON into an atom and checks it; `enum` holds the allowed atoms in order.
    """

    __slots__ = ("enum", "kind", "maximum", "minimum", "parse", "ref_table", "ref_type")

    def __init__(
        self,
        kind: str,
        *,
        minimum: Any = None,
        maximum: Any = None,
        enum: tuple[Atom, ...] | None = None,
        ref_table: str | None = None,
        ref_type: str = "strong",
    ) -> None:
        self.kind = kind
        self.minimum = minimum
        self.maximum = maximum
        self.enum = enum
        self.ref_table = ref_table
        self.ref_type = ref_type
        self.parse = self._make_parser()

    @property
    def has_constraints(self) -> bool:
        """Whether an atom of the type may be refused for its value, or is a reference."""
        return (
            self.enum is not None
            or self.minimum is not None
            or self.maximum is not None
            or self.ref_table is not None
        )

    @property
    def is_strong_ref(self) -> bool:
        """Whether the atoms are strong references."""
        return self.ref_table is not None and self.ref_type == "strong"

    @property
    def is_weak_ref(self) -> bool:
        """Whether the atoms are weak references."""
        return self.ref_table is not None and self.ref_type == "weak"

    def _make_parser(self) -> AtomParser:
        parse = _PARSERS[self.kind]
        if self.enum is None and self.minimum is None and self.maximum is None:
            return parse
        check = self.check

        def parse_and_check(value: Any, symbols: Symbols | None) -> Atom:
            atom = parse(value, symbols)
            check(atom)
            return atom

        return parse_and_check

    def check(self, atom: Atom) -> None:
        """Refuse an atom that breaks the constraints: OvsdbError, "constraint violation"."""
        if self.enum is not None and atom not in self.enum:
            text = atom_to_string(atom, self.kind)
            raise constraint_violation(f"{text} is not one of the allowed values ({self._enum()})")
        if self.minimum is not None or self.maximum is not None:
            self._check_range(atom)

    def _enum(self) -> str:
        assert self.enum is not None
        return f"[{', '.join(atom_to_string(atom, self.kind) for atom in self.enum)}]"

    def _check_range(self, atom: Any) -> None:
        is_string = self.kind == "string"
        size = len(atom) if is_string else atom
        low, high = self.minimum, self.maximum
        if (low is None or size >= low) and (high is None or size <= high):
            return
        if is_string:
            raise constraint_violation(self._length_message(atom, size))
        show = format_real if self.kind == "real" else str
        if low is not None and high is not None:
            message = f"{show(atom)} is not in the valid range {show(low)} to {show(high)} "
            message += "(inclusive)"
        elif low is not None:
            message = f"{show(atom)} is less than minimum allowed value {show(low)}"
        else:
            message = f"{show(atom)} is greater than maximum allowed value {show(high)}"
        raise constraint_violation(message)

    def _length_message(self, text: str, length: int) -> str:
        if self.minimum is not None and length < self.minimum:
            bound = f"less than minimum allowed length {self.minimum}"
        else:
            bound = f"greater than maximum allowed length {self.maximum}"
        return f'"{text}" length {length} is {bound}'

    def unconstrained(self) -> "BaseType":
        """The same atomic type with no constraints."""
        return BaseType(self.kind)
