"""Values of columns as JSON has them, and what is wrong with one (RFC 7047 sections 3.2 and 5.1).

Outside of OVSDB a set is an array, a map is an object, what may be missing is null, and a uuid is a
string, in place of which the name of the row may stand. What a column allows follows from its type,
and is told in the words of JSON Schema, whose keywords name the rule that a value breaks.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ovncp.ovsdb.atom import BaseType, uuid_from_string
from ovncp.ovsdb.column_type import UNLIMITED
from ovncp.ovsdb.schema import Column

_INT64 = (-(2**63), 2**63 - 1)

Resolve = Callable[[str, str], str]
"""The uuid of the row of a table that a text, a uuid or a name, stands for. Raises Unresolved."""


class Mistake(NamedTuple):
    """What is wrong with a field: the rule that it breaks, and that in words."""

    field: str
    rule: str
    detail: str


class Invalid(Exception):
    """Fields that are not what they have to be."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(f"{m.field}: {m.detail}" for m in mistakes))
        self.mistakes = mistakes


class Unresolved(Exception):
    """A text that stands for no row, or for several; the text says which."""


def refuse(field: str, rule: str, detail: str) -> Invalid:
    """The error for one mistake."""
    return Invalid([Mistake(field, rule, detail)])


def to_wire(column: Column, value: Any, resolve: Resolve, field: str) -> Any:
    """`value` as OVSDB's JSON has it. Raises Invalid, about `field`."""
    kind = column.type
    if kind.is_scalar:
        return atom_to_wire(kind.key, value, resolve, field)
    if kind.is_map:
        return ["map", _pairs(column, value, resolve, field)]
    if kind.n_max == 1:
        value = [] if value is None else [value]
        where = [field] * len(value)
    else:
        value = _array(value, field)
        where = [f"{field}[{place}]" for place in range(len(value))]
    atoms = [atom_to_wire(kind.key, atom, resolve, f) for atom, f in zip(value, where, strict=True)]
    _check_count(column, len(atoms), field)
    _check_distinct(atoms, field)
    return ["set", atoms]


def _array(value: Any, field: str) -> list[Any]:
    if type(value) is not list:
        raise refuse(field, "type", f"an array is wanted, not {_words(value)}")
    return value


def _pairs(column: Column, value: Any, resolve: Resolve, field: str) -> list[Any]:
    kind = column.type
    if type(value) is not dict:
        raise refuse(field, "type", f"an object is wanted, not {_words(value)}")
    assert kind.value is not None
    pairs = [
        [
            key_to_wire(kind.key, key, resolve, field),
            atom_to_wire(kind.value, element, resolve, f"{field}.{key}"),
        ]
        for key, element in value.items()
    ]
    _check_count(column, len(pairs), field)
    _check_distinct([key for key, _ in pairs], field)
    return pairs


def _check_count(column: Column, count: int, field: str) -> None:
    kind = column.type
    if count < kind.n_min:
        raise refuse(field, "minItems", f"at least {kind.n_min} is wanted")
    if count > kind.n_max:
        raise refuse(field, "maxItems", f"at most {kind.n_max} are wanted, not {count}")


def _check_distinct(atoms: list[Any], field: str) -> None:
    if len({tuple(atom) if type(atom) is list else atom for atom in atoms}) < len(atoms):
        raise refuse(field, "uniqueItems", "an element stands there more than once")


def atom_to_wire(base: BaseType, value: Any, resolve: Resolve, field: str) -> Any:
    """One atom as OVSDB's JSON has it. Raises Invalid, about `field`."""
    atom = _READERS[base.kind](value, field)
    if base.kind == "uuid":
        return ["uuid", _reference(base, atom, resolve, field)]
    _check(base, atom, field)
    return atom


def key_to_wire(base: BaseType, text: str, resolve: Resolve, field: str) -> Any:
    """The key of a map, which JSON always has as a string. Raises Invalid, about `field`."""
    return atom_to_wire(base, from_text(base, text, field), resolve, f"{field}.{text}")


