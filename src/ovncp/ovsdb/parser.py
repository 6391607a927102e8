"""Checked access to the members of a JSON object (RFC 7047 section 3.1, `<object>` shapes).

A shape is data: the members' names, the JSON types each may have, and whether it may be absent.
`parse` checks a value against a shape; the sentences of its errors are those that clients know.
"""

from collections.abc import Callable
from typing import Any, Final

from ovncp.ovsdb.errors import OvsdbError, syntax_error

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


def is_id(value: Any) -> bool:
    """Whether `value` is an `<id>` of RFC 7047 section 3.1."""
    return type(value) is str and value.isascii() and value.isidentifier()


def is_integer(value: Any) -> bool:
    """Whether JSON `value` is an integer of 64 bits; 1.0 is one, as in the C server."""
    if type(value) is int:
        return INT64_MIN <= value <= INT64_MAX
    return type(value) is float and value.is_integer() and INT64_MIN < value < INT64_MAX


def is_number(value: Any) -> bool:
    """Whether `value` is a JSON number."""
    return type(value) is int or type(value) is float


def is_string(value: Any) -> bool:
    """Whether `value` is a JSON string."""
    return type(value) is str


def is_boolean(value: Any) -> bool:
    """Whether `value` is true or false."""
    return type(value) is bool


def is_array(value: Any) -> bool:
    """Whether `value` is a JSON array."""
    return type(value) is list


def is_object(value: Any) -> bool:
    """Whether `value` is a JSON object."""
    return type(value) is dict


def is_string_or_object(value: Any) -> bool:
    """Whether `value` is a JSON string or object."""
    return type(value) is str or type(value) is dict


def is_anything(value: Any) -> bool:
    """True of every JSON value."""
    return True


class Member:
    """One member of a shape."""

    __slots__ = ("check", "name", "optional")

    def __init__(self, name: str, check: Callable[[Any], bool], optional: bool = False) -> None:
        self.name = name
        self.check = check
        self.optional = optional


Shape = tuple[Member, ...]


def failed(syntax: Any, what: str, message: str) -> OvsdbError:
    """The error for a value that does not have the shape of `what`."""
    return syntax_error(syntax, f"Parsing {what} failed: {message}")


def fits(value: dict[str, Any], shape: Shape) -> bool:
    """Whether the object `value` has the members of `shape`, each of its type."""
    for member in shape:
        if member.name in value:
            if not member.check(value[member.name]):
                return False
        elif not member.optional:
            return False
    return True


def check_members(value: Any, shape: Shape, what: str) -> None:
    """Check that `value` is an object that has the members of `shape`, each of its type.

    `what` names the object in the error. Members outside the shape are not looked at.
    """
    if type(value) is not dict:
        raise OvsdbError("syntax error", f"Parsing {what} failed: Object expected.")
    for member in shape:
        name = member.name
        if name in value:
            if not member.check(value[name]):
                raise failed(value, what, f"Type mismatch for member '{name}'.")
        elif not member.optional:
            raise failed(value, what, f"Required '{name}' member is missing.")


def check_no_others(value: dict[str, Any], names: frozenset[str], what: str) -> None:
    """Check that the object `value` has no members but `names`."""
    others = [name for name in value if name not in names]
    if not others:
        return
    if len(others) == 1:
        message = f"Member '{others[0]}' is present but not allowed here."
    else:
        plural = "s" if len(others) > 2 else ""
        message = (
            f"Member '{others[0]}' and {len(others) - 1} other member{plural} "
            "are present but not allowed here."
        )
    raise failed(value, what, message)


def names_of(shape: Shape) -> frozenset[str]:
    """The names of the members of `shape`."""
    return frozenset(member.name for member in shape)


def parse(value: Any, shape: Shape, what: str) -> dict[str, Any]:
    """Check `value` against `shape`, nothing else allowed, and return it."""
    check_members(value, shape, what)
    check_no_others(value, names_of(shape), what)
    result: dict[str, Any] = value
    return result
