"""What a server does about a database that it shares with others, besides running it."""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import ovncp
from ovncp.log.base import LogError
from ovncp.log.engine import SharedLog
from ovncp.log.engine_status import TIGHT
from ovncp.server import fullness
from ovncp.server.clock import Clock
from ovncp.server.cluster_upkeep import ClusterUpkeep
from ovncp.server.clustered import Clustered
from ovncp.server.peers import RENEWAL_MSEC, Peer, Peers
from ovncp.server.upkeep_process import Order

_LOG = logging.getLogger("ovncp.clustered")

_PATIENCE_SECONDS: Final = 3.0


class Cluster:
    """This server among those of the log that `runner` has.

    `peers` are those that were there when somebody looked last, this one among them.
    """

    def __init__(
        self,
        runner: Clustered,
        log: SharedLog,
        order: Order,
        upkeep_command: Sequence[str],
        clock: Clock,
        *,
        compact: Callable[[], Awaitable[None]],
        addresses: Callable[[], tuple[str, ...]],
    ) -> None:
        """`addresses` are where clients reach this server; see `ClusterUpkeep` for the others."""
        self.runner = runner
        self.log = log
        self.peers: list[Peer] = []
        self.clock = clock
        self._addresses = addresses
        self._notices = Peers(log)
        self.upkeep = ClusterUpkeep(
            runner, log, order, upkeep_command, clock, compact=compact, rank=self._rank
        )
        runner.upkeep = self.upkeep.perform
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def cid(self) -> str:
        """The log's own uuid."""
        assert self.log.identity is not None
        return self.log.identity

    @property
    def n_entries(self) -> int:
        """How many entries the log has after its snapshot, as far as this server knows."""
        return self.log.next_index - 1 - self.log.snapshot_index

    @property
    def n_unapplied(self) -> int:
        """How many entries of the log this server knows of and has not applied."""
        return max(0, self.log.next_index - 1 - self.runner.index)

    def start(self) -> None:
        """Take part from now on."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work) for work in (self._show(), self.upkeep.run())]
        for task in self._tasks:
            task.add_done_callback(_log_failure)

    async def close(self) -> None:
        """Take part no longer; to be called before the log is closed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # The engine forgets by itself, if it cannot be told.
        with suppress(LogError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._notices.hide(self.runner.server_id)

    async def _show(self) -> None:
        while True:
            # While the engine is out of reach, the database says so itself.
            with suppress(LogError):
                await self._notices.show(self.this_server())
                self.peers = await self._notices.read()
            await self.clock.sleep(RENEWAL_MSEC)

    def this_server(self) -> Peer:
        """This server as it is now."""
        return Peer(
            self.runner.server_id,
            self._addresses(),
            socket.gethostname(),
            os.getpid(),
            ovncp.__version__,
            self.runner.index,
            self.runner.is_connected,
            self.clock.wall_msec(),
        )

    def _rank(self) -> int:
        return sum(peer.sid < self.runner.server_id for peer in self.peers)

    async def look(self) -> None:
        """See who is there and how the engine is, as far as that can be found out at once."""
        with suppress(LogError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._notices.show(self.this_server())
                self.peers = await self._notices.read()
                await self.log.find_snapshot()
                self.upkeep.engine = await self.log.status()
                self.upkeep.usage = await self.log.usage()

    def storage_status(self) -> list[str]:
        """The lines that `ovsdb-server/get-db-storage-status` shows."""
        engine, usage = self.upkeep.engine, self.upkeep.usage
        status = "ok" if self.runner.failure is None else str(self.runner.failure)
        if engine is not None and engine.alarms:
            status = f"cluster error: {engine.engine} refuses writes: {', '.join(engine.alarms)}"
        lines = [f"status: {status}"]
        if engine is not None and usage is not None:
            lines.append(f"storage: {engine.engine} {engine.version}, {fullness.words(usage)}")
            if (share := fullness.share(usage)) >= TIGHT:
                lines.append(f"warning: the engine is {share:.0%} full")
        return lines


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _LOG.critical("internal error", exc_info=task.exception())
