"""Rows that others name in a text, which OVN takes for references although the schema does not.

A tenant's row may name only what is the tenant's: else its switch would be plugged into another's
router by a word.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from ovncp.ovn.rows import Rows
from ovncp.ovn.tenancy import View
from ovncp.ovn.values import Mistake


class Mention(NamedTuple):
    """A column, or a key of one that is a map, with names of rows of `target` (ovn-nb(5))."""

    table: str
    column: str
    key: str | None
    target: str


MENTIONS = (
    Mention("Logical_Switch_Port", "options", "router-port", "Logical_Router_Port"),
    Mention("Logical_Switch_Port", "parent_name", None, "Logical_Switch_Port"),
    Mention("Logical_Router_Port", "peer", None, "Logical_Router_Port"),
    Mention("NAT", "logical_port", None, "Logical_Switch_Port"),
    Mention("Forwarding_Group", "child_port", None, "Logical_Switch_Port"),
    Mention("Logical_Router_Static_Route", "output_port", None, "Logical_Router_Port"),
    Mention("BFD", "logical_port", None, "Logical_Router_Port"),
    Mention("Static_MAC_Binding", "logical_port", None, "Logical_Router_Port"),
)


class Made(Protocol):
    """Knows what is about to be made."""

    def makes(self, table: str, name: str) -> bool:
        """Whether a row of that name is."""


def mistakes(
    table: str,
    fields: Mapping[str, Any],
    rows: Mapping[str, Rows],
    view: View,
    made: Made,
    prefix: str = "",
) -> Iterator[Mistake]:
    """What is wrong with the names in `fields` of a row of `table`, to be, for a tenant."""
    if view.tenant is None:
        return
    for mention in MENTIONS:
        if mention.table == table:
            for name in _names(mention, fields):
                if not made.makes(mention.target, name) and not _has(rows, view, mention, name):
                    text = f"the tenant has no row {name!r} of {mention.target}"
                    place = f"{prefix}{mention.column}{f'.{mention.key}' if mention.key else ''}"
                    yield Mistake(place, "reference", text)


def _names(mention: Mention, fields: Mapping[str, Any]) -> Iterator[str]:
    value = fields.get(mention.column)
    if mention.key is not None:
        value = value.get(mention.key) if type(value) is dict else None
    elif type(value) is dict:  # of a set: what is added to it
        value = value.get("add")
    for name in value if type(value) is list else (value,):
        if type(name) is str and name:
            yield name


def _has(rows: Mapping[str, Rows], view: View, mention: Mention, name: str) -> bool:
    among = rows[mention.target]
    found = among.where(among.table.columns["name"], "==", name)
    return any(view.sees(among, row) for row in found)
