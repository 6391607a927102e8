"""What the cooperation of nodes can be set to.  Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote, urlsplit

from ovncp.cluster.breaker import BreakerSettings

_URL_PARAMETERS = ("ca", "cert", "key")


class SettingsError(ValueError):
    """A setting makes no sense."""


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """How Redis is reached: one server, Sentinel (`sentinel_master`), or Cluster (`cluster`)."""

    addresses: tuple[str, ...] = ("127.0.0.1:6379",)
    """HOST:PORT of the server, of some members of the cluster, or of the sentinels."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    database: int = 0
    cluster: bool = False
    sentinel_master: str | None = None
    tls: bool = False
    ca: str | None = None
    """A file with the authorities for TLS; the system's if None."""
    cert: str | None = None
    """A file with the certificate to show, with its key in `key`."""
    key: str | None = None
    pool_size: int = 10
    """Connections at most, besides those that wait for streams."""
    max_retries: int = 3
    """How often a command is tried again after its connection broke."""
    dial_timeout_s: float = 2.0
    read_timeout_s: float = 2.0
    write_timeout_s: float = 2.0
    prefix: str = "ovncp:"
    """What every key begins with."""
    breaker: BreakerSettings = field(default_factory=BreakerSettings)

    def __post_init__(self) -> None:
        if self.cluster and self.sentinel_master:
            raise SettingsError("Redis is either a cluster or behind sentinels")
        if self.cluster and self.database:
            raise SettingsError("a Redis cluster has database 0 alone")
        if "{" in self.prefix or "}" in self.prefix:
            raise SettingsError("a prefix of keys has no braces")

    def with_url(self, url: str) -> RedisSettings:
        """With what `redis[s]://[USER][:PASSWORD]@HOST[:PORT],.../[DATABASE]` says.

        `rediss` is TLS; the parameters `ca`, `cert` and `key` name files for it.  Raises
        SettingsError, which shows no password.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or parts.fragment:
            raise SettingsError("a Redis URL is redis[s]://[USER:PASSWORD@]HOST:PORT,.../DATABASE")
        credentials, at, hosts = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        path = parts.path.strip("/")
        files = dict(parse_qsl(parts.query))
        if unknown := sorted(set(files) - set(_URL_PARAMETERS)):
            raise SettingsError(f"a Redis URL has no parameter {unknown[0]}")
        if path and not path.isdecimal():
            raise SettingsError("the path of a Redis URL is the number of a database")
        return replace(
            self,
            addresses=tuple(map(_with_port, hosts.split(","))) if hosts else self.addresses,
            username=unquote(user) or None if at else self.username,
            password=unquote(password) or None if at else self.password,
            database=int(path or self.database),
            tls=parts.scheme == "rediss",
            ca=files.get("ca", self.ca),
            cert=files.get("cert", self.cert),
            key=files.get("key", self.key),
        )


def _with_port(host: str) -> str:
    """HOST:PORT, with Redis' usual port if none is given."""
    _, colon, port = host.rpartition(":")
    if colon and port.isdecimal():
        return host
    if not host or (colon and not host.endswith("]")):
        raise SettingsError(f"not an address of Redis: {host!r}")
    return f"{host}:6379"


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Who this node is, and how nodes work together."""

    node_id: str
    """Unique among the nodes, and the same after a restart of this one."""
    hostname: str = ""
    ip: str = "127.0.0.1"
    port: int = 8080
    heartbeat_s: float = 5.0
    node_timeout_s: float = 30.0
    lease_s: float = 6.0
    """How long the leader's lease lasts unless renewed."""
    session_ttl_s: float = 1800.0
    session_cleanup_s: float = 60.0
    events_kept: int = 100_000
    """How many events can be resumed from."""
    invalidations_kept: int = 10_000
    cache_entries: int = 10_000
    """How many values each node keeps at hand."""
    redis: RedisSettings | None = None
    """None: the nodes are in this process."""

    def __post_init__(self) -> None:
        if not self.node_id:
            raise SettingsError("a node needs an id")
        if self.heartbeat_s * 2 > self.node_timeout_s:
            raise SettingsError("a node's timeout is at least two heartbeats")
