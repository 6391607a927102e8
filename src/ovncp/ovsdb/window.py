"""The history as text, which is kept with a snapshot, so that a server that starts again has it.

    ["START ID", "END ID"]
    {"TABLE": {"UUID": {"COLUMN": VALUE, ...}, ...}}    rows as they were in the state START
    ...
                                                        an empty line
    ENTRY                                               the log's, one a line, from START to END
    ...

Only the rows are there that the entries touch, which lead to the old and new values of each change.
What is read is checked in two ways: the chain of ids over the entries has to end in END, the id of
the snapshot; and the rows have to end as the snapshot has them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any

import orjson

from ovncp.ovsdb.entry import Entry, next_id
from ovncp.ovsdb.history import History, Kept, Step
from ovncp.ovsdb.replay import datums_of
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.schema import VERSION
from ovncp.ovsdb.snapshot_entry import encode_rows
from ovncp.ovsdb.table import Table

_ROWS_PER_PIECE = 100
_STEPS_PER_PIECE = 1000


class Window:
    """The part of `history` that is stored in the log, as of now, up to the entry `end_id`."""

    def __init__(self, history: History, end_id: str) -> None:
        self.start_id = history.stored_start_id
        self.end_id = end_id
        self._steps = history.steps()

    def encode(self) -> Iterator[bytes]:
        """The text in pieces, each of which takes little time; some are empty."""
        yield orjson.dumps([self.start_id, self.end_id]) + b"\n"
        rows: dict[str, tuple[Table, list[Values]]] = {}
        touched: set[tuple[str, str]] = set()
        for steps in _slices(self._steps, _STEPS_PER_PIECE):
            _collect_first(steps, touched, rows)
            yield b""
        for table, all_values in rows.values():
            for values in _slices(all_values, _ROWS_PER_PIECE):
                yield b'{"%b":{%b}}\n' % (table.name.encode(), encode_rows(table, values))
        yield b"\n"
        for steps in _slices(self._steps, _STEPS_PER_PIECE):
            yield b"".join([step.data + b"\n" for step in steps if step.data is not None])


class LiveWindow:
    """As `Window`, but up to the state in which `history` is once all `steps` are done.

    `text` is it as a JSON array of strings then, in parts; None if there is none, since the history
    forgot too much meanwhile, or ends in a state that is not stored.
    """

    def __init__(self, history: History) -> None:
        self.text: list[bytes] | None = None
        self._history = history
        self._start_id = history.stored_start_id
        self._number = history.first_number
        self._touched: set[tuple[str, str]] = set()
        self._rows: list[bytes] = []
        self._entries: list[bytes] = []

    def steps(self, stored_id: Callable[[], str]) -> Iterator[None]:
        """Make it step by step; `stored_id` tells the id of the log's last entry as of then."""
        history = self._history
        while history.first_number <= self._number < history.newest_number:
            end = min(self._number + _STEPS_PER_PIECE, history.newest_number)
            self._take([history.step(number) for number in range(self._number + 1, end + 1)])
            self._number = end
            yield
        if self._number == history.newest_number and history.newest_id == stored_id():
            head = orjson.dumps([self._start_id, history.newest_id]) + b"\n"
            self.text = [b"[", _string(head)]
            for string in (*self._rows, _string(b"\n"), *self._entries):
                self.text += (b",", string)
            self.text.append(b"]")

    def _take(self, steps: list[Step]) -> None:
        rows: dict[str, tuple[Table, list[Values]]] = {}
        _collect_first(steps, self._touched, rows)
        for table, values in rows.values():
            line = b'{"%b":{%b}}\n' % (table.name.encode(), encode_rows(table, values))
            self._rows.append(_string(line))
        entries = [step.data + b"\n" for step in steps if step.data is not None]
        self._entries.append(_string(b"".join(entries)))


def _string(text: bytes) -> bytes:
    """`text` as a JSON string."""
    return orjson.dumps(text.decode())


