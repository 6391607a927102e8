"""The session with the server of one database, at the endpoint that serves it (ovsdb-server(5)).

There are several endpoints where there is a cluster or a spare server. What a server has is shown
in its database `_Server`: of a cluster of C servers the leader is wanted, since what the others
have may be old; one that has lost the cluster is left. When the session is lost the next endpoint
is tried, and after a round of them pauses that grow.

What the server says is taken strictly in order. What takes long, as a first dump does, is done by a
task, and all that comes meanwhile waits for it.
"""

import asyncio
import errno
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, cast

from ovncp.wire.client import Answer, ClientConnection, Event
from ovncp.wire.json_stream import JsonError
from ovncp.wire.jsonrpc import InvalidMessage
from ovncp.wire.reconnect import END_OF_FILE, Action, Reconnect

_LOG = logging.getLogger("ovncp.ovn")

_MAX_MESSAGE_BYTES = 1 << 30
_LARGE_BYTES = 1 << 20  # of a dump that is not parsed at once
_BUSY_SECONDS = 0.5
_SERVER = "_Server"
_COLUMNS = ["name", "model", "connected", "leader", "schema"]

Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[asyncio.BaseTransport]]
"""Connects a protocol that it is given the factory of. Raises OSError."""

Job = Coroutine[Any, Any, None]
Answered = Callable[[Any, Any], Job | None]
"""Called with the result and the error of a request; what takes long is returned, to be awaited."""


class Endpoint(NamedTuple):
    """One place where the database may be: how it is named, and what connects to it."""

    text: str
    connect: Connect


class SessionLost(Exception):
    """There is no answer; if the request was `sent`, it may have had its effect or not."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class Follower(Protocol):
    """Who the session is for."""

    def found(self, schema: str) -> None:
        """Note that the server serves the database, under the schema that this is the text of."""

    def told(self, method: str, params: list[Any]) -> Job | None:
        """Take a notification."""

    def lost(self) -> None:
        """Note that there is no session any more."""


class _Connection(asyncio.Protocol):
    """The transport's end of one connection."""

    def __init__(self, session: "Session") -> None:
        self.rpc = ClientConnection(_MAX_MESSAGE_BYTES, _LARGE_BYTES)
        self.error = END_OF_FILE
        self.transport: asyncio.Transport
        self._session = session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._session.received(self.rpc.receive(data))
        except (JsonError, InvalidMessage) as error:
            _LOG.warning("%s: %s", self._session.endpoint, error)
            self.close(errno.EPROTO)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError) and exc.errno:
            self.error = exc.errno
        self._session.received((None,))

    def flush(self) -> None:
        """Send what there is to send."""
        if self.rpc.output and not self.transport.is_closing():
            self.transport.writelines(self.rpc.output)
        self.rpc.output.clear()

    def close(self, error: int) -> None:
        """End the connection; `error` is as in `Reconnect`."""
        self.error = error
        self.transport.abort()


