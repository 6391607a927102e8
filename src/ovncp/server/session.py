"""One client's connection: bytes to requests, replies and updates to bytes (RFC 7047 section 4).

A client's messages are handled in the order in which they come, and each once those before it are
answered. Only transactions need not wait for each other, so that many become durable together, nor
does anything wait for one that waits for a condition.

A client that does not read is not written to: what changes meanwhile is put together, from the
database's history, when it reads again. Nor is it read from, so that it cannot ask for more. What
it is owed all the same is bounded.
"""

import asyncio
import errno
import logging
import os
from collections import deque
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, cast

from ovncp.follow.link import MAX_MESSAGE_BYTES, error_number
from ovncp.ovsdb.json_bytes import encode
from ovncp.ovsdb.monitor import Monitor
from ovncp.server.coverage import COUNTERS, define
from ovncp.server.dumps import Turn
from ovncp.server.methods import METHODS, NOTIFICATIONS, Request
from ovncp.server.monitor_methods import MONITOR_METHODS
from ovncp.server.on_behalf import METHODS_ON_BEHALF, Principal
from ovncp.server.output import HIGH_WATER_BYTES, Output, total_bytes
from ovncp.server.rate_limit import RateLimit
from ovncp.server.stream import peer_name
from ovncp.server.tls import peer_common_name
from ovncp.wire import jsonrpc
from ovncp.wire.json_stream import JsonError, JsonStream, pieces
from ovncp.wire.reconnect import END_OF_FILE, Action, Reconnect

if TYPE_CHECKING:
    from ovncp.server.remote import Remote
    from ovncp.server.runner import Runner
    from ovncp.server.server import Server

_LOG = logging.getLogger("ovncp.ovsdb_jsonrpc_server")
_RPC_LOG = logging.getLogger("ovncp.jsonrpc")
_BAD_CLIENTS: Final = RateLimit(per_minute=5, burst=5)

define("jsonrpc_received", "jsonrpc_sent", "monitor_merged", "session_overflow")

_PIECE_BYTES: Final = 1 << 15  # of what came in, to be handled in one turn of the loop
_SHARED_BYTES: Final = 1 << 16
_METHODS: Final = METHODS | MONITOR_METHODS
_TRANSACTING: Final = ("transact", "transact_for")
_MOST_UNDER_WAY: Final = 1000  # transactions of one client that are not durable yet
_CLOSING_SECONDS = 10.0  # for a client to read the rest
_SIGN_OF_LIFE_MSEC = 1000  # between those that a client gets while it waits for its turn
_PROBE = b'{"id":"echo","method":"echo","params":[]}'
_TOO_SLOW = "the client is too slow: its updates exceed the kept history"
_END: Final = object()  # of what the client sends


