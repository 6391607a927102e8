"""A copy of a running server's database, in memory and in a log, kept up with what changes there.

What the server tells becomes entries, each applied here first, as all who read the log will do it.
"""

import asyncio
import time
from typing import Any

from ovncp.log.base import Conflict, Log, LogError, OutcomeUnknown
from ovncp.log.registry import open_log
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.place import Place
from ovncp.ovsdb import replica
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.entry import encode
from ovncp.ovsdb.replay import precommit
from ovncp.ovsdb.transaction import Transaction

_PATIENCE_S = 30.0
_PAUSE_S = 0.5
_ROWS_AT_ONCE = 1000


class LogCopy:
    """The copy: `database` is in `log`, but for the entries that are not stored yet.

    `n_entries` is how many were stored.
    """

    def __init__(self, database: Database, log: Log, comment: str, caller: Caller) -> None:
        self.database = database
        self.log = log
        self.n_entries = 0
        self._next_index = log.next_index
        self._comment = comment
        self._caller = caller
        self._unstored: list[bytes] = []

    @classmethod
    async def open(
        cls, database: Database, target: Place, comment: str, caller: Caller
    ) -> "LogCopy":
        """A copy in the log at `target`, which has `database`. Raises LogError.

        What it comes to have is commented as `comment`.
        """
        return cls(database, await open_log(target.location), comment, caller)

    @property
    def index(self) -> int:
        """The index of the last entry stored."""
        return self._next_index - 1

    @property
    def n_unstored(self) -> int:
        """How many entries are to be stored."""
        return len(self._unstored)

    def take_updates(self, updates: Any) -> None:
        """Take the `<table-updates2>` object of a transaction. Raises OvsdbError."""
        database = self.database
        self._take(replica.transaction_of(updates, database.tables, database.new_version))

    async def take_dump(self, dump: Any) -> None:
        """Take all rows as they are by now, as one transaction; in slices. Raises OvsdbError."""
        tables = self.database.tables
        items: list[replica.Item] = []
        for some in replica.parse_dump(dump, tables, _ROWS_AT_ONCE):
            items += replica.differing(some)
            await asyncio.sleep(0)
        items += replica.missing({name: set(rows) for name, rows in dump.items()}, tables)
        self._take(replica.difference(items, self.database.new_version))

    def _take(self, transaction: Transaction) -> None:
        precommit(transaction, self.database.new_version)
        now_msec = self._caller.now_msec()
        entry = encode(transaction.commit(), self._comment, now_msec, as_difference=True)
        if entry is not None:
            self._unstored.append(entry)

    async def store(self) -> None:
        """Append what was taken, also if the engine is away for a short while. Raises LogError."""
        entries, self._unstored = self._unstored, []
        deadline = time.monotonic() + _PATIENCE_S
        is_unknown = False
        while entries:
            try:
                if not (is_unknown and await self._is_stored()):
                    await self.log.append(self._next_index, entries)
                break
            except Conflict as error:
                raise LogError(f"somebody else writes there, too: {error.details}") from error
            except LogError as error:
                if time.monotonic() > deadline:
                    raise
                is_unknown = is_unknown or isinstance(error, OutcomeUnknown)
            await asyncio.sleep(_PAUSE_S)
        self._next_index += len(entries)
        self.n_entries += len(entries)

    async def _is_stored(self) -> bool:
        async for batch in self.log.read(self._next_index):
            return batch[0].own
        return False
