"""The methods that clients call (RFC 7047 section 4.1 and ovsdb-server(7) section 4.1)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ovncp.log.base import LogError
from ovncp.ovsdb.errors import OvsdbError, syntax_error
from ovncp.ovsdb.json_bytes import encode
from ovncp.ovsdb.parser import is_id
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.server.runner import Runner, Transact, log_failure
from ovncp.wire.jsonrpc import encode_id

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

    def finish(self, result: Any, error: Any) -> None:
        """Answer as another server did."""
        if error is None:
            self.reply(result)
        else:
            self.session.reply_error(self.id_bytes, error)


Method = Callable[[Request], None]


def answering(method: Method) -> Method:
    """`method`, whose OvsdbError is the answer."""

    def call(request: Request) -> None:
        try:
            method(request)
        except OvsdbError as error:
            request.fail(error)

    return call


def runner_of(request: Request) -> Runner:
    """The database that the parameters begin with. Raises OvsdbError."""
    params = request.params
    if not params or type(params[0]) is not str:
        message = f"{request.method} request params must begin with <db-name>"
        raise syntax_error(params, message)
    runner = request.session.server.runners.get(params[0])
    if runner is None:
        message = f"{request.method} request specifies unknown database {params[0]}"
        raise OvsdbError("unknown database", message, params)
    if not runner.is_available:
        what = f"{request.method} request specifies database {params[0]}"
        reason = "which is not yet available because it has not completed joining its cluster"
        raise OvsdbError("database not available", f"{what} {reason}")
    return runner


def list_dbs(request: Request) -> None:
    """RFC 7047 section 4.1.1."""
    request.reply(list(request.session.server.runners))


def get_schema(request: Request) -> None:
    """RFC 7047 section 4.1.2."""
    runner = runner_of(request)
    runner.when_settled(lambda: request.reply(runner.database.schema.to_json()))


def transact(request: Request) -> None:
    """RFC 7047 section 4.1.3."""
    runner = runner_of(request)
    if request.id_bytes in request.session.waiting:
        raise syntax_error(request.params, "transact: duplicate request ID")
    runner.transact(transaction_of(request))


def transaction_of(request: Request) -> Transact:
    """The transaction that a "transact" asks for."""
    session = request.session
    return Transact(
        session,
        request.id_bytes,
        request.params[1:],
        session.received_msec,
        session.wants_turn,
        session.received_ns,
    )


def cancel(session: "Session", params: list[Any]) -> None:
    """RFC 7047 section 4.1.4."""
    if len(params) == 1:
        id_bytes = encode_id(params[0])
        runner = session.waiting.get(id_bytes)
        if runner is not None:
            runner.cancel(session, id_bytes)


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
    ask = locks.lock if request.method == "lock" else locks.steal
    ask(session, name, lambda is_owner: request.reply({"locked": is_owner}))


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
    runner = runner_of(request)
    session = request.session
    if session.role:
        _refuse_conversion(session, runner)
    if len(request.params) != 2:
        raise syntax_error(request.params, "array expected")
    schema = DatabaseSchema.from_json(request.params[1])
    if not session.read_only and runner.pass_on(request.method, request.params, request.finish):
        return
    if session.read_only or runner.log is None:
        raise OvsdbError("not allowed", f"database {runner.name} may not be converted")
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


METHODS: Final[dict[str, Method]] = {
    name: answering(method)
    for name, method in {
        "list_dbs": list_dbs,
        "get_schema": get_schema,
        "transact": transact,
        "lock": _lock,
        "steal": _lock,
        "unlock": unlock,
        "echo": echo,
        "get_server_id": get_server_id,
        "set_db_change_aware": set_db_change_aware,
        "convert": convert,
    }.items()
}

NOTIFICATIONS: Final[dict[str, Callable[["Session", list[Any]], None]]] = {"cancel": cancel}
