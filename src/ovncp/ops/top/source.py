"""Where the metrics come from: an HTTP address, or the control socket of a server."""

import http.client
import re
import socket
from collections.abc import Callable
from pathlib import Path

from ovncp.socket_path import socket_path
from ovncp.wire.client import Answer, ClientConnection
from ovncp.wire.json_stream import JsonError
from ovncp.wire.jsonrpc import InvalidMessage

_SECONDS = 5.0
_MOST_BYTES = 64 << 20
_URL = re.compile(r"(?:http://)?(\[[^]]+\]|[^:/\[\]]+):(\d{1,5})(/\S*)?")


class Unreachable(Exception):
    """The metrics cannot be had; the text is ready to print."""


def source(target: str) -> Callable[[], str]:
    """What fetches the text of the metrics of `target`, and raises Unreachable.

    A target is HOST:PORT, an URL, or the path of a control socket. Raises Unreachable if it is
    neither.
    """
    url = _URL.fullmatch(target)
    if url is not None:
        host, port, path = url[1].strip("[]"), int(url[2]), url[3] or "/metrics"
        return lambda: _translated(target, lambda: _get(host, port, path))
    if "/" in target and "://" not in target:
        return lambda: _translated(target, lambda: _ask(Path(target)))
    raise Unreachable(
        f"{target}: neither HOST:PORT, nor http://HOST:PORT/PATH, nor a socket's path"
    )


def _translated(target: str, fetch: Callable[[], str]) -> str:
    try:
        return fetch()
    except TimeoutError as error:
        raise Unreachable(f"{target}: there is no answer") from error
    except OSError as error:
        raise Unreachable(f"{target}: {error.strerror or error}") from error
    except (http.client.HTTPException, JsonError, InvalidMessage, UnicodeError) as error:
        raise Unreachable(f"{target}: this is no ovncp server ({error!r})") from error


def _get(host: str, port: int, path: str) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(_MOST_BYTES).decode()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise http.client.HTTPException(f"{answer.status} {answer.reason}")
    return text


def _ask(path: Path) -> str:
    """Call the runtime command `metrics/show`."""
    rpc = ClientConnection(_MOST_BYTES)
    rpc.request("metrics/show", [], None)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_SECONDS)
        with socket_path(str(path)) as short:
            sock.connect(short)
        sock.sendall(b"".join(rpc.output))
        while data := sock.recv(1 << 16):
            for event in rpc.receive(data):
                if isinstance(event, Answer):
                    return _text(event)
    raise ConnectionError("the connection was closed")


def _text(answer: Answer) -> str:
    if type(answer.result) is not str:
        raise InvalidMessage(str(answer.error).strip())
    return answer.result
