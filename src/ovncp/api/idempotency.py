"""A request that is made again with the same `Idempotency-Key` is done once, and answered alike.

A key is taken before anything is done, and given back when nothing was. If the answer is lost with
the node that would have given it, the key is free again after a while; what the request creates has
uuids made of the key, so that doing it again finds out that it was done.
"""

import hashlib
import uuid
from typing import NamedTuple, Protocol

import orjson

from ovncp.api.problem import Problem
from ovncp.cluster.base import Store

KEPT_SECONDS = 24 * 3600.0
PENDING_SECONDS = 60.0
LONGEST_KEY = 255

_NAMESPACE = uuid.UUID("0f0dbf2a-53ae-4d4c-9d0c-9b1e62b0f2b4")
_PENDING = b"pending "


class Answer(NamedTuple):
    """What a request was answered with."""

    status: int
    headers: dict[str, str]
    body: bytes


class IdempotencyStore(Protocol):
    """Where keys are kept, over all nodes."""

    async def take(self, principal_id: str, key: str, fingerprint: str) -> Answer | None:
        """Take the key for a request; the answer if it was given already.

        Raises Problem: the key was used for another request, or one with it is under way.
        """

    async def keep(self, principal_id: str, key: str, fingerprint: str, answer: Answer) -> None:
        """Have the key answered with `answer` from now on."""

    async def give_back(self, principal_id: str, key: str) -> None:
        """Let the key be taken again."""


class SharedKeys:
    """Keys in what the nodes share."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(self, principal_id: str, key: str, fingerprint: str) -> Answer | None:
        """See `IdempotencyStore.take`."""
        name, pending = _name(principal_id, key), _PENDING + fingerprint.encode()
        if await self._store.swap(name, None, pending, PENDING_SECONDS):
            return None
        known = await self._store.get(name)
        if known is None or known == pending:
            raise under_way(key)
        if known.startswith(_PENDING):
            raise other_request(key)
        of, status, headers, body = orjson.loads(known)
        if of != fingerprint:
            raise other_request(key)
        return Answer(status, headers, body.encode())

    async def keep(self, principal_id: str, key: str, fingerprint: str, answer: Answer) -> None:
        """See `IdempotencyStore.keep`."""
        kept = [fingerprint, answer.status, answer.headers, answer.body.decode()]
        await self._store.put(_name(principal_id, key), orjson.dumps(kept), KEPT_SECONDS)

    async def give_back(self, principal_id: str, key: str) -> None:
        """See `IdempotencyStore.give_back`."""
        name = _name(principal_id, key)
        await self._store.swap(name, await self._store.get(name), None, PENDING_SECONDS)


def _name(principal_id: str, key: str) -> str:
    return f"idempotency:{hashlib.sha256(f'{principal_id} {key}'.encode()).hexdigest()}"


def under_way(key: str) -> Problem:
    """The request with that key is not answered yet."""
    text = f"a request with the key {key!r} is under way"
    return Problem("key-in-use", text, headers={"Retry-After": "1"})


def other_request(key: str) -> Problem:
    """The key belongs to another request."""
    return Problem("rejected", f"the key {key!r} was used for another request")


def fingerprint_of(method: str, path: str, body: bytes) -> str:
    """What two requests have in common that are the same one."""
    head = f"{method} {path}\n".encode()
    return hashlib.sha256(head + body).hexdigest()


def uuid_for(principal_id: str, key: str, number: int) -> str:
    """The uuid of the `number`th row that the request with that key creates."""
    return str(uuid.uuid5(_NAMESPACE, f"{principal_id} {number} {key}"))
