"""The state of a log: its snapshot, and the entries after it one by one.

    async with open_to_read(place) as stored:
        state = state_of_snapshot(await stored.snapshot(), caller)
        async for step in steps(stored, state):
            if step.date_msec > moment:
                break
            state.take(step)

`newest` is that to the last entry. Other than a server, which passes over what it cannot apply, all
of this stops at an error: whoever moves or checks a database has to know.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from ovncp.log.base import Compacted, Corrupt, Snapshot
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.stored import Stored
from ovncp.ops.show_log import date_msec
from ovncp.ovsdb.database import Database, Settings
from ovncp.ovsdb.entry import Entry, next_id
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.history import History
from ovncp.ovsdb.replay import insert_rows
from ovncp.ovsdb.row import Change
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.snapshot_entry import decode
from ovncp.ovsdb.transaction import Transaction
from ovncp.ovsdb.window import Restoration
from ovncp.wire.json_stream import JsonError, parse

HISTORY_BYTES = 64 << 20
"""How much of a log's history is kept, in memory, where it is wanted: as a server does."""


class Step:
    """One entry of a log: `data` is its text, `entry` what that says."""

    def __init__(self, index: int, data: bytes) -> None:
        """Raises OvsdbError if `data` is no entry."""
        self.index = index
        self.data = data
        self.entry = Entry(parse_text(f"entry {index}", data))

    @property
    def date_msec(self) -> int | None:
        """When it was committed, in milliseconds since the epoch; None if it does not say."""
        return date_of(self.entry)


@dataclass
class State:
    """A database as of the entry `index`, which was committed at `date_msec` if it says so.

    `notes` are what whoever relies on it should know about where it is from.
    """

    database: Database
    index: int
    date_msec: int | None = None
    notes: list[str] = field(default_factory=list)

    def take(self, step: Step) -> list[Change]:
        """Apply the next entry; what it changed. Raises OvsdbError, and then nothing changed."""
        try:
            changes, _ = self.database.replay(step.entry.json, step.data)
        except OvsdbError as error:
            error.details = f"entry {step.index}: {error.details}"
            raise
        self.index, self.date_msec = step.index, step.date_msec
        return changes


def date_of(entry: Entry) -> int | None:
    """When an entry was committed, in milliseconds since the epoch; None if it does not say."""
    return None if entry.date_msec is None else date_msec(entry.date_msec)


def parse_text(what: str, data: bytes) -> Any:
    """The JSON value in the text `data`, which is that of `what`. Raises OvsdbError."""
    try:
        return parse(data)
    except JsonError as error:
        raise OvsdbError("syntax error", f"{what}: not valid JSON ({error})") from error


def state_of_snapshot(snapshot: Snapshot, caller: Caller, history_bytes: int = 0) -> State:
    """The state that `snapshot` has. Raises LogError and OvsdbError.

    `database.history` gets what is stored of it, as far as `history_bytes` go.
    """
    schema = DatabaseSchema.from_json(parse_text("the schema", snapshot.schema))
    start_id = next_id("", orjson.dumps(schema.to_json()))
    database = Database(schema, caller.new_uuid, Settings(history_bytes), start_id)
    state = State(database, snapshot.index)
    if snapshot.data:
        state.date_msec = _fill(database, snapshot.data, caller)
        if snapshot.history and history_bytes:
            _restore_history(database, snapshot.history)
    return state


def _fill(database: Database, data: bytes, caller: Caller) -> int | None:
    """Insert the rows of the snapshot `data`; its date."""
    transaction, n_rows, last = Transaction(), 0, Entry({})
    try:
        for piece in decode(data):
            insert_rows(transaction, database.tables, piece, database.new_version)
            last = Entry(piece)
            n_rows += sum(len(rows) for rows in last.tables.values())
            caller.progress(f"{database.name}: {n_rows:,} rows read")
    except (ValueError, OvsdbError):
        # It may not be what a server of ours wrote; what is really wrong with it, this will say.
        transaction.abort()
        step = Step(0, data)
        database.replay(step.entry.json, data)
        return step.date_msec
    for _ in database.fill(transaction):
        pass
    database.resume(History(database.settings.history_bytes, next_id(database.stored_id, data)))
    return date_of(last)


def _restore_history(database: Database, text: bytes) -> None:
    restoration = Restoration(
        text,
        database.tables,
        database.settings.history_bytes,
        database.new_version,
        lambda data: parse_text("the history", data),
    )
    try:
        for _ in restoration.steps():
            pass
    except ValueError as error:
        raise Corrupt(f"the snapshot's history is not right: {error}") from error
    database.resume(restoration.history)


async def steps(stored: Stored, state: State) -> AsyncIterator[Step]:
    """The entries of `stored` after `state`, each to be taken or not. Raises as `Log.read`.

    Raises OvsdbError at one that makes no sense.
    """
    async for batch in stored.read(state.index + 1):
        for entry in batch:
            yield Step(entry.index, entry.data)


async def newest(
    stored: Stored, caller: Caller, history_bytes: int = 0, last: int | None = None
) -> State:
    """The state as of the last entry, or the entry `last`. Raises LogError and OvsdbError."""
    while True:
        state = state_of_snapshot(await stored.snapshot(), caller, history_bytes)
        if last is not None and state.index > last:
            raise Compacted(f"entry {last} is part of the snapshot")
        try:
            async for step in steps(stored, state):
                if step.index - 1 == last:
                    break
                state.take(step)
                caller.progress(f"{state.database.name}: entry {step.index:,}")
        except Compacted:
            continue  # There is a newer snapshot, which another server saved meanwhile.
        return state
