"""When to connect, to probe a silent peer, and to give up on it (ovsdb-server(5), Connection).

A state machine without a clock: every time is an argument, in milliseconds, and what to do is
the answer of `run`.  The caller reports what happened and calls `run` again at `deadline`.  The
messages are those of the C library, under its module's name.
"""

import logging
import os
from enum import Enum

_LOG = logging.getLogger("ovncp.reconnect")

MIN_BACKOFF_MSEC = 1000
MAX_BACKOFF_MSEC = 8000
PROBE_INTERVAL_MSEC = 5000
_SHORTEST_MSEC = 1000  # of a backoff and of a probe interval

END_OF_FILE = -1  # the `error` of a connection that the peer closed


class Action(Enum):
    """What the caller has to do."""

    CONNECT = "connect"  # or listen; report it by `connecting`, `listening` or `connect_failed`
    DISCONNECT = "disconnect"  # then report it by `disconnected`
    PROBE = "probe"  # send what will be answered


class State(Enum):
    """Where the connection stands; the values are shown in status columns and debug messages."""

    VOID = "VOID"
    BACKOFF = "BACKOFF"
    CONNECTING = "CONNECTING"
    ACTIVE = "ACTIVE"
    IDLE = "IDLE"
    RECONNECT = "RECONNECT"
    LISTENING = "LISTENING"


_CONNECTED = (State.ACTIVE, State.IDLE)

_ACTION_WHEN_DUE = {
    State.BACKOFF: Action.CONNECT,
    State.CONNECTING: Action.DISCONNECT,
    State.ACTIVE: Action.PROBE,
    State.IDLE: Action.DISCONNECT,
    State.RECONNECT: Action.DISCONNECT,
}


