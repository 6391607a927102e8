"""The methods of monitors (RFC 7047 section 4.1.5, ovsdb-server(7) sections 4.1.12 to 4.1.15).

A client is told how things are once everything that executed is visible. If that is much to tell,
the client waits for its turn (`dumps`) and most of the work is done beforehand, on a database that
goes on meanwhile.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from ovncp.ovsdb.atom import ZERO_UUID, uuid_from_string
from ovncp.ovsdb.errors import OvsdbError, json_text, syntax_error
from ovncp.ovsdb.monitor import Monitor
from ovncp.ovsdb.monitor_request import MonitorRequest, Where
from ovncp.server.dumps import Turn
from ovncp.server.methods import Method, Request, answering, runner_of
from ovncp.server.runner import Runner

# What is looked at without a wait.
_FEW_ROWS = 1000
_FEW_CLAUSES = 50
_DONE = object()


def _answer(request: Request, action: Callable[[], None]) -> None:
    """Do what answers `request`; an OvsdbError is the answer too."""
    try:
        action()
    except OvsdbError as error:
        request.fail(error)


def _n_clauses(requests: Any) -> int:
    """How many clauses there are in `requests`, which need not be valid."""
    total = 0
    for of_table in requests.values() if type(requests) is dict else ():
        for request in of_table if type(of_table) is list else (of_table,):
            where = request.get("where") if type(request) is dict else None
            total += len(where) if type(where) is list else 0
    return total


class _NewMonitor:
    """A "monitor" request, or one of its later forms."""

    def __init__(self, request: Request, version: int) -> None:
        """Raises OvsdbError."""
        self._request = request
        self._session = request.session
        self._version = version
        params = request.params
        self._database = runner_of(request).database
        n_params = 4 if version == 3 else 3
        if len(params) < n_params or (version > 1 and len(params) > n_params):
            raise syntax_error(params, "invalid parameters")
        self._key = json_text(params[1]).encode()
        if type(params[2]) is dict and self._key in self._session.monitors:
            raise syntax_error(params[1], "duplicate monitor ID")
        self._wanted: MonitorRequest
        self._known_id = ZERO_UUID

    def begin(self) -> None:
        """Answer at once, or when it is the client's turn."""
        dumps = self._session.server.dumps
        if self._is_small() and dumps.take_small():
            self._parse()
            self._finish()
        else:
            turn = Turn(self._session, self._prepare, self._finish, self._request.fail)
            dumps.enter(turn)

    def _is_small(self) -> bool:
        requests, tables = self._request.params[2], self._database.tables
        if _n_clauses(requests) > _FEW_CLAUSES:
            return False
        names = requests if type(requests) is dict else ()
        wanted = [tables[name] for name in names if name in tables]
        return sum([len(table.rows) for table in wanted]) <= _FEW_ROWS

    def _parse(self) -> None:
        self._database = runner_of(self._request).database
        params = self._request.params
        self._wanted = self._database.monitors.parse(params[2], self._version)
        if self._version == 3:
            self._known_id = _transaction_id(params[3])

    def _prepare(self) -> Iterator[None]:
        self._parse()
        monitors, known_id = self._database.monitors, self._resumable_id()
        if known_id is None:
            yield from monitors.prepare(self._wanted)
        else:
            yield from monitors.prepare_since(self._wanted, self._database.history, known_id)

    def _resumable_id(self) -> str | None:
        """The state from which the client can go on, if there is one."""
        # A client that knows nothing is not one that knows the state before the first change.
        if self._known_id == ZERO_UUID:
            return None
        shows_unstored = self._wanted.shows_unstored
        return self._database.history.known_as(self._known_id, shows_unstored)

    def _finish(self) -> None:
        _answer(self._request, self._wait)

    def _wait(self) -> None:
        runner_of(self._request).when_settled(partial(_answer, self._request, self._add))

    def _add(self) -> None:
        if self._session.is_gone:
            return
        runner = runner_of(self._request)
        if runner.database is not self._database:  # it was converted meanwhile
            self._parse()
        if self._may_know_more() and not runner.is_latest(self._wait):
            return  # A dump of what is here might take the client back.
        monitors = self._database.monitors
        monitor = monitors.add(self._session, self._request.params[1], self._wanted)
        self._session.monitors[self._key] = (monitor, runner)
        self._tell(monitor)

    def _may_know_more(self) -> bool:
        """Whether the client has seen a state that may be later than what is here."""
        return self._known_id != ZERO_UUID and self._resumable_id() is None

    def _tell(self, monitor: Monitor) -> None:
        """Answer with what the client does not know."""
        database, found = self._database, b"false"
        known_id = self._resumable_id()
        if known_id is not None:
            found = b"true"
            updates = [database.monitors.since(monitor, database.history, known_id)]
        else:
            updates = database.monitors.initial(monitor)
        if self._version == 3:
            head = b'[%b,"%b",' % (found, database.transaction_id.encode())
            updates = [head, *updates, b"]"]
        self._session.reply(self._request.id_bytes, *updates)


