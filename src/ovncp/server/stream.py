"""Sockets for the connection methods of ovsdb(7): listening, accepting, connecting.

A method becomes asyncio transports, plain or TLS, and protocols made by a factory; nothing is
known here of what they say.  Sockets are made by hand where the C server's habits differ from
asyncio's: the mode of a socket file, a wildcard that is IPv4 only, paths of any length.
"""

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from ovncp.server.dirs import abs_file_name, rundir
from ovncp.server.handshakes import Handshakes
from ovncp.server.rate_limit import RateLimit
from ovncp.server.tls import (
    Handshake,
    TlsContexts,
    TlsError,
    TlsFiles,
    bootstrap_context,
    client_context,
    save_ca_cert,
)
from ovncp.socket_path import socket_path

_SOCKET_LOG = logging.getLogger("ovncp.socket_util")
_UNIX_LOG = logging.getLogger("ovncp.stream_unix")
_TLS_LOG = logging.getLogger("ovncp.stream_ssl")
_DNS_LOG = logging.getLogger("ovncp.dns_resolve")
_BAD_CLIENTS = RateLimit(per_minute=10, burst=25)

DEFAULT_PORT = 6640
_BACKLOG = 4096
_SOCKET_FILE_MODE = 0o770
_ACCEPTS_PER_TURN = 32
_ACCEPT_PAUSE_SEC = 1.0  # after accept() failed, for want of descriptors most likely
_HANDSHAKE_SEC = 30.0

_TRAFFIC_CLASS = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
}

_PASSIVE = ("ptcp", "pssl", "punix")
_ACTIVE = ("tcp", "ssl", "unix")
_HOST_OR_PORT = re.compile(r"\[([^]]*)\]?|([^:]*)")

_unix_numbers = itertools.count()

Factory = Callable[[], asyncio.Protocol]


_UNUSABLE = os.strerror(errno.EAFNOSUPPORT)


class TargetError(ValueError):
    """A text that is no connection method."""


@dataclass(frozen=True)
class Target:
    """A connection method.  `port` 0 lets the kernel choose; `host` is without brackets.

    Of one that nothing can be done with, as of any text that is none, the `kind` is empty.
    """

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
            raise TargetError(f"{text}: {_UNUSABLE}")
        if kind.endswith("unix"):
            return cls(kind, "", 0, abs_file_name(rundir(), rest), text)
        parts = _split(rest)
        port, host = parts if kind in _PASSIVE else reversed(parts)
        if not host and kind in _ACTIVE:
            raise TargetError(f"{text}: host must be specified")
        return cls(kind, host or "0.0.0.0", _port(text, port), "", text)

    @classmethod
    def parse_any(cls, text: str, log: logging.Logger) -> "Target":
        """As `parse`, but a text that is none is logged, and `connect` always fails with it."""
        try:
            return cls.parse(text)
        except TargetError as error:
            log.error("%s", error)
            return cls("", "", 0, "", text)

    @classmethod
    def of_descriptor(cls, descriptor: int) -> "Target":
        """A connection that is there already, for `connect` to take once."""
        return cls("fd", "", descriptor, "", "the main process")

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
        return self.kind not in ("", "fd", "unix", "punix")

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


async def listen(
    target: Target,
    factory: Factory,
    tls: Callable[[], TlsFiles],
    handshakes: Handshakes,
    dscp: int = 0,
) -> Listener:
    """Accepts connections for protocols that `factory` makes.  Raises OSError, also logged.

    `tls` is asked before each TLS connection, which is accepted when there is a place among
    `handshakes`.  `dscp` marks the packets of all connections.
    """
    loop = asyncio.get_running_loop()
    sock, port, path = await _listening_socket(target, dscp)
    if target.is_tls:
        accepting = loop.create_task(_accept_tls(sock, factory, tls, handshakes))
        return Listener(port, path, partial(_stop, accepting, sock))
    accepting = loop.create_task(_accept_plain(sock, factory))
    return Listener(port, path, partial(_stop, accepting, sock))


async def listen_for_others(
    target: Target, take: Callable[[socket.socket], None], dscp: int = 0
) -> Listener:
    """As `listen`, but what is accepted is given to `take` as it is, for `adopt` elsewhere."""
    sock, port, path = await _listening_socket(target, dscp)
    accepting = asyncio.get_running_loop().create_task(_accept_for_others(sock, take))
    return Listener(port, path, partial(_stop, accepting, sock))


async def adopt(
    target: Target,
    connection: socket.socket,
    factory: Factory,
    contexts: TlsContexts,
    tls: Callable[[], TlsFiles],
    handshakes: Handshakes,
) -> None:
    """Serves a connection that was accepted for `target`, or logs why not."""
    if target.is_tls:
        place = await handshakes.place()
        await place.run(_handshake(connection, factory, contexts, tls))
    else:
        await asyncio.get_running_loop().connect_accepted_socket(factory, connection)


async def _listening_socket(
    target: Target, dscp: int
) -> tuple[socket.socket, int | None, str | None]:
    """The socket, and its port or its path."""
    if target.kind == "punix":
        return _bound_unix_socket(target.path), None, target.path
    sock = await _bound_socket(target, dscp)
    port = sock.getsockname()[1]
    if not target.port:
        _SOCKET_LOG.info("%s: listening on port %d", target.address, port)
    sock.listen(_BACKLOG)
    return sock, port, None