class Reconnect:
    """One connection's machine; disabled until `enable` or a report of a connection.

    `tries_left` bounds how often to connect (None: no bound; 0: a connection that was accepted
    and cannot be made again).  `quiet` keeps what is normal out of the log.  `free_tries` is how
    many of the next attempts need no pause before them, where there are several addresses to try.
    """

    def __init__(
        self,
        name: str,
        now: int,
        *,
        passive: bool = False,
        quiet: bool = False,
        tries_left: int | None = None,
    ) -> None:
        self.name = name
        self.tries_left = tries_left
        self.free_tries = 0
        self.state = State.VOID
        self.last_connected: int | None = None
        self.last_disconnected: int | None = None
        self._passive = passive
        self._info = logging.DEBUG if quiet else logging.INFO
        self._min_backoff, self._max_backoff = MIN_BACKOFF_MSEC, MAX_BACKOFF_MSEC
        self._probe_interval = PROBE_INTERVAL_MSEC
        self._backoff = 0
        self._state_entered = self._last_activity = now

    @property
    def is_connected(self) -> bool:
        return self.state in _CONNECTED

    def set_backoff(self, minimum: int, maximum: int) -> None:
        """Bounds the pause between attempts, in ms; 0 is the default, less than 1000 is 1000."""
        self._min_backoff = max(minimum, _SHORTEST_MSEC)
        wanted = max(maximum, _SHORTEST_MSEC) if maximum else MAX_BACKOFF_MSEC
        self._max_backoff = max(wanted, self._min_backoff)
        if self.state is State.BACKOFF:
            self._backoff = min(self._backoff, self._max_backoff)

    def set_probe_interval(self, interval: int) -> None:
        """The silence after which to probe, in ms, at least 1000; 0 never probes."""
        self._probe_interval = max(interval, _SHORTEST_MSEC) if interval else 0

    def enable(self, now: int) -> None:
        """Lets the first attempt be made at once."""
        if self.state is State.VOID and self._may_try():
            self._enter(State.BACKOFF, now)
            self._backoff = 0

    def disable(self, now: int) -> None:
        """Asks for nothing more."""
        if self.state is not State.VOID:
            self._enter(State.VOID, now)

    def force_reconnect(self, now: int) -> None:
        """Has the connection, or the attempt, dropped and made again."""
        if self.state in (State.CONNECTING, *_CONNECTED):
            self._enter(State.RECONNECT, now)

    def connecting(self, now: int) -> None:
        """An attempt has begun; it may take as long as the present backoff."""
        if self.state is State.CONNECTING:
            return
        if self._passive:
            self._log_info("%s: listening...")
        elif self._backoff < self._max_backoff:
            self._log_info("%s: connecting...")
        self._enter(State.CONNECTING, now)

    def listening(self, now: int) -> None:
        """Connections are awaited, for as long as it takes."""
        if self.state is not State.LISTENING:
            self._log_info("%s: listening...")
            self._enter(State.LISTENING, now)

    def connected(self, now: int) -> None:
        """The attempt succeeded, or a connection was accepted."""
        if not self.is_connected:
            self.connecting(now)
            self._log_info("%s: connected")
            self._enter(State.ACTIVE, now)
            self.last_connected = now

    def connect_failed(self, now: int, error: int) -> None:
        """The attempt failed with `error` (an errno)."""
        self.connecting(now)
        self.disconnected(now, error)

    def activity(self, now: int) -> None:
        """Bytes came in, or bytes that had been stuck went out."""
        if self.state is not State.ACTIVE:
            self._enter(State.ACTIVE, now)
        self._last_activity = now

    def disconnected(self, now: int, error: int = 0) -> None:
        """The connection, the attempt or the listening ended; `error` is an errno,
        `END_OF_FILE`, or 0 for none."""
        if self.state in (State.BACKOFF, State.VOID):
            return
        self._report_end(error)
        if self.is_connected:
            self.last_disconnected = now
        if not self._may_try():
            self._enter(State.VOID, now)
            return
        self._grow_backoff()
        self._enter(State.BACKOFF, now)

    def run(self, now: int) -> Action | None:
        """What is due, if anything."""
        deadline = self.deadline()
        if deadline is None or now < deadline:
            return None
        if self.state is State.ACTIVE:
            _LOG.debug(
                "%s: idle %d ms, sending inactivity probe", self.name, now - self._quiet_since
            )
            self._enter(State.IDLE, now)
            return Action.PROBE
        if self.state is State.IDLE:
            _LOG.error(
                "%s: no response to inactivity probe after %.3g seconds, disconnecting",
                self.name,
                (now - self._state_entered) / 1000,
            )
        return _ACTION_WHEN_DUE[self.state]

    def deadline(self) -> int | None:
        """When `run` will have something to do, if nothing else happens; None for never."""
        if self.state is State.BACKOFF:
            return self._state_entered + self._backoff
        if self.state is State.CONNECTING:
            return self._state_entered + max(_SHORTEST_MSEC, self._backoff)
        if self.state is State.ACTIVE and self._probe_interval:
            return self._quiet_since + self._probe_interval
        if self.state is State.IDLE and self._probe_interval:
            return self._state_entered + self._probe_interval
        return self._state_entered if self.state is State.RECONNECT else None

    @property
    def _quiet_since(self) -> int:
        return max(self._last_activity, self._state_entered)

    def _enter(self, state: State, now: int) -> None:
        _LOG.debug("%s: entering %s", self.name, state.value)
        self.state = state
        self._state_entered = now

    def _may_try(self) -> bool:
        if self.tries_left is None:
            return True
        allowed = self.tries_left > 0
        self.tries_left -= allowed
        return allowed

    def _grow_backoff(self) -> None:
        """A connection that lasted starts over; others wait twice as long each time."""
        lasted = (
            self.last_connected is not None
            and self._last_activity - self.last_connected >= self._backoff
        )
        if self.free_tries:
            self.free_tries -= 1
            self._backoff = 0
        elif self.is_connected and (self._passive or lasted):
            self._backoff = 0 if self._passive else self._min_backoff
        elif self._backoff < self._min_backoff:
            self._backoff = self._min_backoff
        elif self._backoff < self._max_backoff // 2:
            self._backoff *= 2
            what = "trying to listen again" if self._passive else "reconnect"
            self._log_info(f"%s: waiting {self._backoff / 1000:.3g} seconds before {what}")
        else:
            if self._backoff < self._max_backoff:
                self._report_silence()
            self._backoff = self._max_backoff

    def _report_silence(self) -> None:
        what = "try to listen" if self._passive else "reconnect"
        text = "%s: continuing to %s in the background but suppressing further logging"
        _LOG.info(text, self.name, what)

    def _report_end(self, error: int) -> None:
        if self.is_connected:
            self._report("connection dropped", error, logging.WARNING)
        elif self.state is State.LISTENING:
            self._report("error listening for connections", error, logging.WARNING)
        elif self._backoff < self._max_backoff:
            attempt = "listen attempt" if self._passive else "connection attempt"
            if error > 0:
                self._report(f"{attempt} failed", error, logging.INFO)
            else:
                self._log_info(f"%s: {attempt} timed out")

    def _report(self, what: str, error: int, level: int) -> None:
        if error > 0:
            _LOG.log(level, "%s: %s (%s)", self.name, what, os.strerror(error))
        elif error == END_OF_FILE and self.is_connected:
            self._log_info("%s: connection closed by peer")
        else:
            self._log_info(f"%s: {what}")

    def _log_info(self, text: str) -> None:
        _LOG.log(self._info, text, self.name)
