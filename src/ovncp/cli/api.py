"""`ovncp api`: one node of the control platform; and what is done to its accounts without one."""

import asyncio
import errno
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop

from ovncp import __version__
from ovncp.api import app, events, logs, metrics, tracing
from ovncp.api.arrival import TimelyProtocol
from ovncp.api.platform import Platform
from ovncp.auth.accounts import Accounts
from ovncp.auth.settings import (
    AuthSettings,
    DatabaseSettings,
    OidcSettings,
    postgres_url,
    roles_by_group,
    tenants_by_group,
)
from ovncp.cli import config, options
from ovncp.cli.config import Config, ConfigError, DatabaseServer, Loaded, ServerSection
from ovncp.cli.connect import connector
from ovncp.cli.options import Argument, Option, OptionError, Parsed
from ovncp.cluster.node import Node, open_node
from ovncp.cluster.rates import Limit
from ovncp.cluster.settings import ClusterSettings, RedisSettings, SettingsError
from ovncp.follow.link import Endpoint
from ovncp.ops.refusal import Refusal
from ovncp.ovn.replica import Replica
from ovncp.ovn.resources import NORTHBOUND, SOUTHBOUND
from ovncp.ovn.tracer import Tracer
from ovncp.ovn.writer import Grouping
from ovncp.server import preflight
from ovncp.server.configuration import ConfigurationError
from ovncp.server.metrics_endpoint import PATH, MetricsEndpoint
from ovncp.server.preflight import Refused
from ovncp.server.tls import TlsFiles

PROGRAM = "ovncp api"
SET_PASSWORD = "set-password"
USUAL_ACCOUNTS = "sqlite:///var/accounts.db"
"""Where accounts are, if nothing is said."""

FILE_OPTION = Option("config", Argument.REQUIRED, "", "FILE", "the configuration (config.yaml)")
FLAGS = tuple(
    Option(each.about["flag"], Argument.REQUIRED, "", "VALUE", each.about["help"])
    for each in config.settings()
    if each.about["flag"]
)
TABLE = (FILE_OPTION, *FLAGS, options.GENERAL_OPTIONS[0])

_LOCAL = ("127.0.0.1", "::1", "localhost")
_YOUNG_OBJECTS = 100_000
_NEVER = 1 << 30
_MOST_TRACES = 4
_DRAINING_SECONDS = 10.0
_LEAVING_SECONDS = 30


def usage() -> str:
    """The text of --help."""
    head = (
        f"usage: {PROGRAM} [OPTION...]\n"
        f"       {PROGRAM} {SET_PASSWORD} [OPTION...] USER\n"
        "Serves one API over a Northbound and a Southbound database, of any OVSDB server, until a\n"
        "signal. All that there is to set is shown by `ovncp check-config`.\n"
    )
    return head + options.describe("Options", TABLE)