async def connect(
    target: Target, factory: Factory, tls: Callable[[], TlsFiles], dscp: int = 0
) -> asyncio.BaseTransport:
    """Connects a protocol that `factory` makes.  Raises OSError.  `dscp` marks the packets."""
    loop = asyncio.get_running_loop()
    if not target.kind:
        raise OSError(errno.EAFNOSUPPORT, _UNUSABLE)
    if target.kind == "fd":
        sock = socket.socket(fileno=target.port)
        return (await loop.create_unix_connection(factory, sock=sock))[0]
    if target.kind == "unix":
        with socket_path(target.path) as path:
            return (await loop.create_unix_connection(factory, path))[0]
    context = await _client_context(target, tls()) if target.is_tls else None
    sock = await _connected_socket(target, dscp)
    host = target.host if target.is_tls else None
    return (await loop.create_connection(factory, sock=sock, ssl=context, server_hostname=host))[0]


async def _client_context(target: Target, files: TlsFiles) -> ssl.SSLContext:
    try:
        if files.needs_bootstrap:
            await _bootstrap(target, files)
        return client_context(files)
    except TlsError as error:
        _TLS_LOG.error("%s", error.strerror)
        raise


async def _stop(accepting: asyncio.Task[None], sock: socket.socket) -> None:
    accepting.cancel()
    await asyncio.wait([accepting])
    sock.close()


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


async def _addresses(target: Target) -> list[Any]:
    """What the target's host resolves to, IPv4 first, as `getaddrinfo` has them."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        _DNS_LOG.warning("%s: failed to resolve", target.host)
        raise OSError(errno.EAFNOSUPPORT, _UNUSABLE) from error
    return sorted(found)


def _tcp_socket(family: socket.AddressFamily, dscp: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setblocking(False)
    sock.setsockopt(*_TRAFFIC_CLASS[family], dscp << 2)
    return sock


async def _connected_socket(target: Target, dscp: int) -> socket.socket:
    """A connection to the first of the target's addresses that takes it."""
    error: OSError | None = None
    for family, *_, address in await _addresses(target):
        sock = _tcp_socket(family, dscp)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except OSError as refusal:
            sock.close()
            error = refusal
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    assert error is not None  # a host has at least one address
    raise error


async def _bound_socket(target: Target, dscp: int) -> socket.socket:
    """A TCP socket with the target's address; a wildcard takes IPv4 only, as in C."""
    family, *_, address = (await _addresses(target))[0]
    sock = _tcp_socket(family, dscp)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        _SOCKET_LOG.error("%s: bind: %s", target.address, error.strerror)
        raise
    return sock


def _bound_unix_socket(path: str) -> socket.socket:
    """A socket file that the owner and the group may use; one that is there is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.fchmod(sock.fileno(), _SOCKET_FILE_MODE)  # the file's mode, for bind() on Linux
        with socket_path(path) as short:
            sock.bind(short)
        sock.listen(_BACKLOG)  # at once: who waits for the file connects as soon as it is there
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        _UNIX_LOG.error("%s: binding failed: %s", path, error.strerror)
        raise
    return sock


async def _accept_plain(sock: socket.socket, factory: Factory) -> None:
    """Accepts for ever."""
    under_way: set[asyncio.Task[None]] = set()
    try:
        while True:
            for connection in await _accept_some(sock):
                adopting = asyncio.get_running_loop().create_task(_adopt(connection, factory))
                under_way.add(adopting)
                adopting.add_done_callback(under_way.discard)
    finally:
        if under_way:
            await asyncio.wait(under_way)


async def _adopt(connection: socket.socket, factory: Factory) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(factory, connection)
    except OSError as error:  # it is gone already
        _SOCKET_LOG.debug("accept: %s", error.strerror)
        connection.close()


async def _accept_some(sock: socket.socket) -> list[socket.socket]:
    """Those that wait, so many in a turn of the loop that others are not held up."""
    await asyncio.sleep(0)
    return [await _accept(sock), *_accept_at_once(sock, _ACCEPTS_PER_TURN - 1)]


def _accept_at_once(sock: socket.socket, most: int) -> Iterator[socket.socket]:
    with contextlib.suppress(OSError):  # which `_accept` will have too, and log
        for _ in range(most):
            connection = sock.accept()[0]
            connection.setblocking(False)
            yield connection


async def _accept_tls(
    sock: socket.socket, factory: Factory, tls: Callable[[], TlsFiles], handshakes: Handshakes
) -> None:
    """Accepts for ever, each connection with the files as they are then."""
    contexts = TlsContexts()
    async with asyncio.TaskGroup() as under_way:
        while True:
            place = await handshakes.place()
            connection = await _accept(sock)
            handshake = _handshake(connection, factory, contexts, tls)
            under_way.create_task(place.run(handshake))


async def _accept_for_others(sock: socket.socket, take: Callable[[socket.socket], None]) -> None:
    while True:
        for connection in await _accept_some(sock):
            take(connection)


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
    handshake = Handshake(connection)
    try:
        context = contexts.get(tls())
        await asyncio.get_running_loop().connect_accepted_socket(
            factory, connection, ssl=context, ssl_handshake_timeout=_HANDSHAKE_SEC
        )
    except TlsError as error:
        _TLS_LOG.error("%s", error.strerror)
    except OSError as error:
        reason = handshake.failure or error.strerror or "unexpected SSL connection close"
        _BAD_CLIENTS.log(_TLS_LOG, logging.WARNING, "SSL_accept: %s", reason)
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
