"""`ovncp db verify`: whether a database is whole, or two are the same.

A log is read from its snapshot to its last entry. Every entry has to make sense and to keep the
rules of the schema; the history has to lead to the snapshot. In the end all rows are written as
text and read again into an empty database: each value has to fit its column's type, and all of them
together the schema's rules, whichever way they came there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ovncp.log.base import Compacted, Corrupt, Snapshot
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.compare import Comparison
from ovncp.ops.db.create import schema_text
from ovncp.ops.db.move import compare_states, snapshot
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.report import FINE, FOUND, words
from ovncp.ops.db.source import n_rows, read
from ovncp.ops.db.state import HISTORY_BYTES, State, state_of_snapshot, steps
from ovncp.ops.db.stored import Stored, open_to_read
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.replay import Inapplicable


@dataclass
class Checked:
    """One database was read; `problems` is what is wrong with it."""

    place: Place
    state: State | None = None
    n_entries: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        """See `Report`."""
        return FOUND if self.problems else FINE

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        if self.state is not None:
            schema = self.state.database.schema
            yield (
                f"{self.place.name}: {schema.name} {schema.version}, {self.n_entries:,} entries "
                f"up to {self.state.index:,}, {n_rows(self.state):,} rows"
            )
        yield from self.problems or ["all is well"]

    def to_json(self) -> dict[str, Any]:
        """See `Report`."""
        json: dict[str, Any] = {"place": self.place.name, "problems": self.problems}
        if self.state is not None:
            schema = self.state.database.schema
            json |= {
                "schema": schema.name,
                "version": schema.version,
                "index": self.state.index,
                "entries": self.n_entries,
                "rows": n_rows(self.state),
            }
        return json


@dataclass(frozen=True)
class Compared:
    """Two databases were compared."""

    comparison: Comparison

    @property
    def status(self) -> int:
        """See `Report`."""
        return FINE if self.comparison.is_equal else FOUND

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        yield from self.comparison.lines()
        n_different, n_all = len(self.comparison.rows), self.comparison.n_rows
        if self.comparison.is_equal:
            yield f"all {n_all:,} rows are the same"
        else:
            yield f"{n_different:,} of {n_all:,} rows differ"

    def to_json(self) -> dict[str, Any]:
        """See `Report`."""
        return self.comparison.to_json()


async def compare_places(first: str, second: str, caller: Caller) -> Compared:
    """Compare what two places have now. Raises as `read`."""
    places = Place.parse(first), Place.parse(second)
    one, other = [await read(place, caller) for place in places]
    names = places[0].name, places[1].name
    return Compared(compare_states(one, other, names, caller))


async def check(url: str, caller: Caller) -> Checked:
    """Read all that is at `url`. Raises as `read` where that is out of reach."""
    checked = Checked(Place.parse(url))
    try:
        if checked.place.kind is Kind.SERVER:
            checked.state = await read(checked.place, caller)
        else:
            async with open_to_read(checked.place) as stored:
                await _read_all(stored, checked, caller)
        if checked.state is not None:
            _check_as_text(checked.state, checked, caller)
    except Corrupt as error:
        checked.problems.append(words(error))
    except OvsdbError as error:
        checked.problems.append(str(error))
    return checked


async def _read_all(stored: Stored, checked: Checked, caller: Caller) -> None:
    while True:
        checked.n_entries, checked.problems, checked.state = 0, [], None
        checked.state = await _beginning(stored, checked, caller)
        try:
            return await _take_all(stored, checked.state, checked, caller)
        except Compacted:
            pass  # There is a newer snapshot, which a server saved meanwhile.


async def _beginning(stored: Stored, checked: Checked, caller: Caller) -> State:
    found = await stored.snapshot()
    try:
        return state_of_snapshot(found, caller, HISTORY_BYTES)
    except Corrupt as error:
        checked.problems.append(words(error))
        return state_of_snapshot(found, caller)


async def _take_all(stored: Stored, state: State, checked: Checked, caller: Caller) -> None:
    async for step in steps(stored, state):
        try:
            state.take(step)
        except Inapplicable as error:
            checked.problems.append(f"{error}; servers leave it out")
        checked.n_entries += 1
        caller.progress(f"{checked.place.name}: entry {step.index:,}")


def _check_as_text(state: State, checked: Checked, caller: Caller) -> None:
    schema = schema_text(state.database.schema)
    text = b"".join(snapshot(state, "", caller))
    again = state_of_snapshot(Snapshot(state.index, schema, text), caller)
    comparison = compare_states(state, again, ("what was read", "what is allowed"), caller)
    checked.problems += comparison.lines()
