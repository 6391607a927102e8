"""What the parts of a node are told of its configuration, and whether they can be made of it."""

import socket
from collections.abc import Sequence

from ovncp.auth.settings import (
    AuthSettings,
    DatabaseSettings,
    OidcSettings,
    postgres_url,
    roles_by_group,
    tenants_by_group,
)
from ovncp.cli.config import Config, DatabaseServer
from ovncp.cli.connect import connector
from ovncp.cluster.rates import Limit
from ovncp.cluster.settings import ClusterSettings, RedisSettings, SettingsError
from ovncp.follow.link import Endpoint
from ovncp.ovn.resources import NORTHBOUND, SOUTHBOUND
from ovncp.ovn.writer import Grouping
from ovncp.server.tls import TlsFiles

USUAL_ACCOUNTS = "sqlite:///var/accounts.db"
"""Where accounts are, if nothing is said."""

_LOCAL = ("127.0.0.1", "::1", "localhost")
_MOST_TRACES = 4


def cluster_settings(given: Config) -> ClusterSettings:
    """Who the node is. Raises SettingsError."""
    cluster = given.cluster
    hostname = cluster.node_hostname or socket.gethostname()
    has_redis = bool(given.redis.url or given.redis.addresses)
    return ClusterSettings(
        node_id=cluster.node_id or f"{hostname}:{given.server.port}",
        hostname=hostname,
        ip=cluster.node_ip,
        port=given.server.port,
        heartbeat_s=cluster.heartbeat_interval,
        node_timeout_s=cluster.node_timeout,
        session_ttl_s=given.session.ttl,
        session_cleanup_s=given.session.cleanup_interval,
        cache_entries=given.cache.entries,
        redis=redis_settings(given) if has_redis and cluster.enabled is not False else None,
    )


def redis_settings(given: Config) -> RedisSettings:
    """How Redis is reached. Raises SettingsError."""
    redis = given.redis
    usual = RedisSettings()
    settings = RedisSettings(
        addresses=redis.addresses or usual.addresses,
        password=redis.password or None,
        cluster=redis.cluster_mode,
        sentinel_master=redis.sentinel_master or None,
        pool_size=redis.pool_size,
        max_retries=redis.max_retries,
        dial_timeout_s=redis.dial_timeout,
        read_timeout_s=redis.read_timeout,
        write_timeout_s=redis.write_timeout,
        prefix=given.cache.key_prefix,
    )
    return settings.with_url(redis.url) if redis.url else settings


def account_settings(given: Config) -> AuthSettings | None:
    """Where accounts are; None if everybody may do everything. Raises its SettingsError."""
    database, auth = given.database, given.auth
    has_database = bool(database.url or database.primary.host)
    is_local = given.server.host in _LOCAL
    if auth.mode == "open" or (auth.mode == "auto" and is_local and not has_database):
        if not is_local:
            raise SettingsError("auth.mode open is for a node that listens on 127.0.0.1 alone")
        return None
    return AuthSettings(
        database_settings(given),
        session_s=auth.session_ttl,
        oidc=oidc_settings(given),
        user_limit=Limit(auth.requests_per_minute, 60.0),
        address_limit=Limit(auth.address_requests_per_minute, 60.0),
        login_limit=Limit(auth.failed_logins, 300.0),
        address_login_limit=Limit(10 * auth.failed_logins, 300.0),
        audit_kept_s=auth.audit_retention,
    )


def database_settings(given: Config) -> DatabaseSettings:
    """The database of accounts. Raises its SettingsError."""
    database = given.database
    primary = database.url or (_url_of(database.primary) if database.primary.host else "")
    return DatabaseSettings(
        primary or USUAL_ACCOUNTS,
        tuple(map(_url_of, database.replicas)),
        database.max_open_connections,
        database.max_idle_connections,
        database.connection_max_lifetime,
    )


def _url_of(server: DatabaseServer) -> str:
    return postgres_url(server.host, server.port, server.database, server.user, server.password)


def oidc_settings(given: Config) -> OidcSettings | None:
    """The OpenID Connect provider, if there is one. Raises its SettingsError."""
    oidc = given.auth.oidc
    if not oidc.issuer:
        return None
    return OidcSettings(
        oidc.issuer,
        oidc.client_id,
        oidc.client_secret,
        oidc.name_claim,
        oidc.groups_claim,
        roles_by_group(oidc.roles),
        tenants_by_group(oidc.tenants),
        oidc.redirect_url,
        oidc.audience,
        oidc.ca_cert,
    )


def endpoints(given: Config, targets: Sequence[str]) -> list[Endpoint]:
    """What connects to each of `targets`. Raises Refusal."""
    ovn = given.ovn
    files = TlsFiles(
        private_key=ovn.private_key or None,
        certificate=ovn.certificate or None,
        ca_cert=ovn.ca_cert or None,
    )
    return [Endpoint(target, connector(target, files)) for target in targets]


def traces_at_once(given: Config) -> int:
    """How many connections are left besides those of the replicas, as far as they are wanted."""
    return min(_MOST_TRACES, given.ovn.max_connections - len((NORTHBOUND, SOUTHBOUND)))


def grouping(given: Config) -> Grouping:
    """How writes are grouped."""
    batch = given.batch_processor
    return Grouping(batch.batch_size, batch.batch_timeout, batch.max_concurrent)


def check(given: Config) -> None:
    """See that the parts can be made of the configuration. Raises SettingsError, Refusal."""
    cluster_settings(given)
    account_settings(given)
    for side in (given.ovn.northbound, given.ovn.southbound):
        endpoints(given, side.endpoints)
