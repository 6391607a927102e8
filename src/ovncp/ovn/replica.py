"""A database as it is now, followed by a monitor (ovsdb-server(7) section 4.1.15).

The rows are kept in the tables of `ovncp.ovsdb`, made from whatever schema the server has, and are
brought up to date by each update of the server as one transaction. When the session was lost it is
resumed where it was, or what differs is found in a whole dump; what is here is served meanwhile.
"""

import asyncio
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ovncp.cluster.breaker import Breaker, BreakerOpen
from ovncp.follow.following import Following
from ovncp.follow.link import Endpoint, Job
from ovncp.ovn.rows import Rows
from ovncp.ovn.session import Session, SessionLost
from ovncp.ovsdb.atom import ZERO_UUID
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.row import Change
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.transaction import Transaction
from ovncp.wire.client import Answer

_LOG = logging.getLogger("ovncp.ovn")

_IDS_KEPT = 10_000

Listener = Callable[[Sequence[Change]], None]
"""Called with what one transaction changed; None of the rows is to be waited for."""


class Replica:
    """The database `name`, which is at one of `endpoints`.

    Who needs it while it is out of reach waits for `patience_s` seconds at most, and not at all
    once some have waited in vain.
    `rows` has those of each table; it is empty until the database was there for the first time.
    `listeners` are called with each transaction's changes, `replaced` when all rows are others, as
    after a conversion to another schema.
    """

    def __init__(self, name: str, endpoints: Sequence[Endpoint], patience_s: float = 30.0) -> None:
        self.name = name
        self._patience_s = patience_s
        self.breaker = Breaker(name, (TimeoutError,))
        self.database = Database(DatabaseSchema(name, "", ""), new_uuid)
        self.rows: dict[str, Rows] = {}
        self.listeners: list[Listener] = []
        self.replaced: list[Callable[[], None]] = []
        self._changed = asyncio.Event()
        self._last_id = ZERO_UUID
        self._ids: OrderedDict[str, None] = OrderedDict()
        self.session = Session(name, endpoints, self)
        self._following = Following(self, self.session)

    # What is served

    @property
    def is_live(self) -> bool:
        """Whether the rows are those of a server that is connected."""
        return self._following.is_synchronized

    @property
    def is_filled(self) -> bool:
        """Whether there is anything to serve, however old."""
        return bool(self.rows)

    @property
    def age(self) -> float:
        """For how many seconds at most the rows may have been others at the server."""
        return self.session.silence_s

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
        if not self.is_live or self.breaker.state != "closed":
            await self._until(lambda: self.is_live)

    async def filled(self) -> None:
        """Return when there is anything to serve. Raises SessionLost when that takes too long."""
        if not self.rows:
            await self._until(lambda: bool(self.rows))

    async def _until(self, holds: Callable[[], bool]) -> None:
        try:
            with self.breaker.attempt():
                async with asyncio.timeout(self._patience_s):
                    while not holds():
                        await self.changed()
        except (TimeoutError, BreakerOpen) as error:
            if not holds():
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
        self._following.follow(schema)

    def told(self, method: str, params: list[Any]) -> Job | None:
        """See `Follower.told`."""
        return self._following.told(method, params)

    def lost(self) -> None:
        """See `Follower.lost`."""
        self._following.end()

    # Being a copy (see `Copy`)

    def known_id(self) -> str | None:
        """See `Copy.known_id`."""
        return self._last_id if self.is_filled else None

    def begin(self, schema: DatabaseSchema, last_id: str) -> Database:
        """See `Copy.begin`."""
        return Database(schema, new_uuid)

    def replace(self, database: Database, last_id: str) -> None:
        """See `Copy.replace`."""
        self.database = database
        self.rows = {name: Rows(table) for name, table in database.tables.items()}
        for rows in self.rows.values():
            rows.link(self.rows)
        self._note_id(last_id)
        for replaced in self.replaced:
            replaced()

    def apply(self, transaction: Transaction, last_id: str) -> None:
        """See `Copy.apply`."""
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

    def synchronized(self, *, by_dump: bool) -> None:
        """See `Copy.synchronized`."""
        _LOG.info("%s: following %s", self.session.endpoint, self.name)
        self._tell()

    def unsynchronized(self, *, was_synchronized: bool) -> None:
        """See `Copy.unsynchronized`."""
        self._tell()

    def canceled(self) -> bool:
        """See `Copy.canceled`."""
        return True

    def distrust(self, error: Exception) -> None:
        """See `Copy.distrust`."""
        _LOG.warning("%s: %s", self.name, error)
        self._last_id = ZERO_UUID


def new_uuid() -> str:
    """A uuid for a row that is to be."""
    return str(uuid.uuid4())
