"""Keys, certificates and protocol settings to TLS contexts (ovsdb-server(1), the PKI options).

Both roles present the private key's certificate and verify the peer's against the CA
certificate; names of hosts are not looked at, a certificate of the CA is all that is asked.
Files are read again when they change, which is looked for before each connection; a set of files
that does not work leaves the last one that did in use.
"""

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import re
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

_LOG = logging.getLogger("ovncp.stream_ssl")

_DEFAULT_CIPHERS = "DEFAULT:@SECLEVEL=2"
NO_CA = "none"  # the --ca-cert that turns verification off

_VERSIONS = {
    "tlsv1": ssl.TLSVersion.TLSv1,
    "tlsv1.1": ssl.TLSVersion.TLSv1_1,
    "tlsv1.2": ssl.TLSVersion.TLSv1_2,
    "tlsv1.3": ssl.TLSVersion.TLSv1_3,
}


class TlsError(OSError):
    """TLS cannot be set up; `strerror` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ENOPROTOOPT, reason)


@dataclass(frozen=True)
class TlsFiles:
    """What the options say.  `bootstrap`: a missing `ca_cert` is taken from the first peer."""

    private_key: str | None = None
    certificate: str | None = None
    ca_cert: str | None = None
    peer_ca_cert: str | None = None
    bootstrap: bool = False
    protocols: str | None = None
    ciphers: str | None = None
    ciphersuites: str | None = None

    @property
    def needs_bootstrap(self) -> bool:
        """Whether the CA certificate is still to be had from a peer."""
        return self.bootstrap and self.ca_cert is not None and not os.path.exists(self.ca_cert)


class TlsContexts:
    """The context to accept connections with, rebuilt when what it was made from changes."""

    def __init__(self) -> None:
        self._made_from: object = None
        self._context: ssl.SSLContext | None = None

    def get(self, files: TlsFiles) -> ssl.SSLContext:
        """Raises TlsError if there has been no usable context yet."""
        made_from = (files, _stamps(files))
        if self._context is None or made_from != self._made_from:
            self._rebuild(files)
            self._made_from = made_from
        assert self._context is not None
        return self._context

    def _rebuild(self, files: TlsFiles) -> None:
        try:
            self._context = server_context(files)
        except TlsError as error:
            if self._context is None:
                raise
            _LOG.error("%s", error.strerror)


class Handshake:
    """The accepting side of a handshake on the socket `connection`, and why it failed."""

    def __init__(self, connection: socket.socket) -> None:
        self.failure: ssl.SSLError | None = None
        self._connection = connection
        _HANDSHAKE.set(self)

    def fail(self, failure: ssl.SSLError) -> None:
        """Nothing more is expected from the peer; it may still be written to."""
        self.failure = self.failure or failure
        with contextlib.suppress(OSError):  # the peer is gone
            self._connection.shutdown(socket.SHUT_RD)


# That of the task which accepts the connection, in whose context the event loop works on it.
_HANDSHAKE: ContextVar[Handshake] = ContextVar("handshake")


class _Accepted(ssl.SSLObject):
    """The server's end of a connection, which tells the client why the handshake fails.

    A handshake that raises makes the event loop drop the connection, and with it the alert that
    OpenSSL has ready. So to the loop a failure is a wait for the peer, before which it sends the
    alert, and `Handshake.fail` sees to it that the wait ends.
    """

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as error:
            _HANDSHAKE.get().fail(error)
            raise ssl.SSLWantReadError from error


def log_problem(files: TlsFiles) -> None:
    """Log what is wrong with the files, if any are given, before a connection meets it."""
    try:
        if files.private_key is not None:
            server_context(files)
    except TlsError as error:
        _LOG.error("%s", error.strerror)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The context to accept connections with.  Raises TlsError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, files, verify=True)
    context.sslobject_class = _Accepted
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """The context to connect with.  Raises TlsError."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, files, verify=True)


