"""`ovncp db at`: a past state, as ovsdb-client(1)'s "dump" shows one, or as a database file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from ovncp.log import standalone
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.moment import Moment, date_text
from ovncp.ops.db.past_log import edge_json
from ovncp.ops.db.past_state import PastState, state_at
from ovncp.ops.db.place import Place
from ovncp.ops.db.report import FINE
from ovncp.ops.db.row_json import row_json
from ovncp.ops.db.stored import open_to_read
from ovncp.ops.db.timeline import Timeline
from ovncp.ovsdb import snapshot_entry
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.table import Table


@dataclass(frozen=True)
class Dump:
    """All tables of a past state. Columns that are not stored are left out."""

    schema: DatabaseSchema
    past: PastState
    tables: dict[str, Table]
    status = FINE

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        for name in sorted(self.tables):
            yield f"{name} table"
            yield from _table_lines(self.tables[name], self.past.rows[name])
            yield ""

    def to_json(self) -> dict[str, Any]:
        """See `Report`."""
        rows = {
            name: {
                uuid: row_json(table, self.past.rows[name][uuid]) for uuid in self.past.rows[name]
            }
            for name, table in self.tables.items()
        }
        return {**edge_json(self.past.edge), "database": self.schema.name, "rows": rows}


def _table_lines(table: Table, rows: dict[str, Values]) -> Iterator[str]:
    columns = sorted(
        (column for column in table.column_list if column.persistent),
        key=lambda column: (not column.name.startswith("_"), column.name),
    )
    cells = [
        [column.type.to_string(rows[uuid][column.index]) for column in columns]
        for uuid in sorted(rows)
    ]
    head = [column.name for column in columns]
    widths = [max(map(len, each)) for each in zip(head, *cells, strict=True)]
    for line in (head, ["-" * width for width in widths], *cells):
        yield " ".join(map(str.ljust, line, widths)).rstrip()


@dataclass(frozen=True)
class Written:
    """A past state was written to the database file `path`."""

    path: str
    past: PastState
    status = FINE

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        n_rows = sum(map(len, self.past.rows.values()))
        yield f"{self.path}: {n_rows:,} rows, {_words(self.past)}"

    def to_json(self) -> dict[str, Any]:
        """See `Report`."""
        return {**edge_json(self.past.edge), "file": self.path}


def _words(past: PastState) -> str:
    return f"as of entry {past.edge.index} ({date_text(past.edge.date_msec)})"


async def at(url: str, moment: Moment, path: str | None, caller: Caller) -> Dump | Written:
    """The state of the log `url` at `moment`, written to the new file `path` if that is given.

    Raises Refusal, LogError, OvsdbError.
    """
    async with open_to_read(Place.parse_log(url)) as stored:
        timeline = await Timeline.open(stored, caller)
        past = await state_at(timeline, moment)
    if path is None:
        return Dump(timeline.schema, past, timeline.tables)
    content = [(timeline.tables[name], list(rows.values())) for name, rows in past.rows.items()]
    pieces = snapshot_entry.encode(
        [each for each in content if each[1]], _words(past), caller.now_msec(), is_diff=False
    )
    schema = orjson.dumps(timeline.schema.to_json())
    standalone.create(path, schema, [b"".join(pieces)])
    return Written(path, past)
