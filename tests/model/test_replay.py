"""The log: reading its entries again leads to the same content and the same transaction ids."""

import asyncio
import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from model.bookkeeping import check, row_of, state_of
from model.naive import Schema, State
from model.pair import DATE, Pair, Uuids, draw_length, draw_pair, draw_transaction, new_database
from ovncp.log.memory import MemoryLog
from ovncp.ovsdb import snapshot_entry
from ovncp.ovsdb.database import Database, Settings
from ovncp.ovsdb.history import Difference
from ovncp.ovsdb.row import Row
from ovncp.server.snapshot import Moment, open_database

# A failure is made small before it is shown, which takes its time.
pytestmark = pytest.mark.timeout(600)

SETTINGS = [Settings(10**9, stores_differences=stored) for stored in (True, False)]


def stored(schema: Schema, state: State) -> State:
    """What the log has of `state`: ephemeral columns have their defaults."""
    defaults = {
        name: {column: table.columns[column].type.default for column in ephemeral(schema, name)}
        for name, table in schema.items()
    }
    return {
        name: {uuid: row | defaults[name] for uuid, row in rows.items()}
        for name, rows in state.items()
    }


def ephemeral(schema: Schema, table: str) -> set[str]:
    """The columns that the log does not have.

    References that keep rows are always stored, whatever the schema says.
    """
    return {
        name
        for name, column in schema[table].columns.items()
        if column.ephemeral
        and not any(
            base.get("refType", "strong") == "strong" and not schema[base["refTable"]].is_root
            for base in (column.type.key, column.type.value or {})
            if "refTable" in base
        )
    }


def run(data: Any, pair: Pair) -> list[tuple[bytes, str, State]]:
    """Random transactions; their entries, each with the state after it and the id of that."""
    entries = []
    for _ in draw_length(data, 8):
        if draw_transaction(data, pair) is not None:
            commit, _ = pair.database.settle()
            if commit.data is not None:
                entries.append((commit.data, commit.transaction_id, pair.state))
                check_entry(pair, commit.data)
    return entries


def check_entry(pair: Pair, data: bytes) -> None:
    """No column that is not to be stored is there."""
    for name, rows in orjson.loads(data).items():
        for row in rows.values() if not name.startswith("_") else ():
            assert not ephemeral(pair.schema, name) & set(row or ())


def replay(database: Database, data: bytes) -> None:
    database.replay(orjson.loads(data), data)
    check(database)


@examples(70)
@given(st.data(), st.sampled_from(SETTINGS))
def test_entries(data, settings):
    pair = draw_pair(data, settings)
    again = new_database(pair.json, settings)
    for entry, transaction_id, _ in run(data, pair):
        replay(again, entry)
        assert again.transaction_id == again.stored_id == transaction_id
    assert state_of(again) == stored(pair.schema, pair.state)