def from_text(base: BaseType, text: str, field: str) -> Any:
    """The value that a text, of a query or a key, stands for. Raises Invalid, about `field`."""
    read = _TEXT_READERS.get(base.kind)
    if read is None:
        return text
    try:
        return read(text)
    except (ValueError, KeyError) as error:
        raise refuse(field, "type", f"{text!r} is no {base.kind}") from error


_TEXT_READERS: dict[str, Callable[[str], Any]] = {
    "integer": int,
    "real": float,
    "boolean": lambda text: {"true": True, "false": False}[text],
}


def _reference(base: BaseType, text: str, resolve: Resolve, field: str) -> str:
    uuid = uuid_from_string(text)
    if base.ref_table is None:
        if uuid is None:
            raise refuse(field, "format", f"{text!r} is no uuid")
        return uuid
    try:
        return resolve(base.ref_table, text)
    except Unresolved as error:
        raise refuse(field, "reference", str(error)) from error


def _integer(value: Any, field: str) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise refuse(field, "type", f"an integer is wanted, not {_words(value)}")
    if not _INT64[0] <= value <= _INT64[1]:
        raise refuse(field, "format", "the integer has more than 64 bits")
    return value


def _real(value: Any, field: str) -> float:
    if type(value) not in (int, float) or value - value != 0:
        raise refuse(field, "type", f"a number is wanted, not {_words(value)}")
    return float(value)


def _boolean(value: Any, field: str) -> bool:
    if type(value) is not bool:
        raise refuse(field, "type", f"true or false is wanted, not {_words(value)}")
    return value


def _string(value: Any, field: str) -> str:
    if type(value) is not str:
        raise refuse(field, "type", f"a string is wanted, not {_words(value)}")
    if "\0" in value:  # the C server ends a connection over one
        raise refuse(field, "pattern", "OVSDB has no strings with a null character")
    return value


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "integer": _integer,
    "real": _real,
    "boolean": _boolean,
    "string": _string,
    "uuid": _string,
}

_JSON_TYPES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def _words(value: Any) -> str:
    return _JSON_TYPES[type(value)]


def _check(base: BaseType, atom: Any, field: str) -> None:
    if base.enum is not None and atom not in base.enum:
        allowed = ", ".join(map(str, base.enum))
        raise refuse(field, "enum", f"{atom!r} is none of {allowed}")
    size, words = (len(atom.encode()), "Length") if base.kind == "string" else (atom, "imum")
    if base.minimum is not None and size < base.minimum:
        raise refuse(field, f"min{words}", f"less than {base.minimum}")
    if base.maximum is not None and size > base.maximum:
        raise refuse(field, f"max{words}", f"more than {base.maximum}")


# As a description


def json_schema(column: Column) -> dict[str, Any]:
    """What values of `column` look like, in JSON Schema."""
    kind = column.type
    if kind.is_scalar:
        return atom_schema(kind.key)
    if kind.is_map:
        assert kind.value is not None
        schema: dict[str, Any] = {"type": "object", "additionalProperties": atom_schema(kind.value)}
        if kind.key.enum is not None:
            schema["propertyNames"] = {"enum": list(map(str, kind.key.enum))}
        return schema
    if kind.n_max == 1:
        return {"anyOf": [atom_schema(kind.key), {"type": "null"}]}
    schema = {"type": "array", "items": atom_schema(kind.key), "uniqueItems": True}
    if kind.n_min:
        schema["minItems"] = kind.n_min
    if kind.n_max != UNLIMITED:
        schema["maxItems"] = kind.n_max
    return schema


def atom_schema(base: BaseType) -> dict[str, Any]:
    """What an atom of the type looks like, in JSON Schema."""
    schema: dict[str, Any] = {"type": "string" if base.kind == "uuid" else base.kind}
    if base.kind == "real":
        schema["type"] = "number"
    if base.kind == "uuid":
        if base.ref_table is None:
            return {"type": "string", "format": "uuid"}
        return {"type": "string", "description": f"A row of {base.ref_table}: its uuid or name."}
    if base.enum is not None:
        return {**schema, "enum": list(base.enum)}
    words = "Length" if base.kind == "string" else "imum"
    bounds = ((f"min{words}", base.minimum), (f"max{words}", base.maximum))
    return schema | {name: bound for name, bound in bounds if bound is not None}