class Session:
    """The session with the server of `database` at one of `endpoints`, in the order of preference.

    `endpoint` is the one of now, or that is tried now. `heard` is when the server last gave a sign
    of life, in seconds of `time.monotonic`.
    """

    def __init__(self, database: str, endpoints: Sequence[Endpoint], follower: Follower) -> None:
        self.database = database
        self.endpoint = endpoints[0].text
        self.heard = time.monotonic()
        self._endpoints = endpoints
        self._follower = follower
        self._machine = Reconnect(self.endpoint, _now_msec())
        self._connection: _Connection | None = None
        self._inbox: deque[Event | None] = deque()
        self._job: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._rows: dict[str, dict[str, Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._staying = self._loop.create_task(self._stay_connected())

    # Talking

    @property
    def is_connected(self) -> bool:
        """Whether requests can be sent."""
        return self._connection is not None

    def request(self, method: str, params: list[Any], answered: Answered) -> None:
        """Ask the server. If the session is lost there is no answer."""
        self._post(method, params, answered)

    async def ask(self, method: str, params: list[Any]) -> Answer:
        """Ask the server, and wait. What it had told before has been taken then.

        Raises SessionLost.
        """
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._post(method, params, answer)
        return await answer

    def _post(self, method: str, params: list[Any], about: Any) -> None:
        if self._connection is None:
            raise SessionLost(f"{self.database} is out of reach", sent=False)
        output = self._connection.rpc.output
        self._connection.rpc.request(method, params, about)
        if len(output) == 1:  # what this turn of the loop has to say is written at once
            self._loop.call_soon(self._connection.flush)

    def leave(self, why: str) -> None:
        """Give up the present connection, and try the next endpoint."""
        if self._connection is not None:
            _LOG.info("%s: %s; reconnecting", self.endpoint, why)
            self._connection.close(0)

    # Listening

    def received(self, events: Iterable[Event | None]) -> None:
        """Take what the server says; None is the end of the connection."""
        for event in events:
            self._inbox.append(event)
        self._sign_of_life()
        self._take()

    def _sign_of_life(self) -> None:
        if self._machine.is_connected:
            self.heard = time.monotonic()
            self._machine.activity(_now_msec())

    def _take(self) -> None:
        while self._inbox and self._job is None:
            event = self._inbox.popleft()
            if event is None:
                self._end()
                continue
            job = self._handle(event)
            if job is not None:
                self._job = self._loop.create_task(job)
                self._job.add_done_callback(self._job_done)

    def _job_done(self, job: "asyncio.Task[None]") -> None:
        self._job = None
        if not job.cancelled():
            job.result()
            self._sign_of_life()
            self._take()

    def _handle(self, event: Event) -> Job | None:
        if isinstance(event, Answer):
            about = event.about
            if isinstance(about, asyncio.Future):
                if not about.done():
                    about.set_result(event)
                return None
            answered: Answered = about
            return answered(event.result, event.error)
        if event.params and event.params[0] == _SERVER:
            self._server_changed(event.params[-1])
            return None
        return self._follower.told(event.method, event.params)

    # `_Server`

    def _begin(self) -> None:
        requests = {"Database": [{"columns": _COLUMNS}]}
        self.request("monitor_cond", [_SERVER, _SERVER, requests], self._server_known)
        self.request("set_db_change_aware", [True], ignore)

    def _server_known(self, result: Any, error: Any) -> None:
        if error is not None:
            self.leave(f"the server shows no database {_SERVER}")
        else:
            self._server_changed(result)

    def _server_changed(self, updates: Any) -> None:
        for uuid, update in updates.get("Database", {}).items():
            ((kind, columns),) = update.items()
            if kind == "delete":
                self._rows.pop(uuid, None)
            else:
                self._rows[uuid] = self._rows.get(uuid, {}) | columns
        schema, problem = self._look()
        if schema is not None:
            self._machine.free_tries = len(self._endpoints) - 1
            self._follower.found(schema)
        elif len(self._endpoints) > 1:
            self.leave(problem)

    def _look(self) -> tuple[str | None, str]:
        """The schema of the database, if the server is one to use, else what is wrong with it."""
        shown = [row for row in self._rows.values() if row.get("name") == self.database]
        if not shown:
            return None, f"the server has no database {self.database}"
        row = shown[0]
        schema, model = row.get("schema"), row.get("model")
        if type(schema) is not str or (model != "standalone" and row.get("connected") is not True):
            return None, f"the server is not connected to {self.database}"
        wants_leader = model == "clustered" and len(self._endpoints) > 1
        if wants_leader and row.get("leader") is not True:
            return None, "the server is not the leader of the cluster"
        return schema, ""

    # The connection

    async def _stay_connected(self) -> None:
        machine = self._machine
        machine.free_tries = len(self._endpoints) - 1
        machine.enable(_now_msec())
        while True:
            for endpoint in self._endpoints:
                self.endpoint = machine.name = endpoint.text
                machine.connecting(_now_msec())
                await self._connect(endpoint)
                await asyncio.sleep(self._seconds_left())

    def _seconds_left(self) -> float:
        return max(0, (self._machine.deadline() or 0) - _now_msec()) / 1000

    async def _connect(self, endpoint: Endpoint) -> None:
        """Connect, and return when the connection or the attempt is over."""
        machine = self._machine
        connection = _Connection(self)
        try:
            async with asyncio.timeout(self._seconds_left()):
                await endpoint.connect(lambda: connection)
        except TimeoutError:
            machine.connect_failed(_now_msec(), 0)
        except OSError as error:
            machine.connect_failed(_now_msec(), error.errno or errno.EIO)
        else:
            machine.connected(_now_msec())
            await self._use(connection)
            machine.disconnected(_now_msec(), connection.error)

    async def _use(self, connection: _Connection) -> None:
        if connection.transport.is_closing():  # it was lost before we came to it
            return
        self._lost.clear()
        self._connection = connection
        self._begin()
        probing = self._loop.create_task(self._probe())
        try:
            await self._lost.wait()
        finally:
            probing.cancel()

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        self._rows.clear()
        self._follower.lost()
        for about in connection.rpc.abandon() if connection is not None else ():
            if isinstance(about, asyncio.Future) and not about.done():
                text = f"the session with {self.endpoint} was lost"
                about.set_exception(SessionLost(text, sent=True))
        self._lost.set()

    async def _probe(self) -> None:
        """Ask a silent server for a sign of life, and give up one that does not answer."""
        while self._connection is not None:
            action = self._machine.run(_now_msec()) if self._job is None else None
            if action is Action.PROBE:
                self._connection.rpc.probe()
                self._connection.flush()
            elif action is Action.DISCONNECT:
                self._connection.close(0)
                return
            await asyncio.sleep(self._seconds_left() or _BUSY_SECONDS)

    async def close(self) -> None:
        """End the session for good."""
        self._staying.cancel()
        await asyncio.wait([self._staying])
        if self._job is not None:
            self._job.cancel()
        if self._connection is not None:
            self._connection.transport.abort()


def _now_msec() -> int:
    return time.monotonic_ns() // 1_000_000


def ignore(result: Any, error: Any) -> None:
    """Take an answer from which nothing follows."""
