"""Schema versions, `x.y.z`, and how they compare (ovsdb(7), "Schema Definitions")."""

import operator
import re

from ovncp.ops.refusal import Refusal

# The C tool reads each part as scanf's %u does: white space, a sign, and 32 bits that wrap.
_PART = r"[ \t\n\v\f\r]*([+-]?[0-9]+)"
_VERSION = re.compile(rf"{_PART}\.{_PART}\.{_PART}\Z").match
_UINT_MASK = 0xFFFFFFFF

_OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
    "!=": operator.ne,
}


def compare(a: str, relation: str, b: str) -> bool:
    """Whether `relation`, one of `< <= == >= > !=`, holds of `a` and `b`. Raises Refusal."""
    left, right = _parse(a), _parse(b)
    if relation not in _OPERATORS:
        raise Refusal(f"{relation}: not a relational operator")
    return bool(_OPERATORS[relation](left, right))


def _parse(version: str) -> list[int]:
    match = _VERSION(version)
    if match is None:
        raise Refusal(f"{version}: not an OVSDB version number in format x.y.z")
    return [int(part) & _UINT_MASK for part in match.groups()]
