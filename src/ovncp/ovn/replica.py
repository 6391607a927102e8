"""A database as it is now, followed by a monitor (ovsdb-server(7) section 4.1.15).

The rows are kept in the tables of `ovncp.ovsdb`, made from whatever schema the server has, and are
brought up to date by each update of the server as one transaction. When the session was lost it is
resumed where it was, or what differs is found in a whole dump; what is here is served meanwhile.
"""

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import orjson

from ovncp.ovn.rows import Rows
from ovncp.ovn.session import Endpoint, Job, Session, SessionLost
from ovncp.ovsdb import replica
from ovncp.ovsdb.atom import ZERO_UUID
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.row import Change
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.transaction import Transaction
from ovncp.wire.client import Answer
from ovncp.wire.large_dump import LargeDump

_LOG = logging.getLogger("ovncp.ovn")

_ROWS_PER_SLICE = 200
_IDS_KEPT = 10_000

Listener = Callable[[Sequence[Change]], None]
"""Called with what one transaction changed; None of the rows is to be waited for."""


class Replica:
    """The database `name`, which is at one of `endpoints`.

    Who needs it while it is out of reach waits for `patience_s` seconds at most.
    `rows` has those of each table; it is empty until the database was there for the first time.
    `listeners` are called with each transaction's changes, `replaced` when all rows are others, as
    after a conversion to another schema.
    """

    def __init__(self, name: str, endpoints: Sequence[Endpoint], patience_s: float = 30.0) -> None:
        self.name = name
        self._patience_s = patience_s
        self.database = Database(DatabaseSchema(name, "", ""), new_uuid)
        self.rows: dict[str, Rows] = {}
        self.listeners: list[Listener] = []
        self.replaced: list[Callable[[], None]] = []
        self._changed = asyncio.Event()
        # The monitor of now, and whether its rows are here.
        self._monitor_id: list[Any] | None = None
        self._schema: Any = None
        self._n_monitors = 0
        self._is_synchronized = False
        self._last_id = ZERO_UUID
        self._ids: OrderedDict[str, None] = OrderedDict()
        self.session = Session(name, endpoints, self)

    # What is served

    @property
    def is_live(self) -> bool:
        """Whether the rows are those of a server that is connected."""
        return self._is_synchronized

    @property
    def is_filled(self) -> bool:
        """Whether there is anything to serve, however old."""
        return bool(self.rows)

    @property
    def age(self) -> float:
        """For how many seconds at most the rows may have been others at the server."""
        return time.monotonic() - self.session.heard

    @property
    def last_id(self) -> str:
        """The id of the last transaction that is here; zeros where the server has none."""
        return self._last_id

    def has_seen(self, transaction_id: str) -> bool:
        """Whether a recent transaction is here, by an id that is not zeros."""
        return transaction_id in self._ids

    async def changed(self) -> None:
        """Return after the next change, of the rows or of whether they are live."""
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def live(self) -> None:
        """Return when the rows are live. Raises SessionLost when that takes too long."""
        if not self._is_synchronized:
            await self._until(lambda: self._is_synchronized)

    async def filled(self) -> None:
        """Return when there is anything to serve. Raises SessionLost when that takes too long."""
        if not self.rows:
            await self._until(lambda: bool(self.rows))

    async def _until(self, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                while not holds():
                    await self.changed()
        except TimeoutError as error:
            raise SessionLost(f"{self.name} is out of reach", sent=False) from error

    async def transact(self, operations: Iterable[Any]) -> Answer:
        """Execute `operations`; what they changed is here when the answer is.

        Raises SessionLost, which leaves open whether it happened if it was `sent`.
        """
        await self.live()
        return await self.session.ask("transact", [self.name, *operations])

    async def close(self) -> None:
        """Follow no more."""
        await self.session.close()

    # Following (see `Follower`)

    def found(self, schema: str) -> None:
        """See `Follower.found`."""
        try:
            json = DatabaseSchema.from_json(orjson.loads(schema)).to_json()
        except (OvsdbError, ValueError) as error:
            self.session.leave(f"the schema of {self.name} is not valid ({error})")
            return
        if self._monitor_id is None or self._schema != json:
            self._follow(json)

    def _follow(self, json: Any) -> None:
        """Monitor all of the database, from where we are if the server has not another schema."""
        schema = DatabaseSchema.from_json(json)
        is_same = self.is_filled and json == self.database.schema.to_json()
        self._schema = json
        self._n_monitors += 1
        self._monitor_id = [self.name, self._n_monitors]
        requests: dict[str, Any] = {name: [{}] for name in schema.tables}
        known_id = self._last_id if is_same else ZERO_UUID
        params = [self.name, self._monitor_id, requests, known_id]
        first = partial(self._first, self._monitor_id, None if is_same else schema)
        self.session.request("monitor_cond_since", params, first)

    def _first(
        self, monitor_id: list[Any], schema: DatabaseSchema | None, result: Any, error: Any
    ) -> Job | None:
        """Take the first rows, or what changed since we knew them; `schema` is a new one."""
        if monitor_id != self._monitor_id:
            return None
        if error is not None:
            self.session.leave(f"{self.name} cannot be monitored there ({error})")
            return None
        found, last_id, updates = result
        if found:
            if self._update(updates, last_id):
                self._synchronized()
            return None
        if schema is not None:
            return self._fill(schema, updates, last_id)
        return self._catch_up(updates, last_id)

    def _synchronized(self) -> None:
        self._is_synchronized = True
        _LOG.info("%s: following %s", self.session.endpoint, self.name)
        self._tell()

    async def _fill(self, schema: DatabaseSchema, updates: Any, last_id: str) -> None:
        """Take the rows of `updates`, and them alone, under a schema that is new to us."""
        database = Database(schema, new_uuid)
        try:
            for piece in _pieces(updates):
                for items in replica.parse_dump(piece, database.tables, _ROWS_PER_SLICE):
                    replica.fill(items, database.new_version)
                    await asyncio.sleep(0)
        except (OvsdbError, ValueError) as error:
            self._distrust(error)
            return
        self.database = database
        self.rows = {name: Rows(table) for name, table in database.tables.items()}
        for rows in self.rows.values():
            rows.link(self.rows)
        self._note_id(last_id)
        for replaced in self.replaced:
            replaced()
        self._synchronized()

    async def _catch_up(self, updates: Any, last_id: str) -> None:
        """Make the rows those of `updates`; it is told as one transaction what differs."""
        tables = self.database.tables
        items: list[replica.Item] = []
        known: dict[str, set[str]] = {}
        try:
            for piece in _pieces(updates):
                for parsed in replica.parse_dump(piece, tables, _ROWS_PER_SLICE):
                    items += replica.differing(parsed)
                    await asyncio.sleep(0)
                for name, rows in piece.items():
                    known.setdefault(name, set()).update(rows)
        except (OvsdbError, ValueError) as error:
            self._distrust(error)
            return
        items += replica.missing(known, tables)
        self._apply(replica.difference(items, self.database.new_version), last_id)
        self._synchronized()

    def told(self, method: str, params: list[Any]) -> Job | None:
        """See `Follower.told`."""
        if not params or params[0] != self._monitor_id:
            return None
        if method == "update3":
            self._update(params[2], params[1])
        elif method == "monitor_canceled":
            self._unfollow()
            # The schema is another one, most likely, which C's server shows in `_Server` late.
            self.session.request("get_schema", [self.name], self._follow_again)
        return None

    def _follow_again(self, result: Any, error: Any) -> None:
        if error is not None:
            self.session.leave(f"{self.name} is there no more ({error})")
        elif self._monitor_id is None:
            self._follow(DatabaseSchema.from_json(result).to_json())

    def _update(self, updates: Any, last_id: str) -> bool:
        """Take the server's next transaction; whether it fits what is here."""
        database = self.database
        try:
            transaction = replica.transaction_of(updates, database.tables, database.new_version)
        except OvsdbError as error:
            self._distrust(error)
            return False
        self._apply(transaction, last_id)
        return True

    def _apply(self, transaction: Transaction, last_id: str) -> None:
        changes = transaction.commit()
        self._note_id(last_id)
        for change in changes:
            self.rows[change.table.name].change(change)
        for listener in self.listeners:
            listener(changes)
        self._tell()

    def _note_id(self, last_id: str) -> None:
        self._last_id = last_id
        if last_id != ZERO_UUID:
            self._ids[last_id] = None
            if len(self._ids) > _IDS_KEPT:
                self._ids.popitem(last=False)

    def _distrust(self, error: Exception) -> None:
        """Begin anew with a server whose updates do not fit what is here."""
        _LOG.warning("%s: %s", self.name, error)
        self._last_id = ZERO_UUID
        self.session.leave(f"{self.name} here is not what it is there")

    def _unfollow(self) -> None:
        self._monitor_id = None
        self._is_synchronized = False
        self._tell()

    def lost(self) -> None:
        """See `Follower.lost`."""
        self._unfollow()


def _pieces(dump: Any) -> Iterable[Any]:
    """A dump as it came, in one piece or in many."""
    return dump.pieces() if isinstance(dump, LargeDump) else (dump,)


def new_uuid() -> str:
    """A uuid for a row that is to be."""
    return str(uuid.uuid4())
