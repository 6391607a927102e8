"""The audit trail, and requests that are made again, where accounts are: in their database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ovncp.api import audit
from ovncp.api.audit import Record
from ovncp.api.idempotency import Answer, other_request, under_way
from ovncp.api.problem import Problem

if TYPE_CHECKING:
    from ovncp.auth.accounts import Accounts


class StoredAudit:
    """The audit trail in the database of accounts."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def check(self) -> None:
        """See `Audit.check`."""
        if self._accounts.database.is_away:
            text = "the audit trail is out of reach, and nothing is changed without it"
            raise Problem("unavailable", text, headers={"Retry-After": "1"})

    async def record(self, records: Sequence[Record]) -> None:
        """See `Audit.record`."""
        if records:
            await self._accounts.trail.keep([audit.fields(each) for each in records])


class StoredKeys:
    """Idempotency keys in the database of accounts."""

    def __init__(self, accounts: Accounts) -> None:
        self._keys = accounts.keys

    async def take(self, principal_id: str, key: str, fingerprint: str) -> Answer | None:
        """See `IdempotencyStore.take`."""
        known = await self._keys.take(principal_id, key, fingerprint)
        if known is None:
            return None
        if known.fingerprint != fingerprint:
            raise other_request(key)
        if known.status is None:
            raise under_way(key)
        return Answer(known.status, known.headers, known.body)

    async def keep(self, principal_id: str, key: str, fingerprint: str, answer: Answer) -> None:
        """See `IdempotencyStore.keep`."""
        await self._keys.keep(principal_id, key, answer.status, answer.headers, answer.body)

    async def give_back(self, principal_id: str, key: str) -> None:
        """See `IdempotencyStore.give_back`."""
        await self._keys.give_back(principal_id, key)
