"""What a worker asks of the main process on behalf of its clients (`--workers N`).

Each such method has the client first, as `[number, role, identity, read_only]`: the number tells
the clients of one worker apart, the rest is what it may do. The locks of a client are its own, so
that clients of all workers stand in one queue.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from ovncp.ovsdb.database import Database
from ovncp.ovsdb.window import LiveWindow
from ovncp.server.methods import Method, Request, answering, runner_of, transaction_of

if TYPE_CHECKING:
    from ovncp.server.session import Session


class Principal:
    """A client of a worker, whose connection to the main process is `session`."""

    def __init__(
        self, session: "Session", number: int, role: str, identity: str | None, read_only: bool
    ) -> None:
        self.role = role
        self.identity = identity
        self.read_only = read_only
        self.locks: dict[str, None] = {}
        self._session = session
        self._number = number

    def owns_lock(self, name: str) -> bool:
        """See `Client.owns_lock`."""
        return self._session.server.locks.owns(self, name)

    def has_owned(self, name: str, since_ns: int) -> bool:
        """See `Owner.has_owned`."""
        return self._session.server.locks.owns(self, name, since_ns)

    def notify(self, method: str, params: list[Any]) -> None:
        """Have the worker tell the client."""
        self._session.notify("notify_for", [self._number, method, params])


def _principal(request: Request) -> Principal:
    """The client that the parameters begin with, which they do no more afterwards."""
    (number, role, identity, read_only), *request.params = request.params
    principals = request.session.principals
    if number not in principals:
        principals[number] = Principal(request.session, number, role, identity, read_only)
    return principals[number]


def _transact(request: Request) -> None:
    who = _principal(request)
    transaction = transaction_of(request)
    transaction.who = who
    runner_of(request).transact(transaction)


def _lock(request: Request) -> None:
    """ "lock_for" and "steal_for"."""
    who, locks = _principal(request), request.session.server.locks
    (name,) = request.params
    who.locks[name] = None
    ask = locks.lock if request.method == "lock_for" else locks.steal
    ask(who, name, lambda is_owner: request.reply({"locked": is_owner}))


def _unlock(request: Request) -> None:
    who = _principal(request)
    (name,) = request.params
    request.session.server.unlock(who, name)
    request.reply({})


def _forget(request: Request) -> None:
    """The client is gone; its transactions that wait are cancelled one by one."""
    number = request.params[0][0]
    principal = request.session.principals.pop(number, None)
    if principal is not None:
        request.session.server.unlock_all(principal)
    request.reply({})


def _history(request: Request) -> None:
    """What a worker needs so that clients can resume there: texts, none if that is not to be had.

    They lead to the state that the worker has when it gets the answer.
    """
    request.session.server.spawn(_send_history(request, runner_of(request).database))


async def _send_history(request: Request, database: Database) -> None:
    window = LiveWindow(database.history)
    for _ in window.steps(lambda: database.stored_id):
        await asyncio.sleep(0)
    if not request.session.is_gone:
        request.session.reply(request.id_bytes, *(window.text or [b"[]"]))


METHODS_ON_BEHALF: dict[str, Method] = {
    "transact_for": answering(_transact),
    "lock_for": _lock,
    "steal_for": _lock,
    "unlock_for": _unlock,
    "forget": _forget,
    "history": answering(_history),
}
