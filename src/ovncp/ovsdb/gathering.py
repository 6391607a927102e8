"""What a client is to be told of many rows, put together step by step while the database goes on.

As in `Dump`, the table may be ahead of what is visible, and `touch` is called for each row whose
change becomes visible or is taken back: such a row is looked at again.
"""

from collections.abc import Callable, Iterable, Iterator

from ovncp.ovsdb.row import Row

_ROWS_PER_STEP = 32


class Gathering:
    """What `show` tells of the rows with `uuids`, and of those that change meanwhile.

    It is `current` as long as it is told of changes.
    """

    __slots__ = ("_found", "_rows", "_show", "_touched", "_was_used", "current")

    def __init__(
        self, rows: dict[str, Row], show: Callable[[Row], bytes | None], uuids: Iterable[str]
    ) -> None:
        """`show` gives None for a row of which there is nothing to tell."""
        self._rows = rows
        self._show = show
        self._touched: dict[str, None] = dict.fromkeys(uuids)
        self._found: dict[str, bytes] = {}
        self._was_used = True
        self.current = True

    def touch(self, uuid: str) -> None:
        """Note that the row `uuid` is new, changed, or gone."""
        self._touched[uuid] = None

    def gather(self) -> Iterator[None]:
        """Look at the rows, step by step."""
        while self._touched:
            self._was_used = True
            for _ in range(min(_ROWS_PER_STEP, len(self._touched))):
                self._look_at(self._touched.popitem()[0])
            yield

    def _look_at(self, uuid: str) -> None:
        row = self._rows.get(uuid)
        shown = None if row is None else self._show(row)
        if shown is not None:
            self._found[uuid] = shown
        else:
            self._found.pop(uuid, None)

    def found(self) -> list[bytes]:
        """What there is to tell, of one row after the other."""
        for _ in self.gather():
            pass
        return list(self._found.values())

    def was_used(self) -> bool:
        """Whether there was a step since this was called before."""
        was_used, self._was_used = self._was_used, False
        return was_used
