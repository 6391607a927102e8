"""The control platform as it is deployed: three nodes behind HAProxy, and all that they need.

Everything is a process of this machine, on ports of its own: Redis, PostgreSQL with a standby, the
OVSDB server of both databases, ovn-northd, the nodes, and HAProxy with the file of `deploy/`. What
is to happen to them is done to the processes; one node reaches Redis by a wire that can be cut.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import orjson
import yaml

from deployed.people import tokens_of
from engines import Postgres, PostgresStandby, free_port
from ovncp.log.contract.wire import Wire
from platform_node import Node, databases
from redis_servers import RedisServer
from servers import Server

HAPROXY_FILE = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
NODES = ("node1", "node2", "node3")
WIRED = "node3"
"""The node that can be cut from Redis."""

PATIENCE_SECONDS = 90.0
"""How long anything may take on a machine with much else to do."""

_CONFIGURATION = {
    "server": {"host": "127.0.0.1", "trusted_proxies": ["127.0.0.1"]},
    "cluster": {"heartbeat_interval": "1s", "node_timeout": "6s"},
    "session": {"cleanup_interval": "2s"},
    "redis": {"dial_timeout": "1s", "read_timeout": "1s", "write_timeout": "1s"},
    "ovn": {"connection_timeout": "10s"},
    "auth": {
        "mode": "users",
        "requests_per_minute": 1_000_000,
        "address_requests_per_minute": 1_000_000,
    },
}


class Deployment:
    """What runs, and what can be done to it; `url` is HAProxy's, `tokens` are the users'."""

    def __init__(self, directory: Path, ovsdb: Server, redis: RedisServer) -> None:
        self.ovsdb = ovsdb
        self.redis = redis
        self.primary: Postgres
        self.standby: PostgresStandby
        self.wire = Wire([redis.address])
        self.tokens: dict[str, str] = {}
        self.ports = {name: free_port() for name in NODES}
        self.nodes: dict[str, Node] = {}
        self.url = f"http://127.0.0.1:{free_port()}"
        self._directory = directory
        self._ended: list[str] = []
        self._wired = ""
        self._client = httpx.AsyncClient(timeout=15, verify=False)

    # Starting

    async def start(self, stack: AsyncExitStack) -> None:
        """Start everything besides what is there; `stack` ends it."""
        (self._wired,) = await self.wire.start()
        stack.push_async_callback(self.wire.close)
        stack.push_async_callback(self._client.aclose)
        await asyncio.to_thread(self._start_postgres, stack)
        stack.enter_context(self._northd())
        stack.callback(self._end_nodes)
        self.tokens = await tokens_of(self._accounts)
        await asyncio.gather(*map(self.start_node, NODES))
        await self.is_whole()
        stack.enter_context(self._haproxy())
        await self._is_served()

    def _start_postgres(self, stack: AsyncExitStack) -> None:
        self.primary = stack.enter_context(Postgres())
        self.standby = stack.enter_context(PostgresStandby(self.primary))
        self.primary.sql("CREATE DATABASE ovncp ENCODING 'UTF8' TEMPLATE template0")
        # What is acknowledged is at the standby, too.
        self.primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.primary.sql("SELECT pg_reload_conf()")

    @property
    def _accounts(self) -> str:
        return f"postgresql://ovncp@{self.primary.host},{self.standby.host}/ovncp"

    async def start_node(self, name: str) -> None:
        """Start a node, and return when it listens."""
        file = self._directory / "config.yaml"
        file.write_text(yaml.safe_dump(_CONFIGURATION))
        redis = self._wired if name == WIRED else self.redis.address
        about = {"NODE_ID": name, "REDIS_URL": f"redis://{redis}", "DATABASE_URL": self._accounts}
        options = f"--port={self.ports[name]}", f"--config={file}"
        remote = self.ovsdb.remote
        self.nodes[name] = await asyncio.to_thread(
            Node, remote, remote, *options, env=os.environ | about
        )

    @contextmanager
    def _northd(self) -> Iterator[None]:
        remote = self.ovsdb.remote
        folder = self._directory
        with _running(
            folder / "northd.log",
            *("ovn-northd", f"--ovnnb-db={remote}", f"--ovnsb-db={remote}", "-vconsole:warn"),
            f"--unixctl={folder / 'northd.ctl'}",
        ):
            yield

    @contextmanager
    def _haproxy(self) -> Iterator[None]:
        text = HAPROXY_FILE.read_text().replace("maxconn 20000", "maxconn 4000")
        for name, port in self.ports.items():
            text = text.replace(f" {name}:8080", f" 127.0.0.1:{port}")
        text = text.replace("bind :8080", f"bind {self.url.removeprefix('http://')}")
        text = text.replace("bind 127.0.0.1:8405", f"bind 127.0.0.1:{free_port()}")
        file = self._directory / "haproxy.cfg"
        file.write_text(text)
        with _running(self._directory / "haproxy.log", "haproxy", "-db", "-f", str(file)):
            yield

    def _end_nodes(self) -> None:
        for name in list(self.nodes):
            self.kill_node(name)

    # Looking

    async def ask(self, node: str, path: str, *, method: str = "GET") -> Any:
        """What a node says itself to an administrator, None if it does not answer well."""
        headers = {"Authorization": f"Bearer {self.tokens['admin']}"}
        url = f"http://127.0.0.1:{self.ports[node]}/api/v1{path}"
        body = {} if method == "POST" else None
        try:
            answer = await self._client.request(method, url, json=body, headers=headers)
        except httpx.TransportError:
            return None
        return answer.json() if answer.is_success else None

    async def told(self, node: str, path: str) -> Any:
        """What a node says itself, as soon as it answers well."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (answer := await self.ask(node, path)) is None:
                await asyncio.sleep(0.2)
        return answer

    async def is_whole(self) -> None:
        """Return when all nodes are there, at all nodes, and one leads."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not all([await self._is_well(name) for name in NODES]):
                await asyncio.sleep(0.2)

    async def _is_well(self, name: str) -> bool:
        known = await self.ask(name, "/cluster/nodes")
        leader = await self.ask(name, "/cluster/leader")
        if known is None or leader is None:
            return False
        return {each["id"]: each["status"] for each in known["items"]} == dict.fromkeys(
            NODES, "active"
        )

    async def _is_served(self) -> None:
        """Return when HAProxy sends requests to nodes."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                with suppress(httpx.TransportError):
                    if (await self._client.get(f"{self.url}/health/ready")).is_success:
                        return
                await asyncio.sleep(0.1)

    async def leader(self, asked: Iterable[str] = NODES) -> str:
        """Which node leads, by some of them, as soon as one does."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for name in asked:
                    found = await self.ask(name, "/cluster/leader")
                    if found is not None and found["node"] in self.nodes:
                        return str(found["node"])
                await asyncio.sleep(0.2)

    @property
    def node_logs(self) -> list[list[dict[str, Any]]]:
        """What each node has logged from its start to its end."""
        texts = [*self._ended, *(node.log for node in self.nodes.values())]
        return [[orjson.loads(line) for line in text.splitlines()] for text in texts]

    # Harming

    def kill_node(self, name: str) -> None:
        """End a node by SIGKILL."""
        node = self.nodes.pop(name)
        node.process.kill()
        node.process.wait()
        self._ended.append(node.log)
        node.close()

    async def drain_node(self, name: str) -> int:
        """End a node by SIGTERM; its exit status."""
        node = self.nodes.pop(name)
        node.process.terminate()
        status = await asyncio.to_thread(node.process.wait, PATIENCE_SECONDS)
        self._ended.append(node.log)
        node.close()
        return status

    async def fail_postgres_over(self) -> None:
        """Have PostgreSQL's primary crash, and its standby take over."""
        await asyncio.to_thread(self.primary.stop, signal.SIGQUIT)
        await asyncio.to_thread(self.standby.promote)


@contextmanager
def _running(log: Path, *command: str) -> Iterator[None]:
    """In the block a program runs, which must not end by itself."""
    folder = str(log.parent)
    places = dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVN_RUNDIR", "OVN_LOGDIR"), folder)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | places)
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def deployed(kind: str) -> AsyncIterator[Deployment]:
    """A deployment over an OVSDB server of that kind, whole at first."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deployed-")))
        redis = stack.enter_context(RedisServer(keeps=True))
        ovsdb = await asyncio.to_thread(databases, kind)
        stack.callback(ovsdb.close)
        deployment = Deployment(directory, ovsdb, redis)
        await deployment.start(stack)
        yield deployment
