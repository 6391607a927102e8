"""What an engine brought without being asked, kept for whoever reads it next.

A hint that a log has grown is only a hint; but where the new entries came along with it, they need
not be asked for again.  What is not here, for whatever reason, is read from the engine.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST_BYTES = 16 << 20


class Recent(Generic[T]):
    """Batches by the index of their first entry; the latest ones, as far as there is room."""

    def __init__(self) -> None:
        self._batches: OrderedDict[int, tuple[T, int]] = OrderedDict()
        self._n_bytes = 0

    def add(self, index: int, batch: T, n_bytes: int) -> None:
        """Keep `batch`, which begins at `index` and takes `n_bytes`."""
        if index not in self._batches:
            self._batches[index] = batch, n_bytes
            self._n_bytes += n_bytes
            while self._n_bytes > _MOST_BYTES:
                self._drop_first()

    def take(self, index: int) -> T | None:
        """The batch that begins at `index`, if it is there; it goes, and what is before it."""
        while self._batches:
            first = next(iter(self._batches))
            if first > index:
                return None
            batch = self._drop_first()
            if first == index:
                return batch
        return None

    def _drop_first(self) -> T:
        _, (batch, n_bytes) = self._batches.popitem(last=False)
        self._n_bytes -= n_bytes
        return batch
