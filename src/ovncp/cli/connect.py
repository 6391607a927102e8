"""How a verb that is a client reaches a server: a target of the command line, and TLS files."""

import asyncio
from collections.abc import Callable

from ovncp.cli.options import Parsed
from ovncp.follow.link import Connect
from ovncp.ops.refusal import Refusal
from ovncp.server import stream
from ovncp.server.stream import Target, TargetError
from ovncp.server.tls import TlsFiles


def tls_files(parsed: Parsed) -> TlsFiles:
    """The files that TLS_OPTIONS name."""
    return TlsFiles(
        private_key=parsed.last("private-key"),
        certificate=parsed.last("certificate"),
        ca_cert=parsed.last("bootstrap-ca-cert") or parsed.last("ca-cert"),
        peer_ca_cert=parsed.last("peer-ca-cert"),
        bootstrap=parsed.has("bootstrap-ca-cert"),
        protocols=parsed.last("ssl-protocols"),
        ciphers=parsed.last("ssl-ciphers"),
        ciphersuites=parsed.last("ssl-ciphersuites"),
    )


def connector(text: str, files: TlsFiles) -> Connect:
    """What connects to the target `text`, with an OSError that names it. Raises Refusal."""
    try:
        target = Target.parse(text)
    except TargetError as error:
        raise Refusal(str(error)) from error
    if target.is_passive:
        raise Refusal(f"{text}: a target is something to connect to: tcp:, ssl: or unix:")

    async def connect(factory: Callable[[], asyncio.Protocol]) -> asyncio.BaseTransport:
        try:
            return await stream.connect(target, factory, lambda: files)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), text) from error

    return connect