class Stored:
    """A pair whose entries go to a log; `states` has what is stored after each, by its id."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.log = MemoryLog(orjson.dumps(pair.json))
        self.states = {pair.database.transaction_id: stored(pair.schema, pair.state)}

    async def run(self, data: Any) -> None:
        """A few random transactions."""
        for entry, transaction_id, state in run(data, self.pair):
            await self.log.append(self.log.next_index, [entry])
            self.states[transaction_id] = stored(self.pair.schema, state)

    async def compact(self) -> None:
        await compact(self.pair.database, self.log)

    async def open(self, settings: Settings) -> Database:
        """Another database of the same log."""
        again, _ = await open_database(self.log, Uuids(), settings)
        check(again)
        assert state_of(again) == stored(self.pair.schema, self.pair.state)
        return again

    def check_history(self, database: Database) -> int:
        """Each state that `database` knows leads to the present one; how many these are."""
        known = 0
        for transaction_id, state in self.states.items():
            difference = database.history.since(transaction_id)
            if difference is not None:
                known += 1
                assert leads(state, difference) == stored(self.pair.schema, self.pair.state)
        return known


async def compact(database: Database, log: MemoryLog) -> None:
    moment = Moment(database, log.next_index - 1, DATE)
    await log.save_snapshot(moment.index, moment.data("compacted"), moment.history())
    await log.compact(moment.index)


def leads(state: State, difference: Difference) -> State:
    """The state that `difference` leads to from `state`, which it has to know as it is."""
    state = {name: dict(rows) for name, rows in state.items()}
    for (name, uuid), (table, old, new) in difference.items():
        before = state[name].pop(uuid, None)
        assert before == (None if old is None else row_of(table, Row(uuid, old)))
        if new is not None:
            state[name][uuid] = row_of(table, Row(uuid, new))
    return state


def without_ephemeral_columns(json: Any) -> Any:
    for table in json["tables"].values():
        for column in table["columns"].values():
            column.pop("ephemeral", None)
    return json


def draw_stored_pair(data: Any, settings: Settings) -> Pair:
    """A pair all of whose columns are stored."""
    return Pair(without_ephemeral_columns(draw_pair(data).json), settings)


@examples(70)
@given(st.data(), st.sampled_from(SETTINGS))
def test_the_history_outlives_compactions_and_restarts(data, settings):
    async def go() -> None:
        first = Stored(draw_stored_pair(data, settings))
        await first.run(data)
        await first.compact()
        assert (await first.log.snapshot()).history
        await first.run(data)
        again = await first.open(settings)
        assert again.transaction_id == again.stored_id == first.pair.database.stored_id
        assert first.check_history(again) == len(first.states)
        # Compacted by a server that has the history from its predecessor.
        await compact(again, first.log)
        await first.run(data)
        again = await first.open(settings)
        assert again.transaction_id == first.pair.database.stored_id
        assert first.check_history(again) == len(first.states)
        assert first.check_history(await first.open(Settings(0))) == 1

    asyncio.run(go())


@examples(40)
@given(st.data())
def test_a_history_with_what_is_not_stored(data):
    """Ephemeral columns have their defaults in it, as in the state after a restart."""

    async def go() -> None:
        first = Stored(draw_pair(data))
        await first.run(data)
        await first.compact()
        await first.run(data)
        again = await first.open(SETTINGS[0])
        assert again.transaction_id == again.stored_id == first.pair.database.stored_id
        assert first.check_history(again) == len(first.states)

    asyncio.run(go())


@examples(40)
@given(st.data())
def test_a_history_that_makes_no_sense(data):
    """Whatever it says, the database is what the snapshot has."""

    async def go() -> None:
        first, other = (Stored(draw_stored_pair(data, SETTINGS[0])) for _ in range(2))
        await first.run(data)
        await other.run(data)
        log = first.log
        moment = Moment(first.pair.database, log.next_index - 1, DATE)
        strange = Moment(other.pair.database, 0, DATE)
        history = b"".join([piece async for piece in strange.history()])
        at = data.draw(st.integers(0, len(history)), label="cut")
        for text in (history, history[:at]):
            await log.save_snapshot(moment.index, moment.data("compacted"), text)
            await first.open(SETTINGS[0])

    asyncio.run(go())


@examples(70)
@given(st.data())
def test_a_snapshot_is_read_in_pieces(data):
    pair = draw_pair(data)
    run(data, pair)

    async def text() -> bytes:
        return b"".join([piece async for piece in Moment(pair.database, 0, DATE).data("c")])

    snapshot = asyncio.run(text())
    size = data.draw(st.integers(0, 100), label="size")
    pieces = list(snapshot_entry.decode(snapshot, size))
    whole: dict[str, Any] = {}
    for piece in pieces:
        for name, value in piece.items():
            whole[name] = whole.get(name, {}) | value if type(value) is dict else value
    assert whole == orjson.loads(snapshot)


def test_a_cut_within_a_string_is_noticed():
    """Where the text looks like the end of a row, the piece that it would end is no JSON."""
    for text in (b'{"T":{"u":{"s":"x},"},"v":{}},"U":{"w":{"s":"},"}}}', b'{"T":{},"U":{"u":{}}}'):
        for size in range(len(text)):
            with contextlib.suppress(ValueError):
                rows: dict[str, Any] = {}
                for piece in snapshot_entry.decode(text, size):
                    for name, members in piece.items():
                        rows.setdefault(name, {}).update(members)
                assert rows == orjson.loads(text)


def test_a_difference_may_have_more_elements_than_its_column():
    kinds = {"s": {"key": "integer", "max": 2}, "m": {"key": "integer", "value": "integer"}}
    columns = {name: {"type": {**kind, "min": 0, "max": 2}} for name, kind in kinds.items()}
    pair = Pair({"name": "db", "tables": {"T": {"columns": columns}}})
    again = new_database(pair.json)
    for a, b in ((1, 2), (3, 4)):
        row = {"s": ["set", [a, b]], "m": ["map", [[a, a], [b, b]]]}
        empty = {"op": "insert", "table": "T", "row": row}
        change = {"op": "update", "table": "T", "where": [], "row": row}
        assert pair.transact([change if pair.state["T"] else empty])
        entry = pair.database.settle()[0].data
        assert entry is not None
        replay(again, entry)
    (row_json,) = orjson.loads(entry)["T"].values()
    assert len(row_json["s"][1]) == len(row_json["m"][1]) == 4
    assert state_of(again) == pair.state
