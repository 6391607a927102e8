"""Which events somebody is told of, and how those are found who are told of one.

Of what a filter asks for, what most narrows it down is what it is kept by: exact names, else kinds
of rows, tables, tenants. So an event is matched against the few filters that may admit it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ovncp.ovn.change_events import Head

_WILD = frozenset("*?[")

Key = tuple[str, ...]
ANY: Key = ("any",)


@dataclass(frozen=True)
class Filter:
    """Those events that meet all that is given: one of the tables, of the tenants, of the patterns.

    A table is a pair of the database's short name and its own. A pattern is KIND:NAME, such as
    `switches:web-*`: a resource's name, or else DATABASE/TABLE, and the row's name or its uuid.
    """

    tables: frozenset[tuple[str, str]] = frozenset()
    tenants: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()

    def admits(self, head: Head) -> bool:
        """Whether the event is to be told."""
        if not head.database:
            return False
        if not head.table:
            return not self.tables or any(head.database == table[0] for table in self.tables)
        if self.tables and (head.database, head.table) not in self.tables:
            return False
        if self.tenants and self.tenants.isdisjoint(head.tenants):
            return False
        return not self.patterns or any(
            fnmatchcase(topic, pattern) for pattern in self.patterns for topic in topics(head)
        )

    def kept_by(self) -> set[Key]:
        """What it is kept by: each event that it admits has one of these."""
        if self.patterns:
            return {_key_of(pattern) for pattern in self.patterns}
        if self.tables:
            return {("table", *table) for table in self.tables}
        return {("tenant", tenant) for tenant in self.tenants} or {ANY}


def _key_of(pattern: str) -> Key:
    if _WILD.isdisjoint(pattern):
        return "topic", pattern
    kind, colon, _ = pattern.partition(":")
    return ("kind", kind) if colon and _WILD.isdisjoint(kind) else ANY


def kind_of(head: Head) -> str:
    """What the rows of an event's table are called in patterns."""
    return head.resource or f"{head.database}/{head.table}"


def topics(head: Head) -> Sequence[str]:
    """What a pattern has to match, one of them."""
    kind = kind_of(head)
    return (f"{kind}:{head.name}", f"{kind}:{head.uuid}")


def keys_of(head: Head) -> Iterator[Key]:
    """Those that filters may be kept by which admit the event."""
    yield ANY
    yield "table", head.database, head.table
    yield "kind", kind_of(head)
    yield from (("topic", topic) for topic in topics(head))
    yield from (("tenant", tenant) for tenant in head.tenants)
