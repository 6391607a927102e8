"""The audit trail: what was changed, by whom, and what came of it.

Records that come together are stored together.  While the database is away they wait here, and are
told to the log at once, so that a node that dies then takes none with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from ovncp.auth.database import Database
from ovncp.auth.errors import BadData, Conflict, DatabaseUnavailable, OutcomeUnknown
from ovncp.auth.names import now
from ovncp.auth.schema import AUDIT
from ovncp.auth.wanted import Wanted

_logger = logging.getLogger("ovncp.auth.trail")

_BATCH = 500
_AGAIN_S = 1.0
MOST_WAITING = 10_000
"""Records that wait for the database at most; the log has them all."""

Stored = Mapping[str, Any]
"""The columns of a record, but for its id."""


class Trail:
    """The trail in a database; `run` is to run all the time."""

    def __init__(self, database: Database):
        self._database = database
        self._waiting: list[tuple[Stored, asyncio.Future[None]]] = []
        self._late: list[Stored] = []
        self._has_come = asyncio.Event()

    @property
    def n_late(self) -> int:
        """How many records wait for the database to come back."""
        return len(self._late)

    async def keep(self, records: Sequence[Stored]) -> None:
        """Keep records, on return: in the database, or if that is away, in the log for now."""
        loop = asyncio.get_running_loop()
        kept = [(record, loop.create_future()) for record in records]
        self._waiting += kept
        self._has_come.set()
        for _, future in kept:
            await asyncio.shield(future)

    async def run(self) -> None:
        """Store what comes, for ever."""
        while True:
            if not self._late:
                await self._has_come.wait()
            self._has_come.clear()
            await self._store_late()
            while self._waiting:
                await self._store_waiting()
            if self._late:
                await asyncio.sleep(_AGAIN_S)

    async def _store_late(self) -> None:
        while self._late:
            batch = self._late[:_BATCH]
            try:
                await self._insert(batch)
            except (DatabaseUnavailable, OutcomeUnknown):
                return
            del self._late[: len(batch)]

    async def _store_waiting(self) -> None:
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        records = [record for record, _ in batch]
        try:
            await self._insert(records)
        except (DatabaseUnavailable, OutcomeUnknown) as error:
            _logger.error("the audit trail has to wait: %s", error)
            self._put_off(records)
        except asyncio.CancelledError:
            self._put_off(records)
            raise
        finally:
            for _, future in batch:
                if not future.done():
                    future.set_result(None)

    def _put_off(self, records: Sequence[Stored]) -> None:
        for record in records:
            _logger.warning("audit: %s", dict(record))
        self._late += records
        del self._late[:-MOST_WAITING]

    async def _insert(self, records: Sequence[Stored]) -> None:
        try:
            rows = [{name: _fit(name, value) for name, value in each.items()} for each in records]
            await self._database.write(lambda c: c.execute(insert(AUDIT), rows))
        except (SQLAlchemyError, Conflict, BadData, TypeError, ValueError):
            if len(records) == 1:
                _logger.exception("audit: this cannot be stored: %s", dict(records[0]))
                return
            for record in records:  # One of them is to blame, not all.
                await self._insert([record])

    async def read(self, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
        """The latest `limit` records of those wanted, the latest first."""
        query = _where(select(AUDIT), wanted).order_by(AUDIT.c.id.desc()).limit(limit)
        rows = await self._database.read_late(lambda c: c.execute(query))
        return [dict(row._mapping) for row in rows]

    async def sweep(self, kept_s: float) -> int:
        """Remove records older than that; how many."""
        query = delete(AUDIT).where(AUDIT.c.at < now() - timedelta(seconds=kept_s))
        return (await self._database.write(lambda c: c.execute(query))).rowcount


def _fit(name: str, value: Any) -> Any:
    """A value as its column takes it: PostgreSQL has no NUL in any text."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")[: getattr(AUDIT.c[name].type, "length", None)]
    if isinstance(value, dict | list):
        text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
        return orjson.loads(text.replace(b"\\u0000", b"\\ufffd"))
    return value


_CONDITIONS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "tenant": lambda value: AUDIT.c.tenant == value,
    "principal": lambda value: AUDIT.c.principal == value,
    "resource": lambda value: AUDIT.c.resource == value,
    "target": lambda value: AUDIT.c.target == value,
    "request_id": lambda value: AUDIT.c.request_id == value,
    "since": lambda value: AUDIT.c.at >= value,
    "until": lambda value: AUDIT.c.at < value,
    "before": lambda value: AUDIT.c.id < value,
}


def _where(query: Select[Any], wanted: Wanted) -> Select[Any]:
    given = {name: getattr(wanted, name) for name in _CONDITIONS}
    return query.where(
        *(_CONDITIONS[name](value) for name, value in given.items() if value is not None)
    )
