"""A client of events, which comes back whenever it is cut off, and goes on where it was."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from deployed.history import Event, Heard, History, id_of
from deployed.people import TENANT

_AGAIN_SECONDS = 0.3
_OPEN_SECONDS = 15.0

# The same text goes to many clients.
_parse = lru_cache(maxsize=4000)(orjson.loads)


@dataclass(frozen=True)
class Wish:
    """What a client asks for, and which events that is."""

    name: str
    wanted: Mapping[str, list[str]]
    admits: Callable[[Event], bool]
    user: str = "viewer"


def _is_of_switches(event: Event) -> bool:
    return event["table"] == "Logical_Switch"


_OWN = ("Logical_Switch", "Logical_Switch_Port")

WISHES = (
    Wish("everything", {}, lambda event: True),
    Wish("switches", {"resources": ["switches"]}, _is_of_switches),
    Wish(
        "one switch",
        {"patterns": ["switches:w1"]},
        lambda event: _is_of_switches(event) and event["name"] == "w1",
    ),
    Wish(
        "ports",
        {"tables": ["nb/Logical_Switch_Port", "sb/Port_Binding"]},
        lambda event: event["table"] in ("Logical_Switch_Port", "Port_Binding"),
    ),
    Wish(
        "a tenant's",
        {"resources": ["switches", "switch-ports"]},
        lambda event: event["table"] in _OWN and event["name"].startswith(TENANT),
        "red-viewer",
    ),
)


class Listener:
    """One client at `url`, until it is cancelled."""

    def __init__(self, history: History, wish: Wish, name: str, url: str, token: str) -> None:
        self.heard = Heard(f"{name} ({wish.name})", wish.name, wish.admits)
        history.heard.append(self.heard)
        self._history = history
        self._wanted = dict(wish.wanted)
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._node: str | None = None

    async def run(self) -> None:
        """Listen, for ever."""
        while True:
            with contextlib.suppress(OSError, WebSocketException, httpx.TransportError):
                await self._listen()
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _listen(self) -> None:
        """One session."""
        raise NotImplementedError

    @property
    def _after(self) -> dict[str, str]:
        position = self.heard.position
        return {} if position is None else {"after": "{}-{}".format(*position)}

    def _take(self, text: str) -> bool:
        """Note a message; whether to go elsewhere."""
        message = _parse(text)
        heard = self.heard
        kind = message["type"]
        if kind == "hello":
            heard.n_sessions += 1
            heard.session = message["session"]
            return False
        if kind == "error":
            self._history.broken.append(f"{heard.who} is told: {text}")
            return False
        if kind == "events":
            self._note(message["events"])
        if "id" in message:
            id = id_of(message["id"])
            heard.first = heard.first or id
            if heard.position is not None and id < heard.position:
                self._history.broken.append(f"{heard.who} is sent back: {text[:200]}")
            heard.position = id
        heard.n_missed += kind == "missed"
        if kind == "move":
            heard.n_moved += 1
            self._node = message["node"]
        return bool(kind == "move")

    def _note(self, events: list[Event]) -> None:
        heard = self.heard
        for event in events:
            id = id_of(event["id"])
            if heard.position is None or id <= heard.position:
                self._history.broken.append(f"{heard.who} hears {event['id']} out of order")
            heard.position = id
            heard.events.append(event)
            self._history.events[id] = event


class WebSocketListener(Listener):
    """One that has a WebSocket."""

    async def _listen(self) -> None:
        query = "" if self._node is None else f"?node={self._node}"
        self._node = None
        url = f"{self._url.replace('http', 'ws', 1)}/ws{query}"
        async with connect(
            url,
            additional_headers=self._headers,
            compression=None,
            open_timeout=_OPEN_SECONDS,
            ping_interval=None,
        ) as connection:
            wanted: dict[str, Any] = {"type": "subscribe", **self._wanted, **self._after}
            await connection.send(orjson.dumps(wanted).decode())
            async for text in connection:
                if self._take(str(text)):
                    return


class SseListener(Listener):
    """One that reads Server-Sent Events."""

    async def _listen(self) -> None:
        node = {} if self._node is None else {"node": self._node}
        self._node = None
        query = urlencode({**self._wanted, **self._after, **node}, doseq=True)
        url = f"{self._url}/api/v1/events?{query}"
        timeout = httpx.Timeout(_OPEN_SECONDS, read=None)
        async with (
            httpx.AsyncClient(headers=self._headers, timeout=timeout) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code != 200:
                return
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "data" and self._take(value):
                    return
