"""Sockets for the connection methods of ovsdb(7): listening, accepting, connecting.

A method becomes asyncio transports, plain or TLS, and protocols made by a factory; nothing is
known here of what they say.  Sockets are made by hand where the C server's habits differ from
asyncio's: the mode of a socket file, a wildcard that is IPv4 only, paths of any length.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ovncp.server.dirs import abs_file_name, rundir
from ovncp.server.tls import (
    TlsContexts,
    TlsError,
    TlsFiles,
    bootstrap_context,
    client_context,
    save_ca_cert,
)

_SOCKET_LOG = logging.getLogger("ovncp.socket_util")
_UNIX_LOG = logging.getLogger("ovncp.stream_unix")
_TLS_LOG = logging.getLogger("ovncp.stream_ssl")

DEFAULT_PORT = 6640
_BACKLOG = 1024
_SOCKET_FILE_MODE = 0o770
_LONGEST_SOCKET_PATH = 107  # bytes, in a struct sockaddr_un
_ACCEPT_PAUSE_SEC = 1.0  # after accept() failed, for want of descriptors most likely
_HANDSHAKE_SEC = 30.0

_PASSIVE = ("ptcp", "pssl", "punix")
_ACTIVE = ("tcp", "ssl", "unix")
_HOST_OR_PORT = re.compile(r"\[([^]]*)\]?|([^:]*)")

_unix_numbers = itertools.count()

Factory = Callable[[], asyncio.Protocol]


class TargetError(ValueError):
    """A text that is no connection method."""


@dataclass(frozen=True)
class Target:
    """A connection method.  `port` 0 lets the kernel choose; `host` is without brackets."""

    kind: str
    host: str
    port: int
    path: str
    text: str

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Raises TargetError."""
        kind, colon, rest = text.partition(":")
        if not colon or kind not in (*_PASSIVE, *_ACTIVE):
            raise TargetError(f"{text}: Address family not supported by protocol")
        if kind.endswith("unix"):
            return cls(kind, "", 0, abs_file_name(rundir(), rest), text)
        parts = _split(rest)
        port, host = parts if kind in _PASSIVE else reversed(parts)
        if not host and kind in _ACTIVE:
            raise TargetError(f"{text}: host must be specified")
        return cls(kind, host or "0.0.0.0", _port(text, port), "", text)

    def __str__(self) -> str:
        return self.text

    @property
    def is_passive(self) -> bool:
        """Whether it waits for connections."""
        return self.kind in _PASSIVE

    @property
    def is_tls(self) -> bool:
        return self.kind.endswith("ssl")

    @property
    def needs_probes(self) -> bool:
        """Whether a peer can vanish without the kernel's noticing."""
        return not self.kind.endswith("unix")

    @property
    def address(self) -> str:
        """What follows the kind, by which messages about sockets name the target."""
        return self.text.partition(":")[2] or str(DEFAULT_PORT)


class Listener:
    """A listening socket; `port` is the one it got, None for a socket file."""

    def __init__(
        self, port: int | None, path: str | None, stop: Callable[[], Awaitable[None]]
    ) -> None:
        self.port = port
        self._path = path
        self._stop = stop

    async def close(self) -> None:
        """Accepts no more and removes the socket file; connections stay."""
        await self._stop()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


async def listen(target: Target, factory: Factory, tls: Callable[[], TlsFiles]) -> Listener:
    """Accepts connections for protocols that `factory` makes.  Raises OSError, also logged.

    `tls` is asked before each TLS connection.
    """
    if target.kind == "punix":
        return await _listen_unix(target.path, factory)
    sock = await _bound_socket(target)
    port = sock.getsockname()[1]
    if not target.port:
        _SOCKET_LOG.info("%s: listening on port %d", target.address, port)
    loop = asyncio.get_running_loop()
    if target.is_tls:
        sock.listen(_BACKLOG)
        accepting = loop.create_task(_accept_tls(sock, factory, tls))
        return Listener(port, None, partial(_cancel, accepting))
    server = await loop.create_server(factory, sock=sock, backlog=_BACKLOG)
    return Listener(port, None, partial(_close, server))


async def connect(
    target: Target, factory: Factory, tls: Callable[[], TlsFiles]
) -> asyncio.BaseTransport:
    """Connects a protocol that `factory` makes.  Raises OSError."""
    loop = asyncio.get_running_loop()
    if target.kind == "unix":
        with _socket_path(target.path) as path:
            return (await loop.create_unix_connection(factory, path))[0]
    if not target.is_tls:
        return (await loop.create_connection(factory, target.host, target.port))[0]
    files = tls()
    if files.needs_bootstrap:
        await _bootstrap(target, files)
    context = client_context(files)
    return (await loop.create_connection(factory, target.host, target.port, ssl=context))[0]