def main(argv: Sequence[str]) -> int:
    """Serve until a signal; `argv` is without the verb. Returns the exit status."""
    if argv[:1] == [SET_PASSWORD]:
        # Imported late, since it needs what is here.
        from ovncp.cli import set_password

        return set_password.main(argv[1:])
    try:
        parsed = options.parse(argv, TABLE)
        if parsed.has("help"):
            print(usage(), end="")
            return 0
        loaded = load(parsed)
        log = loaded.config.log
        logs.configure(log.format, log.level, cluster_settings(loaded.config).node_id)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(loaded.config))
    except (OptionError, ConfigError, SettingsError, Refusal, Refused, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    return 0


def load(parsed: Parsed) -> Loaded:
    """The configuration that a command line asks for. Raises ConfigError."""
    if parsed.arguments:
        raise ConfigError(f"{parsed.arguments[0]!r} is no option; --help has those that are")
    named = parsed.last("config")
    usual = Path(config.USUAL_FILE)
    file = Path(named) if named is not None else usual if usual.exists() else None
    flags = {name: value for name, value in parsed.options if value is not None}
    return config.load(file, os.environ, flags)


# What the parts are told of the configuration


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


def tracer(given: Config) -> Tracer:
    """What runs ovn-trace, with connections that are left besides those of the replicas."""
    ovn = given.ovn
    files = {"--private-key": ovn.private_key, "--certificate": ovn.certificate}
    given_files = [f"{name}={file}" for name, file in files.items() if file]
    if ovn.ca_cert:
        given_files.append(f"--ca-cert={ovn.ca_cert}")
    n_at_once = traces_at_once(given)
    return Tracer(ovn.southbound.endpoints, given_files, n_at_once, ovn.connection_timeout)


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


def open_platform(given: Config) -> Platform:
    """The node that is configured. Raises SettingsError, Refusal."""
    ovn = given.ovn
    check(given)
    replicas = {
        name: Replica(name, endpoints(given, side.endpoints), ovn.connection_timeout)
        for name, side in ((NORTHBOUND, ovn.northbound), (SOUTHBOUND, ovn.southbound))
    }
    node = open_node(cluster_settings(given), __version__)
    platform = Platform.of(replicas, node, grouping(given))
    platform.tracer = tracer(given)
    platform.spans = tracing.open_spans(os.environ, node.id)
    accounts = account_settings(given)
    if accounts is not None:
        platform.admit(Accounts(accounts, node, partial(print, flush=True)))
    return platform


class _Server(uvicorn.Server):
    """A server that lets its clients go elsewhere before it stops to serve."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node
        self._draining: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at SIGTERM; end at any other signal, and at once at a further one."""
        # uvicorn's own way has the process killed by the signal at last, all being well.
        self._loop.call_soon_threadsafe(self._signalled, sig)

    def _signalled(self, sig: int) -> None:
        if self._draining is None and sig == signal.SIGTERM:
            self._draining = self._loop.create_task(self._drain())
        else:
            self.force_exit = self.should_exit
            self.should_exit = True

    async def _drain(self) -> None:
        deadline = self._loop.time() + _DRAINING_SECONDS
        await self._node.drain()
        while self._node.sessions.own and self._loop.time() < deadline:
            await asyncio.sleep(0.05)
        self.should_exit = True


async def _serve(given: Config) -> None:
    # Rows, and what is kept of them, are in no cycle that ends.
    gc.set_threshold(_YOUNG_OBJECTS, 50, _NEVER)
    listening = _listen(given.server)
    platform = open_platform(given)
    settings = uvicorn.Config(
        app.make(platform),
        http=partial(TimelyProtocol, patience_s=given.server.request_timeout),  # type: ignore[arg-type]
        ws="websockets-sansio",
        ws_max_size=events.LARGEST_MESSAGE,
        ws_per_message_deflate=False,  # an event is the same bytes for all who are told of it
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=_LEAVING_SECONDS,
        forwarded_allow_ips=list(given.server.trusted_proxies),
    )
    events.bound(listening)
    host, port = listening.getsockname()[:2]
    print(f"listening on http://{host}:{port}", flush=True)
    async with _showing_metrics(given.server, platform):
        await _Server(settings, platform.node).serve([listening])


def _listen(server: ServerSection) -> socket.socket:
    """The socket that requests come to. Raises Refused."""
    try:
        return socket.create_server((server.host, server.port), backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise preflight.taken(server.port, "--port") from error
        reason = (error.strerror or "").partition(" (")[0]
        text = f"cannot listen on {server.host}:{server.port} ({reason})"
        raise Refused(f"{text}: name others with --host and --port") from error


@asynccontextmanager
async def _showing_metrics(server: ServerSection, platform: Platform) -> AsyncIterator[None]:
    """A block in which the figures are at their own port, if they are to be. Raises ConfigError."""
    if server.metrics_port is None:
        yield
        return
    host = f"[{server.host}]" if ":" in server.host else server.host
    place = f"{host}:{server.metrics_port}"
    endpoint = MetricsEndpoint(place, partial(metrics.text, platform))
    try:
        await endpoint.start()
    except ConfigurationError as error:
        reason = str(error).rpartition(": ")[2]
        raise ConfigError(f"server.metrics_port: {place}: {reason}") from error
    print(f"metrics at http://{host}:{endpoint.port}{PATH}", flush=True)
    try:
        yield
    finally:
        await endpoint.close()
