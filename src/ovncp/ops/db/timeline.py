"""What a log tells of the past: its transactions in order, with the rows before and after each.

A log keeps its latest entries, and what came before them as a snapshot. With that a history may be
stored, the entries that led to it lately (`ovsdb/window.py`): these come first, then those after
it. What is older is gone: the first transaction starts from the state at the `edge`.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from ovncp.ops.db.caller import Caller
from ovncp.ops.db.state import State, Step, state_of_snapshot, steps
from ovncp.ops.db.stored import Stored
from ovncp.ovsdb.history import History, Kept
from ovncp.ovsdb.row import Values

_UNBOUNDED = 1 << 62

Rows = dict[str, dict[str, Values]]
"""The values of all rows, by table name and uuid."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A state of the database: after the entry `index`, under that transaction id.

    `date_msec` since the epoch is when it came about; None if that is not known.
    """

    index: int
    transaction_id: str
    date_msec: int | None


@dataclass(frozen=True, slots=True)
class Logged:
    """One transaction of the log: the state it led to, what it was for, what it did to rows."""

    edge: Edge
    comment: str
    changes: list[Kept]


class Timeline:
    """The past of one log, read through once.

    `past` are the transactions up to the snapshot, and `rest` gives those after it, once; `edge` is
    where the first of them starts, and `newest` where the last one that was read led to.
    """

    def __init__(self, stored: Stored, state: State) -> None:
        """`state` is that of the snapshot, with its history."""
        self._state = state
        self.schema = state.database.schema
        self.tables = state.database.tables
        self.past = _past(state)
        start_id = state.database.history.stored_start_id
        date_msec = None if self.past else state.date_msec
        self.edge = Edge(state.index - len(self.past), start_id, date_msec)
        self.newest = self.past[-1].edge if self.past else self.edge
        self.rest = self._rest(stored)

    @classmethod
    async def open(cls, stored: Stored, caller: Caller) -> "Timeline":
        """The past of what is `stored`. Raises LogError, OvsdbError."""
        return cls(stored, state_of_snapshot(await stored.snapshot(), caller, _UNBOUNDED))

    async def all(self) -> AsyncIterator[Logged]:
        """All transactions, the oldest first. Raises LogError, OvsdbError."""
        for logged in self.past:
            yield logged
        async for logged in self.rest:
            yield logged

    async def _rest(self, stored: Stored) -> AsyncIterator[Logged]:
        state, database = self._state, self._state.database
        # What is given out need not be kept here too.
        database.resume(History(0, database.stored_id))
        async for step in steps(stored, state):
            changes = [
                Kept(each.table, each.row.uuid, each.old, each.new) for each in state.take(step)
            ]
            logged = _logged(step, database.stored_id, changes)
            self.newest = logged.edge
            yield logged

    def rows(self) -> Rows:
        """All rows as of `newest`."""
        return {
            name: {uuid: row.values for uuid, row in table.rows.items()}
            for name, table in self.tables.items()
        }


def _past(state: State) -> list[Logged]:
    kept_steps = state.database.history.steps()
    first = state.index - len(kept_steps) + 1
    found = []
    for index, kept in enumerate(kept_steps, first):
        assert kept.data is not None, "what is stored are entries"
        found.append(_logged(Step(index, kept.data), kept.transaction_id, kept.changes))
    return found


def _logged(step: Step, transaction_id: str, changes: list[Kept]) -> Logged:
    edge = Edge(step.index, transaction_id, step.date_msec)
    return Logged(edge, step.entry.comment or "", changes)


def is_change(change: Kept) -> bool:
    """Whether anything of the row is another than before, as far as it is stored."""
    old, new = change.old, change.new
    if old is None or new is None:
        return old is not new
    return any(old[index] != new[index] for _, index, _, _ in change.table.stored)
