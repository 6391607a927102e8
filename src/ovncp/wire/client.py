"""The client's side of a JSON-RPC connection, without input or output (RFC 7047 section 4).

Bytes in, events out: an answer comes with what was given along with its request, a notification as
it is. Questions of the peer (RFC 7047 section 4.1.11, "echo") are answered in passing: what is to
be sent for them is in `output`.
"""

from collections.abc import Iterator
from typing import Any

from ovncp.wire import jsonrpc
from ovncp.wire.json_stream import JsonStream, parse
from ovncp.wire.large_dump import cut

_PROBE = b'{"id":"echo","method":"echo","params":[]}'


class Answer:
    """The answer to a request. `about` is what came with the request; `error` None is success."""

    __slots__ = ("about", "error", "result")

    def __init__(self, about: Any, result: Any, error: Any) -> None:
        self.about = about
        self.result = result
        self.error = error


class Notification:
    """What the peer tells unasked."""

    __slots__ = ("method", "params")

    def __init__(self, method: str, params: list[Any]) -> None:
        self.method = method
        self.params = params


Event = Answer | Notification


class ClientConnection:
    """One connection from its beginning to its end; `output` is to be sent, and then cleared.

    In an answer of `large_bytes` or more, a whole dump is a `LargeDump`.
    """

    def __init__(self, max_message_bytes: int, large_bytes: int | None = None) -> None:
        self.output: list[bytes] = []
        self._stream = JsonStream(max_message_bytes, large_bytes)
        self._next_id = 0
        self._pending: dict[int, Any] = {}

    def request(self, method: str, params: list[Any], about: Any) -> int:
        """Ask; the id of the request. `about` comes back with the answer."""
        self._next_id += 1
        self._pending[self._next_id] = about
        self.output.append(jsonrpc.encode_request(self._next_id, method, params))
        return self._next_id

    def notify(self, method: str, params: list[Any]) -> None:
        """Tell."""
        self.output.append(jsonrpc.encode_notification(method, params))

    def probe(self) -> None:
        """Ask the peer for a sign of life; the answer is no event."""
        self.output.append(_PROBE)

    def receive(self, data: bytes) -> Iterator[Event]:
        """The events that `data` completes. Raises JsonError and `jsonrpc.InvalidMessage`."""
        for message in self._stream.feed(data):
            event = self._event(message)
            if event is not None:
                yield event

    def _event(self, message: Any) -> Event | None:
        if type(message) is bytes:
            message = cut(message) or parse(message)
        kind = jsonrpc.check(message)
        if kind is jsonrpc.Kind.NOTIFICATION:
            return Notification(message["method"], message["params"])
        if kind is jsonrpc.Kind.REQUEST:
            self._answer(message)
            return None
        request_id = message["id"]
        if type(request_id) is not int or request_id not in self._pending:
            return None  # the answer to a probe, most likely
        return Answer(self._pending.pop(request_id), message.get("result"), message.get("error"))

    def _answer(self, message: Any) -> None:
        if message["method"] == "echo":
            self.output.append(jsonrpc.encode_reply(message["id"], message["params"]))
        else:
            self.output.append(jsonrpc.encode_error(message["id"], "unknown method"))

    def abandon(self) -> list[Any]:
        """What the unanswered requests were about, when the connection is lost."""
        abandoned, self._pending = list(self._pending.values()), {}
        return abandoned
