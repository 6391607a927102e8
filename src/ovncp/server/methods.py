"""The methods that clients call (RFC 7047 section 4.1 and ovsdb-server(7) section 4.1)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from ovncp.log.base import LogError
from ovncp.ovsdb.atom import ZERO_UUID, uuid_from_string
from ovncp.ovsdb.errors import OvsdbError, json_text, syntax_error
from ovncp.ovsdb.parser import is_id
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.server.runner import Runner, Transact, log_failure
from ovncp.wire.jsonrpc import encode, encode_id

if TYPE_CHECKING:
    from ovncp.server.session import Session


class Request:
    """A request of a session. `id_bytes` is its id as JSON text."""

    __slots__ = ("id_bytes", "method", "params", "session")

    def __init__(self, session: "Session", method: str, params: list[Any], id_bytes: bytes) -> None:
        self.session = session
        self.method = method
        self.params = params
        self.id_bytes = id_bytes

    def reply(self, result: Any) -> None:
        """Answer with `result`."""
        self.session.reply(self.id_bytes, encode(result))

    def fail(self, error: OvsdbError | str) -> None:
        """Answer with `error`."""
        json = error if isinstance(error, str) else error.to_json()
        self.session.reply_error(self.id_bytes, json)


Method = Callable[[Request], None]


def _answering(method: Method) -> Method:
    """`method`, whose OvsdbError is the answer."""

    def call(request: Request) -> None:
        try:
            method(request)
        except OvsdbError as error:
            request.fail(error)

    return call


def _runner(request: Request) -> Runner:
    params = request.params
    if not params or type(params[0]) is not str:
        message = f"{request.method} request params must begin with <db-name>"
        raise syntax_error(params, message)
    runner = request.session.server.runners.get(params[0])
    if runner is None:
        message = f"{request.method} request specifies unknown database {params[0]}"
        raise OvsdbError("unknown database", message, params)
    return runner


def list_dbs(request: Request) -> None:
    """RFC 7047 section 4.1.1."""
    request.reply(list(request.session.server.runners))


def get_schema(request: Request) -> None:
    """RFC 7047 section 4.1.2."""
    request.reply(_runner(request).database.schema.to_json())


def transact(request: Request) -> None:
    """RFC 7047 section 4.1.3."""
    runner = _runner(request)
    session, id_bytes = request.session, request.id_bytes
    if id_bytes in session.waiting:
        raise syntax_error(request.params, "transact: duplicate request ID")
    operations = request.params[1:]
    arrived = session.received_msec
    runner.transact(Transact(session, id_bytes, operations, arrived, session.wants_turn))


def cancel(session: "Session", params: list[Any]) -> None:
    """RFC 7047 section 4.1.4."""
    if len(params) == 1:
        id_bytes = encode_id(params[0])
        runner = session.waiting.get(id_bytes)
        if runner is not None:
            runner.cancel(session, id_bytes)


def _transaction_id(json: Any) -> str:
    if type(json) is not str:
        raise syntax_error(json, "last-txn-id must be string")
    uuid = uuid_from_string(json)
    if uuid is None:
        raise syntax_error(json, "last-txn-id must be UUID format.")
    return uuid


def _monitor(version: int) -> Method:
    """ "monitor" (RFC 7047 section 4.1.5), or the method of the later `version`."""

    def monitor(request: Request) -> None:
        runner = _runner(request)
        runner.when_settled(lambda: _answering(add)(request))

    def add(request: Request) -> None:
        session, params = request.session, request.params
        if session.is_gone:
            return
        runner = _runner(request)
        n_params = 4 if version == 3 else 3
        if len(params) < n_params or (version > 1 and len(params) > n_params):
            raise syntax_error(params, "invalid parameters")
        known_id = _transaction_id(params[3]) if version == 3 else ZERO_UUID
        key = json_text(params[1]).encode()
        if type(params[2]) is dict and key in session.monitors:
            raise syntax_error(params[1], "duplicate monitor ID")
        database = runner.database
        monitor = database.monitors.add(session, params[1], params[2], version)
        session.monitors[key] = (monitor, runner)
        if version < 3:
            session.reply(request.id_bytes, database.monitors.initial(monitor))
            return
        difference = database.history.since(known_id)
        found, updates = b"false", b""
        if difference is None:
            updates = database.monitors.initial(monitor)
        else:
            found, updates = b"true", database.monitors.since(monitor, difference)
        last_id = database.transaction_id.encode()
        session.reply(request.id_bytes, b'[%b,"%b",' % (found, last_id), updates, b"]")

    return monitor


def monitor_cond_change(request: Request) -> None:
    """ovsdb-server(7) section 4.1.13."""
    params, session = request.params, request.session
    if len(params) != 3:
        raise syntax_error(params, "invalid parameters")
    known = session.monitors.get(json_text(params[0]).encode())
    if known is None:
        raise syntax_error(params[0], "unknown monitor session")
    known[1].when_settled(lambda: _answering(_change_conditions)(request))


def _change_conditions(request: Request) -> None:
    old_id, new_id, changes = request.params
    session = request.session
    key = json_text(old_id).encode()
    if key not in session.monitors:
        raise syntax_error(old_id, "unknown monitor session")
    new_key = json_text(new_id).encode()
    if new_key != key and new_key in session.monitors:
        raise syntax_error(new_id, "duplicate monitor ID")
    monitor, runner = session.monitors[key]
    session.catch_up()
    updates = runner.database.monitors.change_conditions(monitor, new_id, changes)
    del session.monitors[key]
    session.monitors[monitor.id_bytes] = (monitor, runner)
    if updates is not None:
        session.send(monitor.message(updates, runner.database.transaction_id))
    request.reply({})


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


def _lock_name(request: Request) -> str:
    if len(request.params) != 1 or not is_id(request.params[0]):
        raise syntax_error(request.params, f"{request.method} request params must be <id>")
    name: str = request.params[0]
    return name


def _lock(request: Request) -> None:
    """RFC 7047 sections 4.1.8, "lock" and "steal"."""
    session = request.session
    if session.read_only:
        request.fail("lock and unlock methods not allowed, DB server is read only.")
        return
    name = _lock_name(request)
    if name in session.locks:
        message = f'must issue "unlock" before new "{request.method}"'
        raise syntax_error(request.params, message)
    session.locks[name] = None
    locks = session.server.locks
    if request.method == "lock":
        is_owner = locks.lock(session, name)
    else:
        is_owner = True
        victim = locks.steal(session, name)
        if victim is not None:
            session.server.notify_lock(victim, "stolen", name)
    request.reply({"locked": is_owner})


def unlock(request: Request) -> None:
    """RFC 7047 section 4.1.8."""
    session = request.session
    if session.read_only:
        request.fail("lock and unlock methods not allowed, DB server is read only.")
        return
    name = _lock_name(request)
    if name not in session.locks:
        raise syntax_error(request.params, 'unlock: "unlock" without "lock" or "steal"')
    session.server.unlock(session, name)
    request.reply({})


def echo(request: Request) -> None:
    """RFC 7047 section 4.1.11."""
    request.reply(request.params)


def get_server_id(request: Request) -> None:
    """ovsdb-server(7) section 4.1.17."""
    request.reply(request.session.server.server_id)


def set_db_change_aware(request: Request) -> None:
    """ovsdb-server(7) section 4.1.18."""
    if len(request.params) != 1 or type(request.params[0]) is not bool:
        message = "set_db_change_aware: true or false parameter expected"
        raise syntax_error(request.params, message)
    request.session.is_change_aware = request.params[0]
    request.reply({})


def convert(request: Request) -> None:
    """ovsdb-server(7) section 4.1.19."""
    runner = _runner(request)
    session = request.session
    if session.role:
        _refuse_conversion(session, runner)
    if len(request.params) != 2:
        raise syntax_error(request.params, "array expected")
    if session.read_only or runner.log is None:
        raise OvsdbError("not allowed", f"database {runner.name} may not be converted")
    schema = DatabaseSchema.from_json(request.params[1])
    if schema.name != runner.name:
        names = f"new schema name ({schema.name}) does not match database name ({runner.name})"
        raise OvsdbError("invalid parameters", names)
    session.server.spawn(_convert(request, runner, schema))


def _refuse_conversion(session: "Session", runner: Runner) -> NoReturn:
    client = f'client "{session.identity or "(null)"}" role "{session.role}"'
    reason = "(only the root role may convert databases)"
    message = f'RBAC rules for {client} prohibit "convert" of database {runner.name} {reason}'
    raise OvsdbError("permission error", message)


async def _convert(request: Request, runner: Runner, schema: DatabaseSchema) -> None:
    server = request.session.server
    try:
        await server.convert(runner, schema)
    except (OvsdbError, LogError) as error:
        failure = error if isinstance(error, OvsdbError) else log_failure(error)
        request.fail(failure)
    else:
        request.reply({})
        server.finish_conversion(runner)


METHODS: dict[str, Method] = {
    name: _answering(method)
    for name, method in {
        "list_dbs": list_dbs,
        "get_schema": get_schema,
        "transact": transact,
        "monitor": _monitor(1),
        "monitor_cond": _monitor(2),
        "monitor_cond_since": _monitor(3),
        "monitor_cond_change": monitor_cond_change,
        "monitor_cancel": monitor_cancel,
        "lock": _lock,
        "steal": _lock,
        "unlock": unlock,
        "echo": echo,
        "get_server_id": get_server_id,
        "set_db_change_aware": set_db_change_aware,
        "convert": convert,
    }.items()
}

NOTIFICATIONS: dict[str, Callable[["Session", list[Any]], None]] = {"cancel": cancel}
