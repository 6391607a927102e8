"""The state of a database at a moment of the past, and what changed from one moment to another.

Either is told as far as the window of kept entries goes; a moment outside of it is refused, with
what the window is.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ovncp.ops.db.moment import Moment, date_text
from ovncp.ops.db.timeline import Edge, Logged, Rows, Timeline, is_change
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.history import Kept


class _Outside(Exception):
    """A moment is not within the window."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment


class _Cut:
    """Where `moment` divides a timeline: what it includes, and what comes after it.

    `edge` is that of the last one that it includes, of those that were asked about so far.
    """

    def __init__(self, moment: Moment, edge: Edge) -> None:
        self._moment = moment
        self._start = self.edge = edge
        self.is_passed = False
        self._is_reached = self._is_at(edge)

    def _is_at(self, edge: Edge) -> bool:
        moment = self._moment
        if moment.transaction_id is not None:
            return edge.transaction_id.startswith(moment.transaction_id)
        return moment.index == edge.index

    def includes(self, logged: Logged) -> bool:
        """Whether the moment includes `logged`, the next one. Raises _Outside."""
        self.is_passed = self.is_passed or self._is_before(logged.edge)
        if not self.is_passed:
            self.edge = logged.edge
            self._is_reached = self._is_at(logged.edge)
        return not self.is_passed

    def _is_before(self, edge: Edge) -> bool:
        index, date_msec = self._moment.index, self._moment.date_msec
        if index is not None and index < edge.index:
            self._check_start(index >= self._start.index)
            return True
        if date_msec is not None and edge.date_msec is not None and date_msec < edge.date_msec:
            start_msec = self._start.date_msec
            self._check_start(start_msec is not None and start_msec <= date_msec)
            return True
        return self._is_reached

    def _check_start(self, is_after_start: bool) -> None:
        """Raise _Outside if nothing is included but the start, and that neither."""
        if self.edge is self._start and not is_after_start:
            raise _Outside(self._moment)

    def end(self) -> None:
        """There is nothing further. Raises _Outside where the moment was not met."""
        if self.is_passed or self._is_reached:
            return
        date_msec, start_msec = self._moment.date_msec, self._start.date_msec
        if date_msec is None:
            raise _Outside(self._moment)
        self._check_start(start_msec is None or start_msec <= date_msec)


@asynccontextmanager
async def _within(timeline: Timeline) -> AsyncIterator[None]:
    """Say of a moment that is not within the window what that is. Raises Refusal."""
    try:
        yield
    except _Outside as error:
        async for _ in timeline.rest:
            pass
        raise Refusal(
            f"{error.moment.text}: not within what is kept, "
            f"which is from {_text(timeline.edge)} to {_text(timeline.newest)}"
        ) from error


def _text(edge: Edge) -> str:
    date = "" if edge.date_msec is None else f" of {date_text(edge.date_msec)}"
    return f"entry {edge.index}{date}"


@dataclass(frozen=True, slots=True)
class PastState:
    """All rows at a moment, and the edge that it was."""

    edge: Edge
    rows: Rows


async def state_at(timeline: Timeline, moment: Moment) -> PastState:
    """The state at `moment`, of a timeline that was not read yet.

    Raises Refusal for a moment outside of the window, LogError, OvsdbError.
    """
    cut = _Cut(moment, timeline.edge)
    async with _within(timeline):
        undone = [logged for logged in timeline.past if not cut.includes(logged)]
        if not undone:
            async for logged in timeline.rest:
                if not cut.includes(logged):
                    undone.append(logged)
                    break
        cut.end()
    return PastState(cut.edge, _without(timeline.rows(), undone))


def _without(rows: Rows, undone: Sequence[Logged]) -> Rows:
    """`rows` without the last transactions that led to them, `undone`; changed in place."""
    for logged in reversed(undone):
        for change in logged.changes:
            if change.old is None:
                del rows[change.table.name][change.uuid]
            else:
                rows[change.table.name][change.uuid] = change.old
    return rows


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of rows from one edge to another, by table and uuid."""

    before: Edge
    after: Edge
    changes: list[Kept]


async def difference(timeline: Timeline, start: Moment, end: Moment | None) -> Difference:
    """What changed from `start` to `end`, the newest state if None, of a timeline not read yet.

    Raises Refusal for a moment outside of the window, and an end before the start.
    """
    before = _Cut(start, timeline.edge)
    after = None if end is None else _Cut(end, timeline.edge)
    net: dict[tuple[str, str], Kept] = {}
    async with _within(timeline):
        async for logged in timeline.all():
            is_before = before.includes(logged)
            if after is not None and not after.includes(logged):
                if is_before:
                    raise Refusal("the end is before the start")
                break
            if not is_before:
                _add(net, logged)
        before.end()
        if after is not None:
            after.end()
    newest = timeline.newest if after is None else after.edge
    changes = [net[key] for key in sorted(net) if is_change(net[key])]
    return Difference(before.edge, newest, changes)


def _add(net: dict[tuple[str, str], Kept], logged: Logged) -> None:
    for change in logged.changes:
        key = (change.table.name, change.uuid)
        known = net.get(key)
        old = change.old if known is None else known.old
        net[key] = Kept(change.table, change.uuid, old, change.new)
