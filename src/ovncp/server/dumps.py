"""First dumps and their like, a few at a time and in the order of arrival: a storm is a queue.

What a client asks for when it comes, or when it wants to see other rows, may take long to put
together and to write. It has its turn, one of so many, until it has been written; while it is put
together, it and others that have their turn take slices of the loop's time, so that nobody else is
held up. A turn also ends when the client has not read anything for a while: it keeps what it has,
which counts as its backlog then, but not its place.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ovncp.ovsdb.errors import OvsdbError
from ovncp.server.limits import Limits

if TYPE_CHECKING:
    from ovncp.server.session import Session

_SLICE_SECONDS = 0.002
_SMALL_PER_TURN = 16  # requests of all clients that are answered at once in a turn of the loop
_DONE: Any = object()


class Turn:
    """One client's wait for its turn, and then its turn.

    `prepare` does most of the work step by step, `finish` the rest and answers; or `fail` does,
    with the OvsdbError that came of a step.
    """

    __slots__ = ("fail", "finish", "left_bytes", "prepare", "session", "steps")

    def __init__(
        self,
        session: "Session",
        prepare: Callable[[], Iterator[None]],
        finish: Callable[[], None],
        fail: Callable[[OvsdbError], None],
    ) -> None:
        self.session = session
        self.prepare = prepare
        self.finish = finish
        self.fail = fail
        self.steps: Iterator[None] = iter(())
        self.left_bytes = -1


class Dumps:
    """The turns of a server's clients, each of which has one at the most."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: dict[Turn, None] = {}
        self._begun: dict[Turn, None] = {}
        # Those of the latter that are not finished.
        self._preparing: deque[Turn] = deque()
        self._is_working = False
        self._n_small = 0

    @property
    def n_waiting(self) -> int:
        """How many clients wait for their turn."""
        return len(self._waiting)

    @property
    def n_begun(self) -> int:
        """How many have their turn."""
        return len(self._begun)

    @property
    def begun_bytes(self) -> int:
        """How many bytes wait to be written to these."""
        return sum([turn.session.output.n_bytes for turn in self._begun])

    def take_small(self) -> bool:
        """Whether a client that asks for little may be answered without a turn.

        Thousands may ask for little, all at once.
        """
        if not self._n_small:
            asyncio.get_running_loop().call_soon(self._forget_small)
        self._n_small += 1
        return self._n_small <= _SMALL_PER_TURN

    def _forget_small(self) -> None:
        self._n_small = 0

    def enter(self, turn: Turn) -> None:
        """Let `turn` begin as soon as those before it allow."""
        turn.session.turn = turn
        self._waiting[turn] = None
        self._work_later()

    def end(self, turn: Turn) -> None:
        """Note that the client has what it asked for, or waits for it no more."""
        turn.session.turn = None
        self._waiting.pop(turn, None)
        self._begun.pop(turn, None)
        self._work_later()

    def check(self) -> None:
        """End the turns of clients that have read nothing since this was called before."""
        for turn in list(self._begun):
            if turn.session.waits_for_turn:
                continue
            left = turn.session.output.n_bytes
            if left == turn.left_bytes:
                self.end(turn)
            turn.left_bytes = left

    def _may_begin(self) -> bool:
        if not self._waiting or len(self._begun) >= self._limits.dumps:
            return False
        return self.begun_bytes < self._limits.dump_bytes

    def _work_later(self) -> None:
        if not self._is_working and (self._preparing or self._may_begin()):
            self._is_working = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        """Spend a slice of time on those whose turn it is."""
        enough = perf_counter() + _SLICE_SECONDS
        try:
            while self._begin_some() and perf_counter() < enough:
                self._go_on(self._preparing.popleft())
        finally:
            self._is_working = False
            self._work_later()

    def _begin_some(self) -> bool:
        """Begin the turns that may; whether any is left to be prepared."""
        while self._may_begin():
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            self._begun[turn] = None
            turn.steps = turn.prepare()
            self._preparing.append(turn)
        return bool(self._preparing)

    def _go_on(self, turn: Turn) -> None:
        """One more step for a client that is still there, behind which others have theirs."""
        if turn not in self._begun:
            return
        try:
            is_done = next(turn.steps, _DONE) is _DONE
        except OvsdbError as error:
            turn.fail(error)
        else:
            if is_done:
                turn.finish()
            else:
                self._preparing.append(turn)
