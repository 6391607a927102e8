"""Connections and listeners for the connection methods of ovsdb(7)."""

import asyncio
import contextlib
import itertools
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from ovncp.server.tls import TlsFiles, client_context, server_context

_LOG = logging.getLogger("ovncp.socket_util")
_unix_numbers = itertools.count()


class TargetError(Exception):
    """A remote that is none."""


@dataclass(frozen=True)
class Target:
    kind: str
    host: str
    port: int
    path: str
    text: str

    @classmethod
    def parse(cls, text: str) -> "Target":
        kind, sep, rest = text.partition(":")
        if kind in ("punix", "unix"):
            return cls(kind, "", 0, rest, text)
        if kind in ("ptcp", "pssl"):
            port, _, host = rest.partition(":")
            return cls(kind, host.strip("[]"), int(port or 6640), "", text)
        if kind in ("tcp", "ssl"):
            host, _, port = rest.rpartition(":")
            return cls(kind, host.strip("[]"), int(port), "", text)
        raise TargetError(f"{text}: unknown or unsupported connection method")

    def __str__(self) -> str:
        return self.text

    @property
    def is_passive(self) -> bool:
        return self.kind.startswith("p")

    @property
    def needs_probes(self) -> bool:
        return not self.kind.endswith("unix")


class Listener:
    def __init__(self, server: asyncio.AbstractServer, path: str | None, port: int | None) -> None:
        self._server, self._path, self.port = server, path, port

    async def close(self) -> None:
        self._server.close()
        if self._path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


async def listen(
    target: Target, factory: Callable[[], asyncio.Protocol], tls: Callable[[], TlsFiles]
) -> Listener:
    loop = asyncio.get_running_loop()
    if target.kind == "punix":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target.path)
        server = await loop.create_unix_server(factory, target.path, backlog=1024)
        return Listener(server, target.path, None)
    context = server_context(tls()) if target.kind == "pssl" else None
    server = await loop.create_server(
        factory, target.host or None, target.port, ssl=context, backlog=1024, reuse_address=True
    )
    port = server.sockets[0].getsockname()[1]
    if not target.port:
        _LOG.info("%s: listening on port %d", target, port)
    return Listener(server, None, port)


async def connect(
    target: Target, factory: Callable[[], asyncio.Protocol], tls: Callable[[], TlsFiles]
) -> None:
    loop = asyncio.get_running_loop()
    if target.kind == "unix":
        await loop.create_unix_connection(factory, target.path)
    else:
        context = client_context(tls()) if target.kind == "ssl" else None
        await loop.create_connection(factory, target.host, target.port, ssl=context)


def peer_name(transport: asyncio.Transport) -> str:
    sock = transport.get_extra_info("socket")
    if sock.family == socket.AF_UNIX:
        return f"unix#{next(_unix_numbers)}"
    host, port = transport.get_extra_info("peername")[:2]
    kind = "ssl" if transport.get_extra_info("ssl_object") else "tcp"
    return f"{kind}:[{host}]:{port}" if ":" in host else f"{kind}:{host}:{port}"
