"""The connection to the source of relayed databases (ovsdb(7), "Relay Service Model").

There is one for each source, which is a list of remotes, however many databases are relayed from
it: a lock belongs to a connection, and what asserts it has to come over the same. When the
connection is lost the next remote is tried, and after a round of them pauses that grow.

What the source says is taken strictly in order. Where that takes long, as a first dump does, it
is done in slices by a task, and what comes meanwhile waits; only echo requests do not.
"""

import asyncio
import errno
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Protocol, cast

from ovncp.server import stream
from ovncp.server.clock import Clock
from ovncp.server.configuration import RemoteOptions
from ovncp.server.session import MAX_MESSAGE_BYTES, error_number
from ovncp.server.stream import Target
from ovncp.server.tls import TlsFiles
from ovncp.wire.client import Answer, ClientConnection, Event
from ovncp.wire.json_stream import JsonError
from ovncp.wire.jsonrpc import InvalidMessage
from ovncp.wire.reconnect import END_OF_FILE, PROBE_INTERVAL_MSEC, Action, Reconnect

if TYPE_CHECKING:
    from ovncp.server.lock_source import LockHolder

_LOG = logging.getLogger("ovncp.relay")

_SERVER = "_Server"
_COLUMNS = ["name", "model", "connected", "schema"]
_LARGE_BYTES = 1 << 20  # of a dump that is not parsed at once
_BUSY_MSEC = 500
_NO_PROBE_MSEC = 5000  # how often to look at a connection that is not probed

Job = Coroutine[Any, Any, None]
# Called with the result and the error of a request; what takes long is returned, to be awaited.
Answered = Callable[[Any, Any], Job | None]


class SourceDatabase:
    """A database as its source shows it in `_Server` (ovsdb-server(5)). `schema` is JSON text."""

    __slots__ = ("is_connected", "model", "name", "schema")

    def __init__(self, columns: dict[str, Any]) -> None:
        self.name = columns.get("name")
        self.model = columns.get("model")
        schema = columns.get("schema")
        self.schema = schema if type(schema) is str else None
        self.is_connected = self.model == "standalone" or columns.get("connected") is True

    @property
    def is_usable(self) -> bool:
        """Whether it can be read and changed there."""
        return self.schema is not None and self.is_connected


class Follower(Protocol):
    """A database that is relayed."""

    @property
    def name(self) -> str:
        """Its name, here and at the source."""

    def source_is(self, shown: SourceDatabase | None) -> None:
        """Note how the source shows the database, None if it is not there."""

    def source_says(self, method: str, params: list[Any]) -> Job | None:
        """Take a notification about one of the monitors."""

    def source_lost(self) -> None:
        """Note that the connection is lost: what was asked has no answer."""


class _Connection(asyncio.Protocol):
    """The transport's end of one connection."""

    def __init__(self, upstream: "Upstream") -> None:
        self.rpc = ClientConnection(MAX_MESSAGE_BYTES, _LARGE_BYTES)
        self.error = END_OF_FILE
        self.transport: asyncio.Transport
        self._upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._upstream.received(self.rpc.receive(data))
        except (JsonError, InvalidMessage) as error:
            _LOG.warning("%s: %s", self._upstream.name, error)
            self.close(errno.EPROTO)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            self.error = error_number(exc)
        self._upstream.received((None,))

    def flush(self) -> None:
        """Send what there is to send."""
        if self.rpc.output and not self.transport.is_closing():
            self.transport.writelines(self.rpc.output)
        self.rpc.output.clear()

    def close(self, error: int) -> None:
        """End the connection; `error` is as in `Reconnect`."""
        self.error = error
        self.transport.abort()


