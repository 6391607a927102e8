"""A node of the control platform that runs, from its configuration to the signal that ends it."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType

import uvicorn
import uvloop

from ovncp import __version__
from ovncp.api import app, events, logs, metrics, tracing
from ovncp.api.arrival import TimelyProtocol
from ovncp.api.platform import Platform
from ovncp.cli.config import Config, ConfigError, ServerSection
from ovncp.cli.parts import (
    account_settings,
    check,
    cluster_settings,
    endpoints,
    grouping,
    traces_at_once,
)
from ovncp.cluster.node import Node, open_node
from ovncp.ovn.replica import Replica
from ovncp.ovn.resources import NORTHBOUND, SOUTHBOUND
from ovncp.ovn.tracer import Tracer
from ovncp.server import preflight
from ovncp.server.configuration import ConfigurationError
from ovncp.server.metrics_endpoint import PATH, MetricsEndpoint
from ovncp.server.preflight import Refused

_DRAINING_SECONDS = 10.0
_LEAVING_SECONDS = 30


def run(given: Config) -> None:
    """Serve until a signal. Raises ConfigError, SettingsError, Refusal, Refused, OSError."""
    log = given.log
    logs.configure(log.format, log.level, cluster_settings(given).node_id)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(given))


def tracer(given: Config) -> Tracer:
    """What runs ovn-trace, with connections that are left besides those of the replicas."""
    ovn = given.ovn
    files = {"--private-key": ovn.private_key, "--certificate": ovn.certificate}
    given_files = [f"{name}={file}" for name, file in files.items() if file]
    if ovn.ca_cert:
        given_files.append(f"--ca-cert={ovn.ca_cert}")
    n_at_once = traces_at_once(given)
    return Tracer(ovn.southbound.endpoints, given_files, n_at_once, ovn.connection_timeout)


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
        # A node that is for everybody does without its libraries.
        from ovncp.auth.accounts import Accounts

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
    listening = listen(given.server)
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


def listen(server: ServerSection) -> socket.socket:
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