def _slices(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _collect_first(
    steps: Iterable[Step],
    touched: set[tuple[str, str]],
    rows: dict[str, tuple[Table, list[Values]]],
) -> None:
    """Add to `rows` what the rows were before `steps` that were not `touched` before."""
    for step in steps:
        if step.data is None:
            continue
        for change in step.changes:
            key = (change.table.name, change.uuid)
            if key not in touched:
                touched.add(key)
                if change.old is not None:
                    rows.setdefault(key[0], (change.table, []))[1].append(change.old)


class Restoration:
    """A history on its way back from its text.

    `tables` hold what the snapshot has. Each step takes little time; those of them that raise
    OvsdbError or ValueError say that the text is not the history of this snapshot.
    """

    def __init__(
        self,
        text: bytes,
        tables: dict[str, Table],
        max_bytes: int,
        new_version: Callable[[], int],
        parse: Callable[[bytes], Any],
    ) -> None:
        """`parse` reads JSON; `new_version` is as for `Database`."""
        head, _, rest = text.partition(b"\n")
        rows, _, entries = rest.partition(b"\n\n") if rest[:1] != b"\n" else (b"", b"", rest[1:])
        start_id, self.end_id = parse(head)
        self.history = History(max_bytes, start_id)
        self._rows = [line for line in rows.split(b"\n") if line]
        self._entries = [line for line in entries.split(b"\n") if line]
        self._tables = tables
        self._new_version = new_version
        self._parse = parse
        # What each row is so far, and the last change of it.
        self._values: dict[tuple[str, str], Values] = {}
        self._last: dict[tuple[str, str], Kept] = {}

    def steps(self) -> Iterator[None]:
        """Do it, with a pause after each step."""
        for line in self._rows:
            self._take_rows(self._parse(line))
            yield
        entries = iter(self._entries)
        while batch := list(islice(entries, _ROWS_PER_PIECE)):
            for data in batch:
                self._take_entry(data)
            yield
        if self.history.newest_id != self.end_id:
            raise ValueError("the entries do not lead to the snapshot")
        self._tie_to_snapshot()

    def _take_rows(self, json: dict[str, Any]) -> None:
        for name, rows in json.items():
            table = self._table(name)
            for uuid, row in rows.items():
                datums = table.parse_row(row, None)
                self._values[name, uuid] = table.make_row(uuid, datums, self._new_version()).values

    def _table(self, name: str) -> Table:
        table = self._tables.get(name)
        if table is None:
            raise ValueError(f"there is no table {name}")
        return table

    def _take_entry(self, data: bytes) -> None:
        entry = Entry(self._parse(data))
        changes: list[Kept] = []
        n_bytes = 0
        for name, rows in entry.tables.items():
            table = self._table(name)
            for uuid, row in rows.items():
                change, columns = self._change(table, uuid, row, entry.is_diff)
                n_bytes += change.cost(columns)
                changes.append(change)
        transaction_id = next_id(self.history.newest_id, data)
        self.history.add_step(Step(transaction_id, changes, data, n_bytes))

    def _change(
        self, table: Table, uuid: str, json: Any, is_diff: bool
    ) -> tuple[Kept, Collection[int]]:
        """The change of a row, and the columns that it touches."""
        key = (table.name, uuid)
        old = self._values.pop(key, None)
        columns: Collection[int] = ()
        new: Values | None = None
        if json is not None:
            datums = datums_of(table, old, json, is_diff)
            columns = datums.keys()
            new = self._values[key] = _with(table, uuid, old, datums, self._new_version())
        elif old is None:
            raise ValueError(f"row {uuid} is deleted before it is there")
        change = self._last[key] = Kept(table, uuid, old, new)
        return change, columns

    def _tie_to_snapshot(self) -> None:
        """Check that the rows end as they are, and let the last changes share their values."""
        for (name, uuid), change in self._last.items():
            row = self._tables[name].rows.get(uuid)
            now = None if row is None else row.values
            if (change.new is None) is not (now is None):
                raise ValueError(f"row {uuid} does not end as the snapshot has it")
            if change.new is not None and now is not None:
                if not _is_same(self._tables[name], change.new, now):
                    raise ValueError(f"row {uuid} does not end as the snapshot has it")
                change.new = now


def _is_same(table: Table, one: Values, other: Values) -> bool:
    """Whether two rows are the same as far as they are stored."""
    return all(one[index] == other[index] for _, index, _, _ in table.stored)


def _with(
    table: Table, uuid: str, old: Values | None, datums: dict[int, Any], version: int
) -> Values:
    """`old`, or a new row, with `datums`."""
    if old is None:
        return table.make_row(uuid, datums, version).values
    values = list(old)
    for index, datum in datums.items():
        values[index] = datum
    values[VERSION] = version
    return tuple(values)