async def _close(server: asyncio.AbstractServer) -> None:
    server.close()  # and not wait_closed(), which waits for the connections too


async def _cancel(accepting: asyncio.Task[None]) -> None:
    accepting.cancel()
    await asyncio.wait([accepting])


def peer_name(transport: asyncio.BaseTransport) -> str:
    """The peer of an accepted connection, as the C server names it in its log."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return f"unix:{os.fsdecode(peer)}" if peer else f"unix#{next(_unix_numbers)}"
    kind = "tcp" if transport.get_extra_info("sslcontext") is None else "ssl"
    host = f"[{peer[0]}]" if ":" in peer[0] else peer[0]
    return f"{kind}:{host}:{peer[1]}"


def _split(rest: str) -> tuple[str, str]:
    """The two parts of ``A[:B]``, either of which may be in brackets to hold colons."""
    first = _HOST_OR_PORT.match(rest)
    assert first is not None  # it matches nothing, too
    second = _HOST_OR_PORT.fullmatch(rest[first.end() :].removeprefix(":"))
    if second is None:
        raise TargetError(f"{rest}: port must be specified")
    return first[1] or first[2] or "", second[1] or second[2] or ""


def _port(text: str, port: str) -> int:
    if not port:
        return DEFAULT_PORT
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise TargetError(f'{text}: bad port number "{port}"')
    return int(port)


async def _bound_socket(target: Target) -> socket.socket:
    """A TCP socket with the target's address; a wildcard takes IPv4 only, as in C."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        _SOCKET_LOG.error("%s: bind: %s", target.address, error.strerror)
        raise
    return sock


async def _listen_unix(path: str, factory: Factory) -> Listener:
    """A socket file that the owner and the group may use; one that is there is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.fchmod(sock.fileno(), _SOCKET_FILE_MODE)  # the file's mode, for bind() on Linux
        with _socket_path(path) as short:
            sock.bind(short)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        _UNIX_LOG.error("%s: binding failed: %s", path, error.strerror)
        raise
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(factory, sock=sock, backlog=_BACKLOG)
    return Listener(None, path, partial(_close, server))


@contextlib.contextmanager
def _socket_path(path: str) -> Iterator[str]:
    """A name for `path` that fits a socket address: itself, or through its open directory."""
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        yield path
        return
    directory = os.open(os.path.dirname(path) or ".", os.O_DIRECTORY | os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)


async def _accept_tls(sock: socket.socket, factory: Factory, tls: Callable[[], TlsFiles]) -> None:
    """Accepts for ever, each connection with the files as they are then."""
    contexts = TlsContexts()
    with contextlib.closing(sock):
        async with asyncio.TaskGroup() as handshakes:
            while True:
                connection = await _accept(sock)
                handshakes.create_task(_handshake(connection, factory, contexts, tls))


async def _accept(sock: socket.socket) -> socket.socket:
    while True:
        try:
            return (await asyncio.get_running_loop().sock_accept(sock))[0]
        except OSError as error:
            _TLS_LOG.error("accept: %s", error.strerror)
            await asyncio.sleep(_ACCEPT_PAUSE_SEC)


async def _handshake(
    connection: socket.socket, factory: Factory, contexts: TlsContexts, tls: Callable[[], TlsFiles]
) -> None:
    """Makes an accepted connection a transport, or logs why not."""
    try:
        context = contexts.get(tls())
        await asyncio.get_running_loop().connect_accepted_socket(
            factory, connection, ssl=context, ssl_handshake_timeout=_HANDSHAKE_SEC
        )
    except TlsError as error:
        _TLS_LOG.error("%s", error.strerror)
    except ssl.SSLError as error:
        _TLS_LOG.warning("SSL_accept: %s", error)
    except OSError as error:
        _TLS_LOG.warning("SSL_accept: %s", error.strerror or "unexpected SSL connection close")
    else:
        return
    connection.close()


async def _bootstrap(target: Target, files: TlsFiles) -> None:
    """Takes the CA certificate from the peer, over a connection for that alone."""
    transport, _ = await asyncio.get_running_loop().create_connection(
        asyncio.Protocol, target.host, target.port, ssl=bootstrap_context(files)
    )
    try:
        save_ca_cert(files, transport)
    finally:
        transport.close()
