"""A connection to a server at one of several endpoints, made again whenever it is lost.

What the server has is known from its database `_Server` (ovsdb-server(5)). When the connection is
lost the next endpoint is tried, and after a round of them pauses that grow.

What the server says is taken strictly in order. Where that takes long, as a first dump does, it is
done in slices by a task, and what comes meanwhile waits; only echo requests do not.
"""

import asyncio
import errno
import logging
import ssl
import time
from abc import ABCMeta, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, cast

from ovncp.wire.client import Answer, ClientConnection, Event, Notification
from ovncp.wire.json_stream import JsonError
from ovncp.wire.jsonrpc import InvalidMessage
from ovncp.wire.reconnect import END_OF_FILE, PROBE_INTERVAL_MSEC, Action, Reconnect

MAX_MESSAGE_BYTES = 1 << 30
_LARGE_BYTES = 1 << 20  # of a dump that is not parsed at once
_BUSY_MSEC = 500
_NO_PROBE_MSEC = 5000  # how often to look at a connection that is not probed
_SERVER = "_Server"
_COLUMNS = ["name", "model", "connected", "leader", "schema"]

Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[asyncio.BaseTransport]]
"""Connects a protocol that it is given the factory of. Raises OSError."""

Job = Coroutine[Any, Any, None]
Answered = Callable[[Any, Any], Job | None]
"""Called with the result and the error of a request; what takes long is returned, to be awaited."""


class Endpoint(NamedTuple):
    """One place where a server may be: how it is named, and what connects to it."""

    text: str
    connect: Connect


class Clock(Protocol):
    """Milliseconds since some fixed time, and sleeping for as many."""

    def now_msec(self) -> int:
        """It never goes back."""

    async def sleep(self, msec: int) -> None:
        """Return after that time, at once if it is not more than 0."""


class Monotonic:
    """The system's clock."""

    def now_msec(self) -> int:
        """See `Clock.now_msec`."""
        return time.monotonic_ns() // 1_000_000

    async def sleep(self, msec: int) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(msec / 1000)


class SourceDatabase:
    """A database as a server shows it in `_Server` (ovsdb-server(5)). `schema` is JSON text."""

    __slots__ = ("is_connected", "is_leader", "model", "name", "schema")

    def __init__(self, columns: dict[str, Any]) -> None:
        self.name = columns.get("name")
        self.model = columns.get("model")
        schema = columns.get("schema")
        self.schema = schema if type(schema) is str else None
        self.is_connected = self.model == "standalone" or columns.get("connected") is True
        self.is_leader = columns.get("leader") is True

    @property
    def is_usable(self) -> bool:
        """Whether it can be read and changed there."""
        return self.schema is not None and self.is_connected


class _Connection(asyncio.Protocol):
    """The transport's end of one connection."""

    def __init__(self, link: "Link") -> None:
        self.rpc = ClientConnection(MAX_MESSAGE_BYTES, _LARGE_BYTES)
        self.error = END_OF_FILE
        self.transport: asyncio.Transport
        self._link = link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._link.received(self.rpc.receive(data))
        except (JsonError, InvalidMessage) as error:
            self._link.log.warning("%s: %s", self._link.endpoint, error)
            self.close(errno.EPROTO)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            self.error = error_number(exc)
        self._link.received((None,))

    def flush(self) -> None:
        """Send what there is to send."""
        if self.rpc.output and not self.transport.is_closing():
            self.transport.writelines(self.rpc.output)
        self.rpc.output.clear()

    def close(self, error: int) -> None:
        """End the connection; `error` is as in `Reconnect`."""
        self.error = error
        self.transport.abort()


