"""A copy of a source's database, kept by a monitor of all of it (ovsdb-server(7) section 4.1.15).

Each update of the source becomes one transaction of the copy. After a lost connection the monitor
is resumed where the copy is; where the source knows no more what has changed since, what differs is
found in a whole dump. A dump under another schema is taken into a new database beside the old one.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Protocol

import orjson

from ovncp.ovsdb import replica
from ovncp.ovsdb.atom import ZERO_UUID
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.transaction import Transaction
from ovncp.wire.large_dump import LargeDump

_ROWS_PER_SLICE = 200

Job = Coroutine[Any, Any, None]


class Source(Protocol):
    """The connection to where the database is."""

    def request(
        self, method: str, params: list[Any], answered: Callable[[Any, Any], Job | None]
    ) -> int:
        """Ask; there is no answer when the connection is lost."""

    def leave(self, why: str) -> None:
        """Give up the present connection."""


class Copy(Protocol):
    """Whose `database` is kept a copy."""

    database: Database

    @property
    def name(self) -> str:
        """Its name, here and at the source."""

    def known_id(self) -> str | None:
        """The source's id of what is here, zeros if it gives none; None if nothing is here yet."""

    def begin(self, schema: DatabaseSchema, last_id: str) -> Database:
        """A new database for the rows of a dump, as of `last_id`."""

    def replace(self, database: Database, last_id: str) -> None:
        """Have `database`, which is filled, in place of the one of now."""

    def apply(self, transaction: Transaction, last_id: str) -> None:
        """Commit `transaction`, with which all is here as of `last_id`."""

    def synchronized(self, *, by_dump: bool) -> None:
        """Note that all is here that the source has, if need be by a whole dump."""

    def unsynchronized(self, *, was_synchronized: bool) -> None:
        """Note that the source is not followed any more."""

    def canceled(self) -> bool:
        """Whether to follow anew, as the source has ended the monitor: a conversion, most likely"""

    def distrust(self, error: Exception) -> None:
        """Resume nowhere: the source's updates do not fit what is here."""


class Following:
    """Keeps `copy` what the database of that name is at `source`, once `follow` is called.

    Whoever has the connection calls `told` with what the source says of `monitor_id`, and `end`
    when the connection is lost.
    """

    def __init__(self, copy: Copy, source: Source) -> None:
        self.source = source
        self.monitor_id: list[Any] | None = None
        self.is_synchronized = False
        self._copy = copy
        self._schema_text = ""
        self._schema: Any = None
        self._n_monitors = 0

    def follow(self, schema_text: str) -> None:
        """Follow the source's database under this schema, if that is not done already."""
        if self.monitor_id is not None and self._schema_text == schema_text:
            return
        try:
            schema = DatabaseSchema.from_json(orjson.loads(schema_text))
        except (OvsdbError, ValueError) as error:
            self.source.leave(f"the schema of {self._copy.name} is not valid ({error})")
            return
        if self.monitor_id is None or self._schema != schema.to_json():
            self._monitor(schema)
        self._schema_text = schema_text

    def _monitor(self, schema: DatabaseSchema) -> None:
        """Monitor all of the database, from where we are if the source has not another schema."""
        name = self._copy.name
        self._schema, self._schema_text = schema.to_json(), ""
        self._n_monitors += 1
        self.monitor_id = [name, self._n_monitors]
        known_id = self._copy.known_id()
        is_same = known_id is not None and self._schema == self._copy.database.schema.to_json()
        requests: dict[str, Any] = {table: [{}] for table in schema.tables}
        params = [name, self.monitor_id, requests, known_id if is_same else ZERO_UUID]
        first = partial(self._first, self.monitor_id, None if is_same else schema)
        self.source.request("monitor_cond_since", params, first)

    def _first(
        self, monitor_id: list[Any], schema: DatabaseSchema | None, result: Any, error: Any
    ) -> Job | None:
        """Take the first rows, or what changed since we knew them; `schema` is a new one."""
        if monitor_id != self.monitor_id:
            return None
        if error is not None:
            self.source.leave(f"{self._copy.name} cannot be monitored there ({error})")
            return None
        found, last_id, updates = result
        if found:
            if self._update(updates, last_id):
                self._synchronized(by_dump=False)
            return None
        if schema is not None:
            return self._fill(schema, updates, last_id)
        return self._catch_up(updates, last_id)

    def _synchronized(self, *, by_dump: bool) -> None:
        self.is_synchronized = True
        self._copy.synchronized(by_dump=by_dump)

    async def _fill(self, schema: DatabaseSchema, updates: Any, last_id: str) -> None:
        """Have the rows of `updates`, and them alone, under a schema that is new to us."""
        database = self._copy.begin(schema, last_id)
        try:
            for piece in _pieces(updates):
                for items in replica.parse_dump(piece, database.tables, _ROWS_PER_SLICE):
                    replica.fill(items, database.new_version)
                    await asyncio.sleep(0)
        except (OvsdbError, ValueError) as error:
            self._distrust(error)
            return
        self._copy.replace(database, last_id)
        self._synchronized(by_dump=True)

    async def _catch_up(self, updates: Any, last_id: str) -> None:
        """Make the rows those of `updates`; what differs is one transaction."""
        database = self._copy.database
        items: list[replica.Item] = []
        known: dict[str, set[str]] = {}
        try:
            for piece in _pieces(updates):
                for parsed in replica.parse_dump(piece, database.tables, _ROWS_PER_SLICE):
                    items += replica.differing(parsed)
                    await asyncio.sleep(0)
                for name, rows in piece.items():
                    known.setdefault(name, set()).update(rows)
        except (OvsdbError, ValueError) as error:
            self._distrust(error)
            return
        items += replica.missing(known, database.tables)
        # Only what comes from the source changes the rows, and that is waiting for us.
        self._copy.apply(replica.difference(items, database.new_version), last_id)
        self._synchronized(by_dump=True)

    def told(self, method: str, params: list[Any]) -> Job | None:
        """Take a notification about one of the monitors, whose id is the first parameter."""
        if params[0] != self.monitor_id:
            return None
        if method == "update3":
            self._update(params[2], params[1])
        elif method == "monitor_canceled":
            self.end()
            # The schema is another one, most likely, which C's server shows in `_Server` late.
            self.source.request("get_schema", [self._copy.name], self._follow_again)
        return None

    def _follow_again(self, result: Any, error: Any) -> None:
        if self.monitor_id is not None or not self._copy.canceled():
            return
        if error is not None:
            self.source.leave(f"{self._copy.name} is there no more ({error})")
        else:
            self._monitor(DatabaseSchema.from_json(result))

    def _update(self, updates: Any, last_id: str) -> bool:
        """Take the source's next transaction; whether it fits what is here."""
        database = self._copy.database
        try:
            transaction = replica.transaction_of(updates, database.tables, database.new_version)
        except OvsdbError as error:
            self._distrust(error)
            return False
        self._copy.apply(transaction, last_id)
        return True

    def _distrust(self, error: Exception) -> None:
        """Begin anew with a source whose updates do not fit what is here."""
        self._copy.distrust(error)
        self.source.leave(f"{self._copy.name} here is not what it is there")

    def end(self) -> None:
        """Note that the source tells us nothing more."""
        was_synchronized = self.is_synchronized
        self.monitor_id = None
        self.is_synchronized = False
        self._copy.unsynchronized(was_synchronized=was_synchronized)


def _pieces(dump: Any) -> Iterable[Any]:
    """A dump as it came, in one piece or in many."""
    return dump.pieces() if isinstance(dump, LargeDump) else (dump,)
