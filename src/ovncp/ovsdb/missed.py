"""What clients that come back, or lag, have missed: found out once for all who missed the same."""

from collections.abc import Iterable, Iterator

from ovncp.ovsdb.aspect import AnyOf, Aspect
from ovncp.ovsdb.history import Difference
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.value_map import ValueMap

_FEW_ROWS = 32  # which are tried one by one

# A row's uuid, and what is seen of it before and after.
Seen = tuple[str, Values | None, Values | None]


class Missed:
    """The rows of each table that differ between two states."""

    __slots__ = ("_indexes", "_rows", "difference")

    def __init__(self, difference: Difference) -> None:
        self.difference = difference
        self._rows: dict[str, dict[str, Seen]] = {}
        for (name, uuid), (_, old, new) in difference.items():
            self._rows.setdefault(name, {})[uuid] = (uuid, old, new)
        self._indexes: dict[tuple[str, Aspect], ValueMap] = {}

    def seen(self, name: str, condition: AnyOf | None) -> Iterator[Seen]:
        """The rows of the table `name` that are seen under `condition`, before or after."""
        rows = self._rows.get(name)
        if rows is None:
            return
        if condition is None:
            yield from rows.values()
            return
        uuids = rows if len(rows) <= _FEW_ROWS else self._concerned(name, condition)
        for uuid in uuids:
            _, old, new = rows[uuid]
            was_seen = old is not None and condition.matches(old)
            is_seen = new is not None and condition.matches(new)
            if was_seen or is_seen:
                yield uuid, old if was_seen else None, new if is_seen else None

    def _concerned(self, name: str, condition: AnyOf) -> Iterable[str]:
        found: dict[str, None] = {}
        for aspect, values in condition.by_aspect.items():
            index = self._index(name, aspect)
            for value in values:
                found.update(dict.fromkeys(index.get(value)))
        return found

    def _index(self, name: str, aspect: Aspect) -> ValueMap:
        """The rows by what they have, or had, in `aspect`."""
        index = self._indexes.get((name, aspect))
        if index is None:
            index = self._indexes[name, aspect] = ValueMap()
            for uuid, old, new in self._rows[name].values():
                for values in (old, new):
                    for value in () if values is None else aspect.values(values):
                        index.add(value, uuid)
        return index