class Link(metaclass=ABCMeta):
    """The connection to the server that is at one of `endpoints`, until `close`.

    Of each connection that is made, first `_began` is called, then `_shown` and `_told` with what
    the server says and the `Answered` of what it was asked, in the order in which it says so, then
    `_ended`. None of them is called while a `Job` is under way that one of them returned.

    `endpoint` is the one of now, or that is tried now. `heard_msec` is when the server last gave a
    sign of life, by `clock`.
    """

    def __init__(self, clock: Clock, endpoints: Sequence[Endpoint], log: logging.Logger) -> None:
        self.endpoint = endpoints[0].text
        self.heard_msec = clock.now_msec()
        self.n_connections = 0
        self.log = log
        self._clock = clock
        self._endpoints = endpoints
        self._machine = Reconnect(self.endpoint, self.heard_msec)
        self._connection: _Connection | None = None
        self._inbox: deque[Event | None] = deque()
        self._job: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._databases: dict[str, dict[str, Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._staying = self._loop.create_task(self._stay_connected())

    # What those who inherit make of it

    @abstractmethod
    def _began(self) -> None:
        """Begin to use a new connection."""

    @abstractmethod
    def _shown(self) -> None:
        """Note that what the server has, see `_database`, may be other than before."""

    @abstractmethod
    def _told(self, notification: Notification) -> Job | None:
        """Take what the server says unasked, of other things than its databases."""

    @abstractmethod
    def _ended(self, unanswered: Sequence[Any]) -> None:
        """Note that the connection is lost; `unanswered` are the `Answered` of requests."""

    def _probe_msec(self) -> int:
        """After how long a silence the server is asked for a sign of life; 0 is never."""
        return PROBE_INTERVAL_MSEC

    def _max_backoff_msec(self) -> int:
        """How long a pause is at most; 0 leaves that to `Reconnect`."""
        return 0

    def _database(self, name: str) -> SourceDatabase | None:
        """The database of that name, as the server shows it; None if it has none."""
        for columns in self._databases.values():
            if columns.get("name") == name:
                return SourceDatabase(columns)
        return None

    # Talking

    @property
    def is_connected(self) -> bool:
        """Whether requests can be sent."""
        return self._connection is not None

    def request(self, method: str, params: list[Any], answered: Answered) -> int:
        """Ask the server; the id of the request. If the connection is lost there is no answer."""
        assert self._connection is not None
        request_id = self._connection.rpc.request(method, params, answered)
        self._wants_flush()
        return request_id

    def notify(self, method: str, params: list[Any]) -> None:
        """Tell the server."""
        assert self._connection is not None
        self._connection.rpc.notify(method, params)
        self._wants_flush()

    def _wants_flush(self) -> None:
        """Write what this turn of the loop has to say, all at once."""
        assert self._connection is not None
        if len(self._connection.rpc.output) == 1:
            self._loop.call_soon(self._connection.flush)

    def leave(self, why: str) -> None:
        """Give up the present connection, and try the next endpoint."""
        if self._connection is not None:
            self.log.info("%s: %s; reconnecting", self.endpoint, why)
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
            self.heard_msec = self._clock.now_msec()
            self._machine.activity(self.heard_msec)

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
            answered: Answered = event.about
            return answered(event.result, event.error)
        if event.params and event.params[0] == _SERVER:
            self._server_changed(event.params[-1])
            return None
        return self._told(event)

    # `_Server`

    def _begin(self) -> None:
        requests = {"Database": [{"columns": _COLUMNS}]}
        self.request("monitor_cond", [_SERVER, _SERVER, requests], self._server_known)
        self.request("set_db_change_aware", [True], ignore)
        self._began()

    def _server_known(self, result: Any, error: Any) -> None:
        if error is not None:
            self.leave(f"the server shows no database {_SERVER}")
        else:
            self._server_changed(result)

    def _server_changed(self, updates: Any) -> None:
        for uuid, update in updates.get("Database", {}).items():
            ((kind, columns),) = update.items()
            if kind == "delete":
                self._databases.pop(uuid, None)
            else:
                self._databases[uuid] = self._databases.get(uuid, {}) | columns
        self._shown()

    def _stay(self) -> None:
        """Note that the server is one to stay with: once lost, the others are tried at once."""
        self._machine.free_tries = len(self._endpoints) - 1

    # The connection

    async def _stay_connected(self) -> None:
        clock, machine = self._clock, self._machine
        self._stay()
        machine.enable(clock.now_msec())
        while True:
            for endpoint in self._endpoints:
                self.endpoint = machine.name = endpoint.text
                machine.set_backoff(0, self._max_backoff_msec())
                machine.connecting(clock.now_msec())
                await self._connect(endpoint)
                await clock.sleep(self._msec_left())
                # Others have their turn, even where there is no pause.
                await asyncio.sleep(0)

    def _msec_left(self) -> int:
        return max(0, (self._machine.deadline() or 0) - self._clock.now_msec())

    async def _connect(self, endpoint: Endpoint) -> None:
        """Connect, and return when the connection or the attempt is over."""
        clock, machine = self._clock, self._machine
        connection = _Connection(self)
        try:
            async with asyncio.timeout(self._msec_left() / 1000):
                await endpoint.connect(lambda: connection)
        except TimeoutError:
            machine.connect_failed(clock.now_msec(), 0)
        except OSError as error:
            machine.connect_failed(clock.now_msec(), error_number(error))
        else:
            machine.connected(clock.now_msec())
            await self._use(connection)
            machine.disconnected(clock.now_msec(), connection.error)

    async def _use(self, connection: _Connection) -> None:
        if connection.transport.is_closing():  # it was lost before we came to it
            return
        self._lost.clear()
        self._connection = connection
        self.n_connections += 1
        self._begin()
        probing = self._loop.create_task(self._probe())
        try:
            await self._lost.wait()
        finally:
            probing.cancel()

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._databases.clear()
            self._ended(connection.rpc.abandon())
            self._lost.set()

    async def _probe(self) -> None:
        """Ask a silent server for a sign of life, and give up one that does not answer."""
        clock, machine = self._clock, self._machine
        while self._connection is not None:
            machine.set_probe_interval(self._probe_msec())
            now = clock.now_msec()
            action = machine.run(now) if self._job is None else None
            if action is Action.PROBE:
                self._connection.rpc.probe()
                self._connection.flush()
            elif action is Action.DISCONNECT:
                self._connection.close(0)
                return
            left = (machine.deadline() or now + _NO_PROBE_MSEC) - now
            await clock.sleep(max(left, _BUSY_MSEC if self._job is not None else 1))

    async def close(self) -> None:
        """End the connection for good."""
        self._staying.cancel()
        await asyncio.wait([self._staying])
        if self._job is not None:
            self._job.cancel()
        if self._connection is not None:
            self._connection.transport.abort()


def error_number(error: OSError | UnicodeError) -> int:
    """The nearest errno to what went wrong."""
    if isinstance(error, ssl.SSLError):
        return errno.EPROTO
    number = getattr(error, "errno", None) or 0
    return number if number > 0 else errno.ENXIO


def ignore(result: Any, error: Any) -> None:
    """Take an answer from which nothing follows."""
