"""Reading a stream on and on, and being told when something is missing."""

from __future__ import annotations

from itertools import pairwise

from ovncp.cluster.base import Gap, Item, Store, StreamId

_PAGE = 1000


class Reader:
    """Reads from a position on; `position` is the id of the last item it gave out."""

    def __init__(self, store: Store, stream: str, position: StreamId):
        self.position = position
        self._store = store
        self._stream = stream

    async def next(self, wait_s: float, limit: int = _PAGE) -> list[Item]:
        """The items that follow, as far as none is missing; none if none came for `wait_s`.

        Raises:
            Gap: it cannot go on from its position.
            Unavailable.
        """
        items = await self._store.read(self._stream, self.position, limit, wait_s)
        if not items and await self._store.last(self._stream) != self.position:
            # One may just have come; if not, those up to the last one are lost.
            items = await self._store.read(self._stream, self.position, limit, 0)
            if not items:
                raise Gap(f"stream {self._stream} does not end at {self.position} any more")
        items = following_on(items, self.position, self._stream)
        if items:
            self.position = items[-1].id
        return items

    async def restart(self) -> list[Item]:
        """Go to the end, whatever is missing; the items that are kept of what was skipped."""
        end = await self._store.last(self._stream)
        skipped: list[Item] = []
        after = self.position
        while page := await self._store.read(self._stream, after, _PAGE, 0):
            skipped += [item for item in page if item.id <= end]
            after = page[-1].id
            if after >= end:
                break
        self.position = end
        return skipped


def following_on(items: list[Item], after: StreamId, stream: str) -> list[Item]:
    """What was read after an id, up to the first place where items are missing.

    Raises Gap if they are missing at once.
    """
    if items and items[0].previous != after:
        raise Gap(f"items after {after} of stream {stream} are gone")
    for number, (before, item) in enumerate(pairwise(items), 1):
        if item.previous != before.id:
            return items[:number]
    return items