class Traffic:
    """What has come from clients and gone to them: requests, and bytes of JSON."""

    __slots__ = ("n_requests", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.n_requests = 0
        self.received_bytes = 0
        self.sent_bytes = 0

    def add(self, other: "Traffic") -> None:
        """Add what went on elsewhere."""
        self.n_requests += other.n_requests
        self.received_bytes += other.received_bytes
        self.sent_bytes += other.sent_bytes


class Session:
    """A client. `monitors` is by the JSON text of the monitor's id.

    It is an `asyncio.Protocol`, but not by inheritance, which would cost it its compiled form.
    """

    def __init__(self, server: "Server", remote: "Remote") -> None:
        self.server = server
        self.remote = remote
        self.name = ""
        self.identity: str | None = None
        self.monitors: dict[bytes, tuple[Monitor, Runner]] = {}
        self.locks: dict[str, None] = {}
        # Of a worker: its clients, by number.
        self.principals: dict[int, Principal] = {}
        self.waiting: dict[bytes, Runner] = {}
        self.is_change_aware = False
        # When it connected and was last heard of, and whether to ask it for a sign of life.
        self.reconnect: Reconnect
        self.received_msec = 0
        self.received_ns = 0  # the same on `perf_counter_ns`
        self.traffic = Traffic()
        self._told_msec = self._signaled_msec = 0
        # When the client was probed before: whether something waited to be written, and how much
        # the kernel had taken.
        self._had_backlog = False
        self._taken_bytes = 0
        self._closing = False
        self._error = 0
        # What came in and is not handled yet: messages, then perhaps what ends them; and what is
        # not even read, b"" for its end.
        self._input: deque[Any] = deque()
        self._unread: deque[bytes] = deque()
        self._is_reading = True
        self._n_unanswered = 0
        self._is_transacting = False
        # Its wait for a dump, or the dump.
        self.turn: Turn | None = None
        # The monitors that lag, with the id of the state that the client knows.
        self._behind: dict[Monitor, str] = {}
        self._stream = JsonStream(MAX_MESSAGE_BYTES)
        self.output: Output
        self._transport: asyncio.Transport
        self._wants_flush = False
        # Whether output is left that the transport had no room for, how much of that was told to
        # the server, and how much came after it.
        self._is_congested = False
        self._backlog_bytes = 0
        self._added_bytes = 0

    # What a database must know of a client

    @property
    def read_only(self) -> bool:
        """See `Client.read_only`."""
        return self.remote.read_only

    @property
    def role(self) -> str:
        """See `Client.role`."""
        return self.remote.role

    def owns_lock(self, name: str) -> bool:
        """See `Client.owns_lock`."""
        return self.server.locks.owns(self, name)

    def has_owned(self, name: str, since_ns: int) -> bool:
        """See `Owner.has_owned`."""
        return self.server.locks.owns(self, name, since_ns)

    # The connection

    @property
    def was_told(self) -> bool:
        """Whether anything was written for the client so far."""
        return bool(self.output.sent_bytes or self.output.n_bytes)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an instance of asyncio's class with every event loop.
        self._transport = transport = cast(asyncio.Transport, transport)
        self.output = Output(transport)
        self.name = peer_name(transport)
        self.identity = peer_common_name(transport)
        self.server.add_session(self)
        self.received_msec = self._told_msec = self.server.clock.now_msec()
        self.reconnect = self.remote.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._input.clear()
        self._unread.clear()
        self._drop_output()
        if isinstance(exc, OSError):
            self._error = error_number(exc)
            verb = "send" if self._error == errno.EPIPE else "receive"
            self._warn("%s error: %s", verb, os.strerror(self._error))
        self.server.remove_session(self)
        self._tell_activity()
        self.reconnect.disconnected(self.server.clock.now_msec(), self._error)
        self.remote.disconnected(self, self._error)

    def close(self, error: int = 0) -> None:
        """End the connection after what is to be written; `error` is as in `Reconnect`."""
        if not self._closing:
            self._closing = True
            self._error = error
            self.output.write_all()
            self.flush()
            if self._transport.get_write_buffer_size():
                self.server.call_later(_CLOSING_SECONDS, self._transport.abort)
            self._transport.close()

    def abort(self, reason: str) -> None:
        """End the connection at once, and log why."""
        if not self._closing:
            self._closing = True
            _LOG.warning("%s: %s, closing the connection", self.name, reason)
            self._drop_output()
            self._transport.abort()

    def overflow(self, reason: str) -> None:
        """As `abort`, for a client that reads too slowly."""
        if not self._closing:
            COUNTERS["session_overflow"] += 1
            self.abort(reason)

    def probe(self, now_msec: int) -> None:
        """Ask a client that is silent whether it is there, and give up one that does not answer.

        One that reads, however slowly, is there, and so is one that waits for its turn.
        """
        if self._reads_backlog() or self._input or self.waits_for_turn:
            self.received_msec = now_msec
        self._check_backlog()
        self._show_life(now_msec)
        self._tell_activity()
        self.reconnect.set_probe_interval(self.remote.inactivity_probe_msec)
        action = self.reconnect.run(now_msec)
        if action is Action.PROBE:
            self.send(_PROBE)
        elif action is Action.DISCONNECT:
            self._closing = True
            self._transport.abort()

    def _reads_backlog(self) -> bool:
        """Whether the client had a backlog when it was probed before, and has read some of it."""
        had_backlog, taken_bytes = self._had_backlog, self._taken_bytes
        self._had_backlog = self.backlog_bytes > 0
        self._taken_bytes = self.output.sent_bytes - self.transport_bytes
        return had_backlog and self._taken_bytes > taken_bytes

    def _show_life(self, now_msec: int) -> None:
        """Let a client that waits for its turn know that its server is there."""
        if not self.waits_for_turn:
            self._signaled_msec = now_msec
        elif now_msec >= self._signaled_msec + _SIGN_OF_LIFE_MSEC:
            self._signaled_msec = now_msec
            self.send(_PROBE)

    @property
    def waits_for_turn(self) -> bool:
        """Whether the client asked for a dump and has no answer yet."""
        return self.turn is not None and self._n_under_way > 0

    def _tell_activity(self) -> None:
        if self.received_msec > self._told_msec:
            self.reconnect.activity(self.received_msec)
            self._told_msec = self.received_msec

    # Input

    def data_received(self, data: bytes) -> None:
        self.received_msec = self.server.clock.now_msec()
        self.received_ns = perf_counter_ns()
        self.traffic.received_bytes += len(data)
        self._unread.extend(pieces(data, _PIECE_BYTES))
        self.take_input()

    def eof_received(self) -> bool:
        """Answer what came before the end; TLS has no connection that is open on one side only."""
        self._unread.append(b"")
        self.take_input()
        return self._transport.get_extra_info("sslcontext") is None

    def wants_turn(self) -> None:
        """Go on with what came in at the end of this turn of the loop."""
        if self._input:
            self.server.wants_flush(self)

    def take_input(self) -> None:
        """Handle what came in, as far as its turn has come, and of much only a piece.

        A piece is parsed, executed and on its way to the disk before the next one is looked at:
        the processor has it at hand, and other clients have their turn.
        """
        if self._closing:
            return
        if self._unread and not self._input:
            self._read(self._unread.popleft())
        while self._input and not self._closing and self._is_turn_of(self._input[0]):
            self._handle(self._input.popleft())
        if self._unread and not self._input:
            self._want_flush()
        has_input = bool(self._input or self._unread)
        if self._is_reading is (has_input or self._is_congested) and not self._closing:
            self._is_reading = not self._is_reading
            if self._is_reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _read(self, piece: bytes) -> None:
        if not piece:
            self._input.append(_END)
            return
        try:
            self._input.extend(self._stream.feed(piece))
        except JsonError as error:
            self._input.extend((*error.completed, error))

    def _is_turn_of(self, message: Any) -> bool:
        if self._is_congested or self.turn is not None or self.output.n_bytes > HIGH_WATER_BYTES:
            return False
        n_under_way = self._n_under_way
        if not n_under_way:
            return True
        return self._is_transacting and n_under_way < _MOST_UNDER_WAY and _is_transact(message)

    @property
    def _n_under_way(self) -> int:
        """The number of requests that are not answered, but for those that wait for a change."""
        return self._n_unanswered - len(self.waiting)

    def _handle(self, message: Any) -> None:
        if message is _END:
            self.close(END_OF_FILE)
        elif isinstance(message, JsonError):
            self._warn("error parsing stream: %s", message)
            self.close(errno.EPROTO)
        else:
            self._handle_message(message)

    def _handle_message(self, message: Any) -> None:
        COUNTERS["jsonrpc_received"] += 1
        try:
            kind = jsonrpc.check(message)
        except jsonrpc.InvalidMessage as error:
            self._warn("received bad JSON-RPC message: %s", error)
            self.close(errno.EPROTO)
            return
        if kind is jsonrpc.Kind.REQUEST:
            self._handle_request(message)
        elif kind is jsonrpc.Kind.NOTIFICATION:
            handle = NOTIFICATIONS.get(message["method"])
            if handle is not None:
                handle(self, message["params"])
        elif message["id"] != "echo":
            _LOG.warning("%s: received unexpected %s message", self.name, kind.value)
            self.close()

    def _handle_request(self, message: Any) -> None:
        request = Request(
            self, message["method"], message["params"], jsonrpc.encode_id(message["id"])
        )
        self._n_unanswered += 1
        self.traffic.n_requests += 1
        self._is_transacting = request.method in _TRANSACTING
        handle = _METHODS.get(request.method)
        if handle is None and self.remote.speaks_for_others:
            handle = METHODS_ON_BEHALF.get(request.method)
        if handle is None or request.method in self.server.disabled_methods:
            self.reply_error(request.id_bytes, "unknown method")
        else:
            handle(request)

    def _warn(self, text: str, *args: object) -> None:
        """Log what is wrong with the client, unless there is too much of that."""
        _BAD_CLIENTS.log(_RPC_LOG, logging.WARNING, f"%s: {text}", self.name, *args)

    # Output

    def reply(self, id_bytes: bytes, *result: bytes) -> None:
        """See `Requester.reply`; `result` may be in parts."""
        self._n_unanswered -= 1
        self.send(b'{"id":', id_bytes, b',"result":', *result, b',"error":null}')

    def reply_error(self, id_bytes: bytes, error: Any) -> None:
        """See `Requester.reply_error`."""
        self._n_unanswered -= 1
        self.send(b'{"id":%b,"error":%b}' % (id_bytes, encode(error)))

    def notify(self, method: str, params: list[Any]) -> None:
        """Send a notification."""
        self.send(jsonrpc.encode_notification(method, params))

    def send(self, *parts: bytes) -> None:
        """Send one message that consists of `parts`, after the updates that it must not precede."""
        if self._behind:
            self.catch_up()
        # What is large is not copied, since others may be sent the same.
        if len(parts) > 1 and total_bytes(parts) < _SHARED_BYTES:
            parts = (b"".join(parts),)
        if self._is_congested or self.output.n_bytes > HIGH_WATER_BYTES:
            self._add_to_backlog(total_bytes(parts))
        if self._closing:
            return
        COUNTERS["jsonrpc_sent"] += 1
        self.output.extend(parts)
        self._want_flush()

    def _add_to_backlog(self, n_bytes: int) -> None:
        """Note that `n_bytes` more wait, unless too many do; a single message may have any size."""
        bound = self.server.limits.session_backlog_bytes
        if self._added_bytes > bound:
            self.overflow(f"the client is too slow: its backlog exceeds {bound} bytes")
        self._added_bytes += n_bytes

    def update(self, monitor: Monitor, message: bytes, before: str) -> None:
        """Send an update of `monitor`, whose client knows the state `before`; later if it lags."""
        if self._is_congested:
            self._behind.setdefault(monitor, before)
        elif not self._closing:
            self.output.add(message)
            self._want_flush()

    def _want_flush(self) -> None:
        if not self._wants_flush:
            self._wants_flush = True
            self.server.wants_flush(self)

    def flush(self) -> None:
        """Hand output to the transport, and go on with what waited for these answers."""
        self._wants_flush = False
        self.output.write()
        self.traffic.sent_bytes = self.output.sent_bytes
        self._note_backlog()
        if not self._is_congested:
            self._drained()
        elif not self.output.is_paused:
            self._want_flush()
        self.take_input()

    def _note_backlog(self) -> None:
        n_bytes = self.output.n_bytes
        self._is_congested = n_bytes > 0 or self.output.is_paused
        if n_bytes != self._backlog_bytes:
            difference, self._backlog_bytes = n_bytes - self._backlog_bytes, n_bytes
            self.server.backlog.change(difference)

    def _drained(self) -> None:
        """Do what was to wait until the client has read what it was sent."""
        self._added_bytes = 0
        self.output.handed = None
        if self.turn is not None and not self.waits_for_turn:
            self.server.dumps.end(self.turn)
        if self._behind:
            self.catch_up()

    def _drop_output(self) -> None:
        self.output.clear()
        self._note_backlog()
        if self.turn is not None:
            self.server.dumps.end(self.turn)

    def pause_writing(self) -> None:
        self.output.is_paused = self._is_congested = True
        self.take_input()

    def resume_writing(self) -> None:
        self.output.is_paused = False
        self.flush()

    def _check_backlog(self) -> None:
        """Part with a client that can no longer catch up."""
        for monitor, since in self._behind.items():
            history = self.monitors[monitor.id_bytes][1].database.history
            if not history.includes(since):
                self.overflow(_TOO_SLOW)
                return

    def catch_up(self) -> None:
        """Bring the monitors that lag up to date, each with one update."""
        behind, self._behind = self._behind, {}
        for monitor, since in behind.items():
            database = self.monitors[monitor.id_bytes][1].database
            if not database.history.includes(since):
                self.overflow(_TOO_SLOW)
                return
            COUNTERS["monitor_merged"] += 1
            updates = database.monitors.since(monitor, database.history, since)
            if updates != b"{}":
                self.send(*monitor.message(database.transaction_id, updates))

    def forget_monitor(self, key: bytes) -> None:
        """Drop a monitor."""
        monitor, runner = self.lose_monitor(key)
        runner.database.monitors.remove(monitor)

    def lose_monitor(self, key: bytes) -> "tuple[Monitor, Runner]":
        """Drop a monitor whose database may be gone already."""
        lost = self.monitors.pop(key)
        self._behind.pop(lost[0], None)
        return lost

    @property
    def is_gone(self) -> bool:
        """Whether the client is told nothing more."""
        return self._closing

    @property
    def backlog_bytes(self) -> int:
        """The number of bytes that wait to be written."""
        return self.output.n_bytes + self.transport_bytes

    @property
    def transport_bytes(self) -> int:
        """The number of those that the transport has."""
        return 0 if self._closing else self._transport.get_write_buffer_size()


def _is_transact(message: Any) -> bool:
    return type(message) is dict and message.get("method") in _TRANSACTING
