"""Who has written sees it on whichever node is asked next.

A *mark* says that a node has seen a write: the id of the last transaction that it had seen by then.
Who has written is given one with the answer, as a header and as a cookie, and shows it with what is
asked next; so it holds without anything that nodes share, as for a node that is cut off from it.
For clients that show nothing, nodes also note their marks where all nodes look, each its own.

A node that meets a mark of another one makes sure that it has come as far: it has seen that
transaction, or the server has told it all that was committed before the question.
"""

import asyncio
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ovncp.api.problem import Problem
from ovncp.cluster.base import Store, Unavailable
from ovncp.ovn.barrier import Barrier
from ovncp.ovn.replica import Replica
from ovncp.ovsdb.atom import ZERO_UUID

_LOG = logging.getLogger("ovncp.api")

POSITION = "OVN-Position"
"""The header with the mark of an answer, and of a request with those to be seen, with commas."""

FRESH_SECONDS = 30.0
"""For how long it is noted that somebody wrote: longer than any node lags."""

_COOKIE = "ovn-position-"
_WROTE = "wrote"
_PATIENCE_SECONDS = 5.0
_MOST_KNOWN = 10_000
_MOST_SHOWN = 32


class Mark(NamedTuple):
    """What the process `origin` had seen after its `number`th write.

    Where the server gives no ids, which are zeros then, numbers tell one write from another.
    """

    origin: str
    number: int
    transaction_id: str

    def __str__(self) -> str:
        return f"{self.origin}-{self.number}-{self.transaction_id}"

    @classmethod
    def parse(cls, text: str) -> "Mark | None":
        """The mark that `str()` wrote; None if it is none."""
        found = _MARK.fullmatch(text)
        return None if found is None else cls(found[1], int(found[2]), found[3])


_MARK = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


class _Note:
    """What is noted of one principal's writes; there while somebody notes one."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.number = 0


class Sight:
    """What the principals who ask this node have to see of `replica`."""

    def __init__(self, replica: Replica, barrier: Barrier, store: Store) -> None:
        self._replica = replica
        self._barrier = barrier
        self._store = store
        self._origin = secrets.token_hex(4)
        self._n_writes = 0
        self._notes: WeakValueDictionary[str, _Note] = WeakValueDictionary()
        self._settled: OrderedDict[tuple[str, str], int] = OrderedDict()

    @property
    def mark(self) -> Mark:
        """What this node has seen by now."""
        return Mark(self._origin, self._n_writes, self._replica.last_id)

    async def wrote(self, principal_id: str) -> None:
        """Note that somebody wrote, and that it is here."""
        self._n_writes += 1
        number = self._n_writes
        note = self._notes.setdefault(principal_id, _Note())
        async with note.turn:  # or an earlier mark might come after a later one
            if note.number >= number:
                return
            mark = self.mark
            try:
                entry = {self._origin: str(mark).encode()}
                await self._store.enter(_register(principal_id), entry, FRESH_SECONDS)
            except Unavailable as error:
                _LOG.warning("other nodes are not told that %s wrote: %s", principal_id, error)
            note.number = mark.number

    async def catch_up(self, principal_id: str, shown: Iterable[str] = ()) -> None:
        """Return when all that somebody wrote is here, by the marks that are noted and shown.

        Raises SessionLost, Problem.
        """
        texts = set(shown)
        try:
            noted = await self._store.entries(_register(principal_id))
            texts |= {text.decode() for text in noted.values()}
        except Unavailable:
            await self._barrier.server()  # there may be something
        marks = [mark for mark in map(Mark.parse, texts) if mark is not None]
        news = [mark for mark in marks if not self._is_settled(principal_id, mark)]
        if not all(self._replica.has_seen(mark.transaction_id) for mark in news):
            await self._barrier.server()
        for mark in news:
            await self._see(mark.transaction_id)
            self._settle(principal_id, mark)

    def _is_settled(self, principal_id: str, mark: Mark) -> bool:
        own = mark.origin == self._origin
        return own or self._settled.get((principal_id, mark.origin), 0) >= mark.number

    def _settle(self, principal_id: str, mark: Mark) -> None:
        self._settled[principal_id, mark.origin] = mark.number
        if len(self._settled) > _MOST_KNOWN:
            self._settled.popitem(last=False)

    async def _see(self, transaction_id: str) -> None:
        """Wait for a transaction that another server of a cluster may have told its node first."""
        if transaction_id == ZERO_UUID:
            return  # the server gives none, and is the only one
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not self._replica.has_seen(transaction_id):
                    await self._replica.changed()
        except TimeoutError as error:
            text = "this node does not see yet what was written on another one"
            raise Problem("database-unreachable", text, headers={"Retry-After": "1"}) from error


def _register(principal_id: str) -> str:
    return f"wrote:{principal_id}"


def shown_by(connection: HTTPConnection) -> Sequence[str]:
    """The marks that a client shows."""
    header = connection.headers.get(POSITION.lower(), "")
    cookies = [text for name, text in connection.cookies.items() if name.startswith(_COOKIE)]
    return [*(text.strip() for text in header.split(",") if text), *cookies][:_MOST_SHOWN]


def give_mark(connection: HTTPConnection) -> None:
    """Have the answer say what this node has seen by then."""
    connection.scope[_WROTE] = True


class Marks:
    """The middleware that puts marks into answers, those of `sight`."""

    def __init__(self, app: ASGIApp, sight: Sight) -> None:
        self._app = app
        self._sight = sight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, with a mark if it wrote."""

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and scope.get(_WROTE):
                message["headers"] = [*message["headers"], *_headers(self._sight.mark)]
            await send(message)

        await self._app(scope, receive, send_on)


def _headers(mark: Mark) -> list[tuple[bytes, bytes]]:
    # One for each node, since answers of two may arrive in any order.
    about = f"Max-Age={FRESH_SECONDS:.0f}; Path=/; HttpOnly; SameSite=Lax"
    cookie = f"{_COOKIE}{mark.origin}={mark}; {about}"
    return [(POSITION.lower().encode(), str(mark).encode()), (b"set-cookie", cookie.encode())]
