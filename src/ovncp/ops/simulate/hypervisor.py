"""One ovn-controller's connection, which looks at bytes and parses nothing.

Thousands of them share one processor with each other, so an update costs a search for the marks of
the ledger. What is looked for never has a brace within, so that data may be cut after any `}`.
"""

import asyncio
import re
import time
from enum import Enum
from typing import TYPE_CHECKING, cast

from ovncp.ops.simulate import monitors
from ovncp.ops.simulate.monitors import ZERO_ID, View

if TYPE_CHECKING:
    from ovncp.ops.simulate.swarm import Swarm

_UPDATE = b'"update3","params":[["monid","OVN_Southbound"],"'
_RESULT = re.compile(rb'"result":\[(true|false),"([0-9a-f-]{36})"')
_REFUSED = re.compile(rb'"id":"[mc]","error":([^}]*)')
_END = b'"error":null}'
_ECHO = b'"method":"echo"'
_ECHO_ANSWER = b'{"id":"echo","result":[],"error":null}'
_WRITTEN = b'"id":"w","result":[{"count":1'
_ANSWERED = b'"id":"w",'
_UUID_BYTES = 36


class Phase(Enum):
    """What a connection is waiting for, in this order."""

    SCHEMA = "the schema of _Server"
    SERVER = "the rows of _Server"
    AWARE = "being told of changes of the schema"
    MONITOR = "its part of the Southbound"
    CHANGE = "its part of the Southbound, once it knows which that is"
    SETTLED = "changes"


class Hypervisor(asyncio.Protocol):
    """A hypervisor over all its connections. `view` is None where everything is monitored.

    `seen` has the version of each row that was written to, and `last_id` the transaction that it
    knows the database as of.
    """

    def __init__(self, number: int, swarm: "Swarm", view: View | None) -> None:
        self.number = number
        self.view = view
        self.first_view: View | None = None
        self.seen: dict[int, int] = {}
        self.last_id = ZERO_ID
        self.phase = Phase.SCHEMA
        self.found = False
        self.greeting_bytes = 0
        self.unanswered = 0
        self.is_leaving = False
        self._swarm = swarm
        self._rest = b""
        self._is_within_answer = False
        self._transport: asyncio.Transport | None = None

    def leave(self) -> None:
        """End the connection, and stay away."""
        self.is_leaving = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_settled(self) -> bool:
        """Whether it is connected and knows its part."""
        return self.phase is Phase.SETTLED and self._transport is not None

    @property
    def transport(self) -> asyncio.BaseTransport | None:
        """None where there is no connection."""
        return self._transport

    def send(self, *messages: bytes) -> None:
        """Send something that is not answered, or whose answer is counted."""
        if self._transport is not None:
            self._transport.writelines(messages)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._rest = b""
        self._is_within_answer = False
        self.found = False
        self.greeting_bytes = 0
        self.unanswered = 0
        self.phase = Phase.SCHEMA
        self.send(monitors.SERVER_SCHEMA)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self.is_leaving:
            self._swarm.lost(self)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        swarm = self._swarm
        swarm.bytes += len(data)
        if self._rest:
            data, self._rest = self._rest + data, b""
        if data[-1] != 0x7D:
            end = data.rfind(b"}") + 1
            data, self._rest = data[:end], data[end:]
        swarm.ledger.take(self.seen, data, now)
        if self._is_within_answer and _END not in data:
            self.greeting_bytes += len(data)  # of a long one, in whose midst is nothing else
            return
        at = data.rfind(_UPDATE)
        if at >= 0:
            at += len(_UPDATE)
            self.last_id = data[at : at + _UUID_BYTES].decode()
        if _ECHO in data:
            self.send(_ECHO_ANSWER)
        if self.phase is not Phase.SETTLED:
            self._greet(data)
        elif self.unanswered:
            self._count_answers(data)

    def _count_answers(self, data: bytes) -> None:
        answered = data.count(_ANSWERED)
        self.unanswered -= answered
        self._swarm.refused_writes += answered - data.count(_WRITTEN)

    def _greet(self, data: bytes) -> None:
        """Go through the phases in which ovn-controller finds its part of the database."""
        if self.phase in (Phase.MONITOR, Phase.CHANGE):
            self._take_answer(data)
        if _END not in data and b'"error":{' not in data:
            return
        if self.phase is Phase.SCHEMA:
            self._enter(Phase.SERVER, monitors.SERVER_MONITOR)
        elif self.phase is Phase.SERVER:
            self._enter(Phase.AWARE, monitors.CHANGE_AWARE)
        elif self.phase is Phase.AWARE:
            self.greeting_bytes = 0
            self._enter(Phase.MONITOR, self._request())
        elif self.phase is Phase.MONITOR and self.first_view is not None:
            self.first_view = None
            assert self.view is not None
            self._enter(Phase.CHANGE, self._swarm.monitors.change(self.view))
        else:
            self.phase = Phase.SETTLED
            self._is_within_answer = False
            self._swarm.settled(self)

    def _enter(self, phase: Phase, message: bytes) -> None:
        self.phase = phase
        self._is_within_answer = False
        self.send(message)

    def _request(self) -> bytes:
        return self._swarm.monitors.request(self.first_view or self.view, self.last_id)

    def _take_answer(self, data: bytes) -> None:
        self.greeting_bytes += len(data)
        if self._is_within_answer:
            return
        result = _RESULT.search(data)
        if result is not None:
            self._is_within_answer = True
            self.found = result[1] == b"true"
            self.last_id = result[2].decode()
            return
        refused = _REFUSED.search(data)
        if refused is not None:
            self._swarm.refuse(refused[1].decode(errors="replace"))
