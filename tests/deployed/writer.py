"""A client that writes, and reads what it wrote, through HAProxy; every answer is to be clear."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import Any

import httpx

from deployed.history import History, Outcome, Write

_PAUSE_SECONDS = 0.25
_AGAIN_SECONDS = 0.3
_PATIENCE_SECONDS = 60.0
_PORTS = 5
"""How many ports a switch has at most."""

_PROBLEMS = "urn:ovncp:problem:"
_OF_THE_TIME = {
    "database-unreachable": Outcome.REFUSED,
    "outcome-unknown": Outcome.UNKNOWN,
    "unavailable": Outcome.UNKNOWN,
    "key-in-use": Outcome.UNKNOWN,
}
"""Problems which may be while something is wrong, and what they say of the write."""


class Writer:
    """One user with a switch."""

    def __init__(self, history: History, name: str, url: str, token: str) -> None:
        self.is_quiet = False
        """Whether to come to an end."""
        self._history = history
        self._name = name
        self._client = httpx.AsyncClient(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )
        self._number = 0
        self._counted = 0
        self._ports: deque[str] = deque()

    async def begin(self) -> None:
        """Have a switch."""
        key = secrets.token_hex(8)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                body = {"name": self._name}
                outcome, _ = await self._ask("POST", "/switches", 201, body, key)
                if outcome is Outcome.DONE:
                    return
                await asyncio.sleep(_AGAIN_SECONDS)

    async def run(self) -> None:
        """Write until it is told to be quiet, and once more then, with success."""
        while not self.is_quiet:
            await self._count()
            if self._number % 2:
                await self._make_port()
            if len(self._ports) > _PORTS:
                await self._delete_port()
            await self._look()
            await asyncio.sleep(_PAUSE_SECONDS)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while await self._count() is not Outcome.DONE:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    async def _count(self) -> Outcome:
        self._number += 1
        write = self._begin("count", str(self._number))
        body = {"external_ids": {"n": str(self._number)}}
        write.outcome, _ = await self._ask("PATCH", self._path, 200, body)
        if write.outcome is Outcome.DONE:
            self._counted = self._number
        return write.outcome

    async def _make_port(self) -> None:
        name = f"{self._name}-{self._number}"
        write = self._begin("make", name)
        path = f"{self._path}/ports"
        write.outcome = await self._persist("POST", path, 201, {"name": name})
        if write.outcome is Outcome.DONE:
            self._ports.append(name)

    async def _delete_port(self) -> None:
        name = self._ports.popleft()
        write = self._begin("delete", name)
        write.outcome = await self._persist("DELETE", f"/switch-ports/{name}", 204)

    async def _look(self) -> None:
        """See what was written, on whichever node."""
        outcome, row = await self._ask("GET", self._path, 200)
        if outcome is Outcome.DONE:
            seen = int(row["external_ids"].get("n", 0))
            if not self._counted <= seen <= self._number:
                self._history.broken.append(f"{self._name} sees {seen} after {self._counted}")

    def _begin(self, kind: str, what: str) -> Write:
        write = Write(kind, self._name, what)
        self._history.writes.append(write)
        return write

    @property
    def _path(self) -> str:
        return f"/switches/{self._name}"

    async def _persist(self, method: str, path: str, status: int, body: Any = None) -> Outcome:
        """Ask with one key until it is done, or a while is over."""
        key = secrets.token_hex(8)
        outcome = Outcome.UNKNOWN
        for _ in range(5):
            outcome, _ = await self._ask(method, path, status, body, key)
            if outcome is Outcome.DONE:
                break
            await asyncio.sleep(_AGAIN_SECONDS)
        # Refused at last, an earlier try may have been done.
        return outcome if outcome is Outcome.DONE else Outcome.UNKNOWN

    async def _ask(
        self, method: str, path: str, status: int, body: Any = None, key: str | None = None
    ) -> tuple[Outcome, Any]:
        """Make a request that is to be answered with a status, or with what is wrong."""
        headers = {} if key is None else {"Idempotency-Key": key}
        try:
            answer = await self._client.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            self._history.answers[f"{method}: {type(error).__name__}"] += 1
            return Outcome.UNKNOWN, None
        if answer.status_code == status:
            self._history.answers[f"{method}: {status}"] += 1
            return Outcome.DONE, answer.json() if answer.content else None
        return self._wrong(method, path, answer), None

    def _wrong(self, method: str, path: str, answer: httpx.Response) -> Outcome:
        is_problem = answer.headers.get("content-type") == "application/problem+json"
        kind = answer.json()["type"].removeprefix(_PROBLEMS) if is_problem else "HAProxy"
        self._history.answers[f"{method}: {answer.status_code} {kind}"] += 1
        if kind in _OF_THE_TIME:
            return _OF_THE_TIME[kind]
        if (method, kind) == ("DELETE", "not-found"):
            return Outcome.UNKNOWN  # An earlier try may have been done; the judge knows.
        if kind != "HAProxy" or answer.status_code not in (502, 503, 504):
            text = f"{method} {path} is answered {answer.status_code}: {answer.text[:300]}"
            self._history.broken.append(text)
        return Outcome.UNKNOWN
