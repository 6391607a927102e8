"""What one client is to be sent: handed to its transport as far as that takes it at once.

A transport buffers without a bound, and one with TLS encrypts whatever it is given. So it is given
a piece at a time, none while it has enough, and only so much in one turn of the loop. The rest
waits here, where it is counted, and where clients share what they are all sent.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, cast

HIGH_WATER_BYTES: Final = 1 << 18
_TLS_HIGH_WATER_BYTES = 1 << 16
_TURN_BYTES: Final = 1 << 20


class Output:
    """Parts of messages, in order. `n_bytes` is what waits, `sent_bytes` what did before.

    `is_paused` is to be kept by who is told by the transport. `handed` is what the latest piece was
    of, unless the transport has a copy, as with TLS.
    """

    __slots__ = (
        "_is_tls",
        "_parts",
        "_piece_bytes",
        "_transport",
        "handed",
        "is_paused",
        "n_bytes",
        "sent_bytes",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        self._piece_bytes = _TLS_HIGH_WATER_BYTES if self._is_tls else HIGH_WATER_BYTES
        transport.set_write_buffer_limits(high=self._piece_bytes)
        self._transport = transport
        self.handed: Any = None
        # Bytes, and memoryviews for the rest of some.
        self._parts: deque[Any] = deque()
        self.n_bytes = 0
        self.sent_bytes = 0
        self.is_paused = False

    def __iter__(self) -> Iterator[Any]:
        """The parts that wait."""
        return iter(self._parts)

    def add(self, part: bytes) -> None:
        """Write `part` after what waits already."""
        self._parts.append(part)
        self.n_bytes += len(part)

    def extend(self, parts: tuple[bytes, ...]) -> None:
        """As `add`, for several."""
        self._parts.extend(parts)
        self.n_bytes += total_bytes(parts)

    def write(self) -> None:
        """Hand over as much as is right for one turn of the loop."""
        enough = self.sent_bytes + _TURN_BYTES
        while self._parts and not self.is_paused and self.sent_bytes < enough:
            if self.n_bytes <= self._piece_bytes:
                self.write_all()
            else:
                self._write_piece()

    def write_all(self) -> None:
        """Hand over everything, to a transport that is going to be closed or has room for it."""
        parts, self._parts = self._parts, deque()
        self.sent_bytes += self.n_bytes
        self.n_bytes = 0
        if len(parts) == 1:
            self._transport.write(parts[0])
        elif parts:
            self._transport.writelines(parts)

    def _write_piece(self) -> None:
        piece: list[Any] = []
        n_bytes, enough = 0, self._piece_bytes
        while n_bytes < enough:
            part = self._parts.popleft()
            if len(part) > enough:
                view = memoryview(part)
                self._parts.appendleft(view[enough:])
                part = view[:enough]
            piece.append(part)
            n_bytes += len(part)
        self.n_bytes -= n_bytes
        self.sent_bytes += n_bytes
        if not self._is_tls:
            self.handed = whole(piece[-1])
        self._transport.writelines(piece)

    def clear(self) -> None:
        """Give up what waits."""
        self._parts.clear()
        self.n_bytes = 0
        self.handed = None


def total_bytes(parts: tuple[bytes, ...]) -> int:
    """The size of `parts` together."""
    n_bytes = 0
    for part in parts:
        n_bytes += len(part)
    return n_bytes


def whole(part: Any) -> bytes:
    """What a part keeps in memory, be it only the end of that."""
    return cast(bytes, part.obj if type(part) is memoryview else part)
