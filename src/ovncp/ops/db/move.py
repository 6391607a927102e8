"""A database put into a new log, and read back from there: what import, copy and export share.

What is stored is a snapshot of the state, which appears whole or not at all. With it goes the
history where there is one, so that clients that change over to the new log resume where they were;
it is added afterwards, since it is worth less than the rest.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ovncp.log.registry import open_log
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.compare import Comparison, compare
from ovncp.ops.db.create import make, schema_text
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.report import FINE, FOUND
from ovncp.ops.db.source import n_rows, read
from ovncp.ops.db.state import HISTORY_BYTES, State
from ovncp.ovsdb import snapshot_entry
from ovncp.ovsdb.window import Window

_UNSEEN = 1_000_000
"""How far the index goes on past the copy's: clients of a cluster take a server with a lower index
than they have seen for one that is behind, and leave; and the source may go on for a while."""


@dataclass(frozen=True)
class Moved:
    """A database was put into another place; `verb` is what that is called.

    `comparison` is of what was read at the source with what was read back.
    """

    verb: str
    source: Place
    target: Place
    state: State
    n_history: int
    comparison: Comparison

    @property
    def status(self) -> int:
        """See `Report`."""
        return FINE if self.comparison.is_equal else FOUND

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        schema = self.state.database.schema
        yield (
            f"{self.target.name}: {schema.name} {schema.version}, {n_rows(self.state):,} rows "
            f"{self.verb} from {self.source.name}"
        )
        yield from self.state.notes
        if self.n_history:
            yield f"with the latest {self.n_history:,} transactions, so that clients can resume"
        if self.comparison.is_equal:
            yield f"read back: all {self.comparison.n_rows:,} rows are the same"
        else:
            yield "READ BACK, IT IS NOT THE SAME, and must not be used:"
            yield from self.comparison.lines()

    def to_json(self) -> dict[str, Any]:
        """See `Report`."""
        schema = self.state.database.schema
        return {
            "source": self.source.name,
            "target": self.target.name,
            "schema": schema.name,
            "version": schema.version,
            "index": self.state.index,
            "rows": n_rows(self.state),
            "notes": self.state.notes,
            "transactions_kept": self.n_history,
            "verified": self.comparison.is_equal,
            "comparison": self.comparison.to_json(),
        }


async def move(verb: str, source: Place, target: Place, caller: Caller) -> Moved:
    """Put the state at `source` into a new log at `target`, and compare.

    Raises Refusal, LogError, OvsdbError and OSError: there is no new log then, unless it could not
    be read back.
    """
    state = await read(source, caller, HISTORY_BYTES)
    comment = f"{verb} from {source.name}"
    n_history = await store(state, target, comment, caller)
    return Moved(verb, source, target, state, n_history, await read_back(state, target, caller))


async def store(state: State, target: Place, comment: str, caller: Caller) -> int:
    """Make the log `target` of `state`; how many transactions of history it has.

    Raises LogError, as when there is one already.
    """
    database = state.database
    pieces = snapshot(state, comment, caller)
    schema = schema_text(database.schema)
    if target.kind is Kind.FILE:
        await make(target, schema, b"".join(pieces))
    else:
        words = f"storing {target.name}"
        await make(target, schema, _watched(pieces, words, caller), state.index + _UNSEEN)
    n_steps = len(database.history)
    if n_steps:
        history = b"".join(Window(database.history, database.stored_id).encode())
        log = await open_log(target.location)
        try:
            await log.save_snapshot(log.next_index - 1, pieces, history)
        finally:
            await log.close()
    return n_steps


def snapshot(state: State, comment: str, caller: Caller) -> list[bytes]:
    """The text of the entry that `state` is, in pieces."""
    content = snapshot_entry.rows_of(state.database.tables.values())
    return list(snapshot_entry.encode(content, comment, caller.now_msec(), is_diff=False))


def _watched(pieces: list[bytes], words: str, caller: Caller) -> Iterator[bytes]:
    done, total = 0, sum(map(len, pieces))
    for piece in pieces:
        done += len(piece)
        caller.progress(words, done, total)
        yield piece


async def read_back(
    state: State, target: Place, caller: Caller, last: int | None = None
) -> Comparison:
    """Compare `state` with what is at `target`, as of the entry `last`. Raises as `read`."""
    copy = await read(target, caller, last=last)
    return compare_states(state, copy, ("source", "copy"), caller)


def compare_states(
    first: State, second: State, names: tuple[str, str], caller: Caller
) -> Comparison:
    """Compare two states, called `names`, with the caller looking on."""
    total = max(n_rows(first), n_rows(second))
    words = f"comparing {total:,} rows"
    return compare(
        first.database, second.database, names, lambda n: caller.progress(words, n, total)
    )