class Upstream:
    """The connection to the source that can be reached at any of `targets`."""

    def __init__(
        self,
        clock: Clock,
        targets: Iterable[Target],
        options: RemoteOptions,
        tls_files: Callable[[], TlsFiles],
    ) -> None:
        self.targets = list(targets)
        self.name = ",".join(target.text for target in self.targets)
        self.options = options
        self.n_connections = 0
        self.followers: dict[str, Follower] = {}
        self.lock_holder: LockHolder
        self._clock = clock
        self._tls_files = tls_files
        self._machine = Reconnect(self.name, clock.now_msec())
        self._connection: _Connection | None = None
        self._inbox: deque[Event | None] = deque()
        self._job: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._rows: dict[str, dict[str, Any]] = {}
        self._knows_source = False
        self._loop = asyncio.get_running_loop()
        random.shuffle(self.targets)
        self._staying = self._loop.create_task(self._stay_connected())

    # The databases

    def attach(self, follower: Follower) -> None:
        """Relay another database."""
        self.followers[follower.name] = follower
        if self._knows_source:
            follower.source_is(self._shown(follower.name))

    def detach(self, follower: Follower) -> None:
        """Relay a database no more."""
        del self.followers[follower.name]

    def _shown(self, name: str) -> SourceDatabase | None:
        for columns in self._rows.values():
            if columns.get("name") == name:
                return SourceDatabase(columns)
        return None

    # Talking

    @property
    def order(self) -> str:
        """See `LockSource.order`."""
        return min(self.followers)

    @property
    def is_connected(self) -> bool:
        """Whether requests can be sent."""
        return self._connection is not None

    def request(self, method: str, params: list[Any], answered: Answered) -> int:
        """Ask the source; the id of the request. If the connection is lost there is no answer."""
        assert self._connection is not None
        request_id = self._connection.rpc.request(method, params, answered)
        self._wants_flush()
        return request_id

    def notify(self, method: str, params: list[Any]) -> None:
        """Tell the source."""
        assert self._connection is not None
        self._connection.rpc.notify(method, params)
        self._wants_flush()

    def _wants_flush(self) -> None:
        """Write what this turn of the loop has to say, all at once."""
        assert self._connection is not None
        if len(self._connection.rpc.output) == 1:
            self._loop.call_soon(self._connection.flush)

    def leave(self, why: str) -> None:
        """Give up the present connection, and try the next remote."""
        if self._connection is not None:
            _LOG.info("%s: %s; reconnecting", self._machine.name, why)
            self._connection.close(0)

    # Listening

    def received(self, events: Iterable[Event | None]) -> None:
        """Take what the source says; None is the end of the connection."""
        for event in events:
            self._inbox.append(event)
        self._machine_activity()
        self._take()

    def _machine_activity(self) -> None:
        if self._machine.is_connected:
            self._machine.activity(self._clock.now_msec())

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
            self._machine_activity()
            self._take()

    def _handle(self, event: Event) -> Job | None:
        if isinstance(event, Answer):
            answered: Answered = event.about
            return answered(event.result, event.error)
        method, params = event.method, event.params
        if not params:
            return None
        if method in ("locked", "stolen"):
            self.lock_holder.source_says(self, method, params[0])
        elif params[0] == _SERVER:
            self._server_changed(params[-1])
        elif type(params[0]) is list and params[0] and params[0][0] in self.followers:
            return self.followers[params[0][0]].source_says(method, params)
        return None

    # `_Server`

    def _begin(self) -> None:
        requests = {"Database": [{"columns": _COLUMNS}]}
        self.request("monitor_cond", [_SERVER, _SERVER, requests], self._server_known)
        self.request("set_db_change_aware", [True], ignore)

    def _server_known(self, result: Any, error: Any) -> None:
        if error is not None:
            self.leave(f"the server shows no database {_SERVER}")
            return
        self._knows_source = True
        self._server_changed(result)

    def _server_changed(self, updates: Any) -> None:
        for uuid, update in updates.get("Database", {}).items():
            ((kind, columns),) = update.items()
            if kind == "delete":
                self._rows.pop(uuid, None)
            else:
                self._rows[uuid] = self._rows.get(uuid, {}) | columns
        shown = {name: self._shown(name) for name in self.followers}
        is_of_use = any(database and database.is_usable for database in shown.values())
        if shown and not is_of_use and len(self.targets) > 1:
            self.leave("the server is not connected to the databases")
            return
        if is_of_use:
            self._machine.free_tries = len(self.targets) - 1
        for name, follower in list(self.followers.items()):
            follower.source_is(shown[name])

    # The connection

    async def _stay_connected(self) -> None:
        clock, machine = self._clock, self._machine
        machine.free_tries = len(self.targets) - 1
        machine.enable(clock.now_msec())
        while True:
            for target in self.targets:
                machine.name = target.text
                machine.set_backoff(0, self.options.max_backoff_msec or 0)
                machine.connecting(clock.now_msec())
                await self._connect(target)
                await clock.sleep(self._msec_left())
                # Others have their turn, even where there is no pause.
                await asyncio.sleep(0)

    def _msec_left(self) -> int:
        return (self._machine.deadline() or 0) - self._clock.now_msec()

    async def _connect(self, target: Target) -> None:
        """Connect, and return when the connection or the attempt is over."""
        clock, machine = self._clock, self._machine
        connection = _Connection(self)
        try:
            async with asyncio.timeout(max(0, self._msec_left()) / 1000):
                dscp = self.options.dscp
                await stream.connect(target, lambda: connection, self._tls_files, dscp)
        except TimeoutError:
            machine.connect_failed(clock.now_msec(), 0)
        except OSError as error:
            machine.connect_failed(clock.now_msec(), error_number(error))
        else:
            machine.connected(clock.now_msec())
            await self._use(target, connection)
            machine.disconnected(clock.now_msec(), connection.error)

    async def _use(self, target: Target, connection: _Connection) -> None:
        self._lost.clear()
        self._connection = connection
        self.n_connections += 1
        self._begin()
        self.lock_holder.source_found(self)
        probing = self._loop.create_task(self._probe(target))
        try:
            await self._lost.wait()
        finally:
            probing.cancel()

    def _end(self) -> None:
        self._connection = None
        self._knows_source = False
        self._rows.clear()
        for follower in list(self.followers.values()):
            follower.source_lost()
        self.lock_holder.source_lost(self)
        self._lost.set()

    async def _probe(self, target: Target) -> None:
        """Ask a silent source for a sign of life, and give up one that does not answer."""
        clock, machine = self._clock, self._machine
        while self._connection is not None:
            machine.set_probe_interval(self._probe_interval(target))
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

    def _probe_interval(self, target: Target) -> int:
        if self.options.inactivity_probe_msec is not None:
            return self.options.inactivity_probe_msec
        return PROBE_INTERVAL_MSEC if target.needs_probes else 0

    async def close(self) -> None:
        """End the connection for good."""
        self._staying.cancel()
        await asyncio.wait([self._staying])
        if self._job is not None:
            self._job.cancel()
        if self._connection is not None:
            self._connection.transport.abort()


def ignore(result: Any, error: Any) -> None:
    """Take an answer from which nothing follows."""
