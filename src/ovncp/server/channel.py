"""The socket between the main process and a worker: messages, some with a descriptor (unix(7)).

Each message is one packet of JSON. A connection goes along as SCM_RIGHTS, so that from then on it
belongs to the other process.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

_PACKET_BYTES = 1 << 17

Message = dict[str, Any]


class Channel:
    """One end of the socket. `received` gets each message, and the connection that came with it.

    `ended` is called once the other process is gone.
    """

    def __init__(
        self,
        sock: socket.socket,
        received: Callable[[Message, socket.socket | None], None],
        ended: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._received = received
        self._ended = ended
        self._unsent: deque[tuple[bytes, socket.socket | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """The sockets of the two ends."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def send(self, message: Message, connection: socket.socket | None = None) -> None:
        """Send `message`; `connection` goes along, and is closed here."""
        self._unsent.append((orjson.dumps(message), connection))
        if len(self._unsent) == 1:
            self._write()

    def _write(self) -> None:
        while self._unsent:
            packet, connection = self._unsent[0]
            descriptors = [] if connection is None else [connection.fileno()]
            try:
                socket.send_fds(self._socket, [packet], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._write)
                return
            except OSError:
                self._end()
                return
            self._unsent.popleft()
            if connection is not None:
                connection.close()
        self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        while self._socket.fileno() >= 0:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._socket, _PACKET_BYTES, 1)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._end()
                return
            connection = socket.socket(fileno=descriptors[0]) if descriptors else None
            self._received(orjson.loads(packet), connection)

    def _end(self) -> None:
        if self._socket.fileno() >= 0:
            self.close()
            self._ended()

    def close(self) -> None:
        """Let go of the other process, and of what it has not been sent."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, connection in self._unsent:
            if connection is not None:
                connection.close()
        self._unsent.clear()