def bootstrap_context(files: TlsFiles) -> ssl.SSLContext:
    """The context of the one connection that is not verified.  Raises TlsError."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, files, verify=False)


def save_ca_cert(files: TlsFiles, transport: asyncio.BaseTransport) -> None:
    """Writes the CA certificate that the peer sent to `files.ca_cert`.  Raises TlsError."""
    path = files.ca_cert or ""
    chain = _peer_chain(transport)
    if not chain:
        raise _no_bootstrap("no certificate presented by peer")
    certificate = chain[-1]
    info = certificate.get_info()
    if info["subject"] != info["issuer"]:
        raise _no_bootstrap("obtained certificate is not self-signed")
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(certificate.public_bytes())
    except FileExistsError:
        _LOG.info("reading CA cert %s created by another process", path)
    except OSError as error:
        raise _no_bootstrap(f"creating {path} failed: {error.strerror}") from error
    else:
        _LOG.info("successfully bootstrapped CA cert to %s", path)


def peer_common_name(transport: asyncio.BaseTransport) -> str | None:
    """The first common name in the verified certificate of the peer, if it has one."""
    certificate = transport.get_extra_info("peercert") or {}
    names = (pair for group in certificate.get("subject", ()) for pair in group)
    return next((value for name, value in names if name == "commonName"), None)


def protocol_range(text: str | None) -> tuple[ssl.TLSVersion, ssl.TLSVersion]:
    """The lowest and highest version that ``--ssl-protocols`` allows.  Raises TlsError.

    `text` is a range (``A-B``, ``A+``) or a list, which stands for the range it spans.
    """
    if text is None:
        text = "TLSv1.2+"
    words = [word for word in re.split(r"[ ,\t]+", text.strip()) if word]
    if len(words) == 1 and words[0].endswith("+"):
        return _version(words[0][:-1]), ssl.TLSVersion.MAXIMUM_SUPPORTED
    if len(words) == 1:
        words = words[0].split("-")[:2] if words[0].count("-") == 1 else words
    if not words:
        raise TlsError("SSL/TLS protocol settings invalid")
    versions = [_version(word) for word in words]
    return min(versions), max(versions)


def _version(word: str) -> ssl.TLSVersion:
    if word.lower() not in _VERSIONS:
        raise TlsError(f"{word}: SSL/TLS protocol not recognized")
    return _VERSIONS[word.lower()]


def _stamps(files: TlsFiles) -> list[tuple[int, int] | None]:
    """What changes when a file does."""
    names = (files.private_key, files.certificate, files.ca_cert, files.peer_ca_cert)
    return [_stamp(name) for name in names]


def _stamp(name: str | None) -> tuple[int, int] | None:
    try:
        status = os.stat(name or "")
    except OSError:
        return None  # reading it will fail, with the reason
    return status.st_mtime_ns, status.st_ino


def _context(role: Any, files: TlsFiles, *, verify: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(role)
    context.check_hostname = False
    context.minimum_version, context.maximum_version = protocol_range(files.protocols)
    _set_ciphers(context, files)
    _load_identity(context, files)
    if verify:
        _load_trust(context, files)
    else:
        context.verify_mode = ssl.CERT_NONE
    return context


def _set_ciphers(context: ssl.SSLContext, files: TlsFiles) -> None:
    with _reasons(f"--ssl-ciphers {files.ciphers}"):
        context.set_ciphers(files.ciphers or _DEFAULT_CIPHERS)
    if files.ciphersuites is not None:
        _set_ciphersuites(context, files.ciphersuites)


def _load_identity(context: ssl.SSLContext, files: TlsFiles) -> None:
    if not files.private_key:
        raise TlsError("Private key must be configured to use SSL")
    if not files.certificate:
        raise TlsError("Certificate must be configured to use SSL")
    with (
        _reasons(f"private key {files.private_key}, certificate {files.certificate}"),
        _certificate_chain(files.certificate, files.peer_ca_cert) as chain,
    ):
        context.load_cert_chain(chain, files.private_key)


@contextlib.contextmanager
def _certificate_chain(certificate: str, more: str | None) -> Iterator[str]:
    """A file with the certificates to send: OpenSSL wants them in one."""
    if more is None:
        yield certificate
        return
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:
        for name in (certificate, more):
            with open(name, encoding="utf-8") as part:
                both.write(part.read() + "\n")
        both.flush()
        yield both.name


def _load_trust(context: ssl.SSLContext, files: TlsFiles) -> None:
    if not files.ca_cert:
        raise TlsError("CA certificate must be configured to use SSL")
    if files.ca_cert == NO_CA:
        context.verify_mode = ssl.CERT_NONE
        _LOG.warning("Peer certificate validation disabled (this is a security risk)")
        return
    context.verify_mode = ssl.CERT_REQUIRED
    if files.needs_bootstrap:
        return  # nobody is trusted yet
    with _reasons(f"CA certificate {files.ca_cert}"):
        context.load_verify_locations(files.ca_cert)


@contextlib.contextmanager
def _reasons(what: str) -> Iterator[None]:
    """Turns a failure of the ssl module into a TlsError that names `what` failed."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
        raise TlsError(f"{what}: {reason or error.args[-1]}") from error


def _set_ciphersuites(context: ssl.SSLContext, names: str) -> None:
    """Restricts TLS 1.3, which before Python 3.15 only the C library under `ssl` can do.

    CPython keeps the library's context right after the object's header; what the library then
    says of the context shows whether that is so.
    """
    if hasattr(context, "set_ciphersuites"):
        with _reasons(f"--ssl-ciphersuites {names}"):
            context.set_ciphersuites(names)
        return
    library = _openssl()
    if library is None:
        raise TlsError("--ssl-ciphersuites cannot be set with this Python")
    inner = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    if library.SSL_CTX_set_ciphersuites(inner, names.encode()) != 1:
        raise TlsError(f"--ssl-ciphersuites {names}: no cipher match")
    have = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.3"]
    if have != [name for name in names.split(":") if name]:
        raise TlsError(f"--ssl-ciphersuites {names}: cannot be set with this Python")


def _openssl() -> ctypes.CDLL | None:
    """The very library that the ssl module uses, found through that module."""
    if sys.implementation.name != "cpython":
        return None
    import _ssl

    library = ctypes.CDLL(getattr(_ssl, "__file__", None))
    if not hasattr(library, "SSL_CTX_set_ciphersuites"):
        return None
    library.SSL_CTX_set_ciphersuites.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    return library


def _peer_chain(transport: asyncio.BaseTransport) -> list[Any]:
    """All certificates that the peer sent; without a public name before 3.13."""
    inner: Any = getattr(transport.get_extra_info("ssl_object"), "_sslobj", None)
    if not hasattr(inner, "get_unverified_chain"):
        raise _no_bootstrap("this Python does not show the peer's certificates")
    return inner.get_unverified_chain() or []


def _no_bootstrap(reason: str) -> TlsError:
    return TlsError(f"could not bootstrap CA cert: {reason}")
