"""`ovncp db log`: the transactions that a log keeps, with what each did.

Who made one is known as far as its comment says: the programs of Open vSwitch and OVN put their
command line there, and an entry has no other place for it (ovsdb(5), "Record Format").
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ovncp.ops.db.caller import Caller
from ovncp.ops.db.change_words import change_json, change_lines, counts, counts_text, names
from ovncp.ops.db.moment import Moment, date_text
from ovncp.ops.db.place import Place
from ovncp.ops.db.report import FINE
from ovncp.ops.db.stored import open_to_read
from ovncp.ops.db.timeline import Edge, Logged, Timeline
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.history import Kept
from ovncp.ovsdb.table import Table

_UUID_BEGINNING = 8


@dataclass(frozen=True)
class Wanted:
    """Which transactions are wanted: changes of a table, of a row; and of which time."""

    table: str | None = None
    row: str | None = None
    since: Moment | None = None
    until: Moment | None = None

    def check(self, tables: dict[str, Table]) -> None:
        """Raise Refusal if there is no such table, or a moment is of no use here."""
        if self.table is not None and self.table not in tables:
            known = ", ".join(sorted(tables))
            raise Refusal(f"there is no table {self.table!r}; there are: {known}")
        for moment in (self.since, self.until):
            if moment is not None and moment.transaction_id is not None:
                raise Refusal(f"{moment.text}: an index or a time is wanted here")

    def changes(self, logged: Logged) -> list[Kept]:
        """The changes of `logged` that are wanted."""
        if self.since is not None and _is_before(logged.edge, self.since):
            return []
        if self.until is not None and _is_after(logged.edge, self.until):
            return []
        return [change for change in logged.changes if self._has(change)]

    def _has(self, change: Kept) -> bool:
        if self.table is not None and change.table.name != self.table:
            return False
        row = self.row
        return row is None or row in names(change) or _is_uuid(change.uuid, row)


def _is_uuid(uuid: str, row: str) -> bool:
    return len(row) >= _UUID_BEGINNING and uuid.startswith(row)


def _is_before(edge: Edge, moment: Moment) -> bool:
    if moment.index is not None:
        return edge.index < moment.index
    return edge.date_msec is not None and edge.date_msec < (moment.date_msec or 0)


def _is_after(edge: Edge, moment: Moment) -> bool:
    if moment.index is not None:
        return edge.index > moment.index
    return edge.date_msec is not None and edge.date_msec > (moment.date_msec or 0)


@dataclass(frozen=True)
class Found:
    """A transaction: `n_rows` are those of each kind of change by table, `changes` the wanted."""

    edge: Edge
    comment: str
    n_rows: dict[str, dict[str, int]]
    changes: list[Kept]


@dataclass(frozen=True)
class Listing:
    """The transactions that were found, the oldest first; `with_rows` is whether to show these."""

    transactions: list[Found]
    with_rows: bool
    status = FINE

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        for found in self.transactions:
            edge = found.edge
            yield f"{edge.index}  {date_text(edge.date_msec)}  {edge.transaction_id}"
            for line in (*found.comment.splitlines(), counts_text(found.n_rows)):
                yield f"    {line}"
            for change in found.changes:
                for line in change_lines(change):
                    yield f"    {line}"

    def to_json(self) -> list[dict[str, Any]]:
        """See `Report`."""
        return [self._json(found) for found in self.transactions]

    def _json(self, found: Found) -> dict[str, Any]:
        rows = {"rows": [change_json(each) for each in found.changes]} if self.with_rows else {}
        return {**edge_json(found.edge), "comment": found.comment, "tables": found.n_rows, **rows}


async def log(
    url: str, wanted: Wanted, n_newest: int | None, with_rows: bool, caller: Caller
) -> Listing:
    """List the newest `n_newest` of the `wanted` transactions of the log `url`, all if None.

    `with_rows` says what became of each row. Raises Refusal, LogError, OvsdbError.
    """
    found: deque[Found] = deque(maxlen=n_newest)
    async with open_to_read(Place.parse_log(url)) as stored:
        timeline = await Timeline.open(stored, caller)
        wanted.check(timeline.tables)
        async for logged in timeline.all():
            caller.progress(f"entry {logged.edge.index:,}")
            changes = wanted.changes(logged)
            if changes:
                kept = changes if with_rows else []
                found.append(Found(logged.edge, logged.comment, counts(changes), kept))
    return Listing(list(found), with_rows)


def edge_json(edge: Edge) -> dict[str, Any]:
    """An edge as JSON."""
    date = None if edge.date_msec is None else date_text(edge.date_msec)
    return {"index": edge.index, "transaction_id": edge.transaction_id, "date": date}
