"""TLS for connections."""

import asyncio
import ssl
from dataclasses import dataclass


@dataclass(frozen=True)
class TlsFiles:
    private_key: str | None = None
    certificate: str | None = None
    ca_cert: str | None = None
    peer_ca_cert: str | None = None
    bootstrap: bool = False
    protocols: str | None = None
    ciphers: str | None = None
    ciphersuites: str | None = None


def server_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca_cert)
    context.load_cert_chain(files.certificate or "", files.private_key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    return server_context(files)


def peer_common_name(transport: asyncio.Transport) -> str | None:
    return None
