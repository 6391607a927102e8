"""Which requests were made with an idempotency key, and how they were answered.

A key is taken, for a while, before anything is done; the answer is kept with it for a day.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ovncp.auth.database import Database
from ovncp.auth.errors import Conflict
from ovncp.auth.names import now
from ovncp.auth.schema import IDEMPOTENCY

PENDING = timedelta(minutes=1)
KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What is known of a key: `status` is None while the request is under way."""

    fingerprint: str
    status: int | None
    headers: dict[str, str]
    body: bytes


class Keys:
    """The keys in a database."""

    def __init__(self, database: Database):
        self._database = database

    async def take(self, principal_id: str, key: str, fingerprint: str) -> KeptAnswer | None:
        """Take a key; what is known of it if it was taken before, and is not over."""

        async def use(connection: AsyncConnection) -> KeptAnswer | None:
            which = _is(principal_id, key)
            over = IDEMPOTENCY.c.expires < now()
            await connection.execute(delete(IDEMPOTENCY).where(*which, over))
            row = (await connection.execute(select(IDEMPOTENCY).where(*which))).first()
            if row is not None:
                return KeptAnswer(row.fingerprint, row.status, row.headers or {}, row.body or b"")
            values = {
                "principal_id": principal_id,
                "key": _hash(key),
                "fingerprint": fingerprint,
                "expires": now() + PENDING,
            }
            await connection.execute(insert(IDEMPOTENCY).values(values))
            return None

        try:
            return await self._database.write(use)
        except Conflict:  # Somebody took it at the same time.
            return KeptAnswer(fingerprint, None, {}, b"")

    async def keep(
        self, principal_id: str, key: str, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        """Have a key that was taken be answered so from now on."""
        values = {"status": status, "headers": headers, "body": body, "expires": now() + KEPT}
        change = update(IDEMPOTENCY).where(*_is(principal_id, key)).values(values)
        await self._database.write(lambda c: c.execute(change))

    async def give_back(self, principal_id: str, key: str) -> None:
        """Let a key that was taken be taken again."""
        query = delete(IDEMPOTENCY).where(*_is(principal_id, key))
        await self._database.write(lambda c: c.execute(query))

    async def sweep(self) -> int:
        """Remove what is over; how many."""
        query = delete(IDEMPOTENCY).where(IDEMPOTENCY.c.expires < now())
        return (await self._database.write(lambda c: c.execute(query))).rowcount


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _is(principal_id: str, key: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return IDEMPOTENCY.c.principal_id == principal_id, IDEMPOTENCY.c.key == _hash(key)
