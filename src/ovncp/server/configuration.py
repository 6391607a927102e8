"""What a server is to serve: databases, remotes and TLS files, as the command line gives them.

A configuration is parsed once and never changed; runtime commands replace it by another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

RELAY_PREFIX = "relay:"


class ConfigurationError(Exception):
    """A configuration that cannot be used; the text is ready to print."""


@dataclass(frozen=True)
class RemoteOptions:
    """What may be set for a remote; None stands for the default of its kind.

    `inactivity_probe_msec` 0 is no probing. `dscp`, 0 to 63, marks the packets (RFC 2474).
    """

    max_backoff_msec: int | None = None
    inactivity_probe_msec: int | None = None
    read_only: bool = False
    role: str = ""
    dscp: int = 0


@dataclass(frozen=True)
class TlsSettings:
    """TLS options as given: file names, or `db:DB,TABLE,COLUMN` where to read them from."""

    private_key: str | None = None
    certificate: str | None = None
    ca_cert: str | None = None
    bootstrap_ca_cert: str | None = None
    peer_ca_cert: str | None = None
    ssl_protocols: str | None = None
    ssl_ciphers: str | None = None
    ssl_ciphersuites: str | None = None


@dataclass(frozen=True)
class Configuration:
    """Files of databases, remotes by target, TLS.

    A database that is relayed is named by `relay_spec`; `sources` has options for these.
    """

    databases: tuple[str, ...] = ()
    remotes: Mapping[str, RemoteOptions] = field(default_factory=dict)
    tls: TlsSettings = TlsSettings()
    sources: Mapping[str, RemoteOptions] = field(default_factory=dict)


def relay_spec(name: str, remotes: str) -> str:
    """How the command line names the database `name` that is relayed from `remotes`."""
    return f"{RELAY_PREFIX}{name}:{remotes}"


def split_relay_spec(spec: str) -> tuple[str, str]:
    """The name and the remotes, separated by commas, in a `relay_spec`.

    Raises ConfigurationError, in the C server's words.
    """
    name, _, remotes = spec.removeprefix(RELAY_PREFIX).partition(":")
    if not name or not remotes.strip(","):
        raise ConfigurationError(f"{spec}: invalid syntax")
    return name, remotes
