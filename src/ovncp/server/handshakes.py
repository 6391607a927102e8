"""TLS handshakes under way: so many at a time, first come, first served.

The arithmetic of one takes a millisecond or more, which thousands of clients that come back at once
would ask for in the same turn of the loop. A peer that takes long is waited for, but loses its
place, so that it keeps nobody waiting who is quicker.
"""

import asyncio
from collections.abc import Awaitable

_PATIENCE_SECONDS = 1.0


class Place:
    """A place that a handshake has, until it leaves it."""

    def __init__(self, handshakes: "Handshakes") -> None:
        self._handshakes: Handshakes | None = handshakes
        self._patience = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self.leave)

    def leave(self) -> None:
        """Let another have it; does nothing the second time."""
        self._patience.cancel()
        if self._handshakes is not None:
            self._handshakes.free()
            self._handshakes = None

    async def run(self, handshake: Awaitable[None]) -> None:
        """Do `handshake` in it."""
        try:
            await handshake
        finally:
            self.leave()


class Handshakes:
    """The places for `limit` of them. `n_begun` are taken, `n_waiting` are waited for."""

    def __init__(self, limit: int) -> None:
        self.n_begun = 0
        self.n_waiting = 0
        self._places = asyncio.Semaphore(limit)

    async def place(self) -> Place:
        """A place, as soon as there is one."""
        self.n_waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.n_waiting -= 1
        self.n_begun += 1
        return Place(self)

    def free(self) -> None:
        """Take a place back."""
        self.n_begun -= 1
        self._places.release()
