"""A dictionary with one or several items for each key, small where there is one.

An index of a database's rows by a column, or of thousands of conditions by their values, mostly
has one item for a key, which then costs no container.
"""

from collections.abc import Iterable
from typing import Any


class ValueMap:
    """Items by key, each once for a key. An item is anything hashable but a dict."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self._items)

    def add(self, key: Any, item: Any) -> None:
        """Have `item` under `key`."""
        known = self._items.setdefault(key, item)
        if type(known) is dict:
            known[item] = None
        elif known != item:
            self._items[key] = {known: None, item: None}

    def discard(self, key: Any, item: Any) -> None:
        """Have `item` under `key` no more."""
        known = self._items.get(key)
        if type(known) is dict:
            known.pop(item, None)
            if len(known) == 1:
                (self._items[key],) = known
        elif known is not None and known == item:
            del self._items[key]

    def get(self, key: Any) -> Iterable[Any]:
        """The items under `key`: not to be kept over a change."""
        known = self._items.get(key)
        if known is None:
            return ()
        return known if type(known) is dict else (known,)