def _transaction_id(json: object) -> str:
    if type(json) is not str:
        raise syntax_error(json, "last-txn-id must be string")
    uuid = uuid_from_string(json)
    if uuid is None:
        raise syntax_error(json, "last-txn-id must be UUID format.")
    return uuid


class _Change:
    """A "monitor_cond_change" request (ovsdb-server(7) section 4.1.13)."""

    def __init__(self, request: Request) -> None:
        """Raises OvsdbError."""
        self._request = request
        self._session = request.session
        if len(request.params) != 3:
            raise syntax_error(request.params, "invalid parameters")
        old_id, self._new_id, self._changes = request.params
        self._key = json_text(old_id).encode()
        self._monitor, self._runner = self._known()
        self._database = self._runner.database
        new_key = json_text(self._new_id).encode()
        if new_key != self._key and new_key in self._session.monitors:
            raise syntax_error(self._new_id, "duplicate monitor ID")
        self._wanted: dict[str, Where]

    def _known(self) -> tuple[Monitor, Runner]:
        known = self._session.monitors.get(self._key)
        if known is None:
            raise syntax_error(self._request.params[0], "unknown monitor session")
        return known

    def begin(self) -> None:
        """Answer at once, or when it is the client's turn."""
        steps, dumps = self._prepare(), self._session.server.dumps
        is_small = _n_clauses(self._changes) <= _FEW_CLAUSES and dumps.take_small()
        if is_small and next(steps, _DONE) is _DONE:
            self._finish()
        else:
            turn = Turn(self._session, lambda: steps, self._finish, self._request.fail)
            dumps.enter(turn)

    def _prepare(self) -> Iterator[None]:
        monitors = self._database.monitors
        self._wanted = monitors.parse_change(self._monitor, self._changes)
        yield from monitors.prepare_change(self._monitor, self._wanted)

    def _finish(self) -> None:
        self._runner.when_settled(partial(_answer, self._request, self._apply))

    def _apply(self) -> None:
        if self._session.is_gone:
            return
        self._known()  # unless it was canceled meanwhile
        session, monitors = self._session, self._database.monitors
        session.catch_up()
        updates = monitors.change_conditions(self._monitor, self._new_id, self._wanted)
        del session.monitors[self._key]
        session.monitors[self._monitor.id_bytes] = (self._monitor, self._runner)
        if updates:
            session.send(*self._monitor.message(self._database.transaction_id, *updates))
        self._request.reply({})


def _monitor(version: int) -> Method:
    return lambda request: _NewMonitor(request, version).begin()


def monitor_cond_change(request: Request) -> None:
    """ovsdb-server(7) section 4.1.13."""
    _Change(request).begin()


def monitor_cancel(request: Request) -> None:
    """RFC 7047 section 4.1.7."""
    if len(request.params) != 1:
        request.fail("invalid parameters")
        return
    key = json_text(request.params[0]).encode()
    if key not in request.session.monitors:
        request.fail("unknown monitor")
        return
    request.session.forget_monitor(key)
    request.reply({})


MONITOR_METHODS: Final[dict[str, Method]] = {
    name: answering(method)
    for name, method in {
        "monitor": _monitor(1),
        "monitor_cond": _monitor(2),
        "monitor_cond_since": _monitor(3),
        "monitor_cond_change": monitor_cond_change,
        "monitor_cancel": monitor_cancel,
    }.items()
}
