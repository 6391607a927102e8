"""Processes that share the work for clients (`--workers N`), seen from the main process.

The main process keeps the databases and listens. A connection that it accepts goes to the worker
that has the fewest, which is a relay of the main process and serves the client from then on. Two
sockets join them: on one the worker is a client like any other; on the other it is told what
connections to serve and how, and tells when one has ended.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from ovncp.server.channel import Channel, Message
from ovncp.server.command import Command, CommandError
from ovncp.server.server import Server
from ovncp.server.session import Session
from ovncp.wire.reconnect import Reconnect

_LOG = logging.getLogger("ovncp.workers")

_PAUSE_SECONDS = 1.0  # before a worker that died is replaced
_PATIENCE_SECONDS = 10.0  # for a worker to answer, or to end

CATCH_UP = "catch-up"
"""The command that a worker answers once all is there that the main process had to tell it."""

CommandLine = Callable[[int, int], Sequence[str]]
"""The command line of a worker, given the descriptors of the channel and of the connection."""


class WorkerError(Exception):
    """There can be no workers."""


class _Upstream:
    """The remote of a worker's own connection, on which it speaks for its clients."""

    speaks_for_others = True
    read_only = False
    role = ""
    inactivity_probe_msec = 0

    def __init__(self, server: Server) -> None:
        self._server = server

    def connected(self, session: Session) -> Reconnect:
        """See `Remote.connected`."""
        now = self._server.clock.now_msec()
        machine = Reconnect(session.name, now, quiet=True, tries_left=0)
        machine.connected(now)
        return machine

    def disconnected(self, session: Session, error: int) -> None:
        """See `Remote.disconnected`; what is to be done follows from the end of the process."""


class _Worker:
    """One worker process, from its start to its end. `n_clients` is by the remotes' targets."""

    def __init__(
        self, server: Server, configuration: Message, became_ready: Callable[[], None]
    ) -> None:
        self.n_clients: Counter[str] = Counter()
        self.is_ready = False
        self._server = server
        self._configuration = configuration
        self._became_ready = became_ready
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._n_questions = 0
        self._channel: Channel
        self._process: asyncio.subprocess.Process

    async def start(self, command_line: CommandLine) -> None:
        """Start the process, which is ready some time later. Raises OSError."""
        ours, theirs = Channel.pair()
        connection, their_connection = socket.socketpair()
        with theirs, their_connection:
            descriptors = (theirs.fileno(), their_connection.fileno())
            self._process = await asyncio.create_subprocess_exec(
                *command_line(*descriptors), pass_fds=descriptors, stdin=asyncio.subprocess.DEVNULL
            )
        self._channel = Channel(ours, self._received, self._ended)
        self._channel.send({"configure": self._configuration})
        session = Session(self._server, cast(Any, _Upstream(self._server)))
        session.is_change_aware = True
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: cast(asyncio.Protocol, session), connection
        )

    def _received(self, message: Message, _: socket.socket | None) -> None:
        if "ready" in message:
            self.is_ready = True
            self._became_ready()
        elif "ended" in message:
            self.n_clients[message["ended"]] -= 1
        else:
            answer = self._answers.pop(message["answer"], None)
            if answer is not None and not answer.done():
                answer.set_result(message)

    def _ended(self) -> None:
        self.is_ready = False
        self.n_clients.clear()
        for answer in self._answers.values():
            answer.cancel()
        self._answers.clear()

    def configure(self, configuration: Message) -> None:
        """Have it serve with `configuration` from now on."""
        self._channel.send({"configure": configuration})

    def serve(self, target: str, connection: socket.socket) -> None:
        """Give it a client of the remote `target`."""
        self.n_clients[target] += 1
        self._channel.send({"serve": target}, connection)

    def reconnect(self, target: str) -> None:
        """Have it drop its clients of the remote `target`."""
        self._channel.send({"reconnect": target})

    async def run(self, name: str, args: list[str]) -> str:
        """What it answers to the runtime command `name`. Raises CommandError."""
        self._n_questions += 1
        answered = asyncio.get_running_loop().create_future()
        self._answers[self._n_questions] = answered
        self._channel.send({"run": [name, *args], "question": self._n_questions})
        try:
            message = await asyncio.wait_for(answered, _PATIENCE_SECONDS)
        except (TimeoutError, asyncio.CancelledError) as error:
            raise CommandError(f"{name}: a worker did not answer") from error
        if "error" in message:
            raise CommandError(message["error"])
        text: str = message["text"]
        return text

    async def wait(self) -> int:
        """The exit status of the process, once it has ended."""
        status = await self._process.wait()
        self._channel.close()
        self._ended()
        return status

    async def close(self) -> None:
        """Have it part with its clients and end."""
        self._channel.close()
        try:
            await asyncio.wait_for(self._process.wait(), _PATIENCE_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Workers:
    """The `n_workers` processes with this `command_line`.

    `configuration` says how they are to serve; `changed` tells that it says something else now.
    """

    def __init__(
        self,
        server: Server,
        n_workers: int,
        command_line: CommandLine,
        configuration: Callable[[], Message],
    ) -> None:
        self._server = server
        self._n_workers = n_workers
        self._command_line = command_line
        self._configuration = configuration
        self._workers: list[_Worker] = []
        self._keepers: list[asyncio.Task[None]] = []
        # Clients that no worker was there for.
        self._unserved: list[tuple[str, socket.socket]] = []
        self._ready = asyncio.Event()

    async def start(self) -> None:
        """Start all of them, and return when they are ready. Raises OSError and WorkerError."""
        loop = asyncio.get_running_loop()
        self._keepers = [loop.create_task(self._keep()) for _ in range(self._n_workers)]
        done, _ = await asyncio.wait(
            [loop.create_task(self._ready.wait()), *self._keepers],
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in done:
            task.result()

    async def _keep(self) -> None:
        """Keep one worker running."""
        while True:
            worker = _Worker(self._server, self._configuration(), self._became_ready)
            await worker.start(self._command_line)
            self._workers.append(worker)
            status = await worker.wait()
            self._workers.remove(worker)
            if not self._ready.is_set():
                raise WorkerError(f"a worker cannot start: it ended with status {status}")
            _LOG.error("a worker ended with status %d; its clients are disconnected", status)
            await asyncio.sleep(_PAUSE_SECONDS)

    def _became_ready(self) -> None:
        if sum(worker.is_ready for worker in self._workers) == self._n_workers:
            self._ready.set()
        unserved, self._unserved = self._unserved, []
        for target, connection in unserved:
            self.serve(target, connection)

    def serve(self, target: str, connection: socket.socket) -> None:
        """Give a client of the remote `target` to the worker that has the fewest."""
        ready = [worker for worker in self._workers if worker.is_ready]
        if ready:
            min(ready, key=lambda worker: worker.n_clients.total()).serve(target, connection)
        else:
            self._unserved.append((target, connection))

    def n_clients(self, target: str) -> int:
        """How many clients of the remote `target` there are."""
        return sum(worker.n_clients[target] for worker in self._workers)

    def reconnect(self, target: str) -> None:
        """Drop the clients of the remote `target`; they may come back."""
        for worker in self._workers:
            worker.reconnect(target)

    async def changed(self) -> None:
        """Tell all workers of the present configuration, and return when they serve by it."""
        configuration = self._configuration()
        for worker in self._workers:
            worker.configure(configuration)
        ready = [worker for worker in self._workers if worker.is_ready]
        # One that dies meanwhile is replaced by one that serves by it.
        await asyncio.gather(
            *(worker.run(CATCH_UP, []) for worker in ready), return_exceptions=True
        )

    async def run(self, name: str, *args: str) -> list[str]:
        """What each worker answers to the runtime command `name`. Raises CommandError."""
        ready = [worker for worker in self._workers if worker.is_ready]
        return list(await asyncio.gather(*(worker.run(name, list(args)) for worker in ready)))

    def shared(self, command: Command) -> Command:
        """`command`, given to the workers too; the answer is the main process's."""

        async def handle(args: list[str]) -> str:
            text = command.handler(args)
            if isinstance(text, Awaitable):
                text = await text
            await self.run(command.name, *args)
            return text

        return command._replace(handler=handle)

    async def close(self) -> None:
        """End all of them."""
        for keeper in self._keepers:
            keeper.cancel()
        for _, connection in self._unserved:
            connection.close()
        await asyncio.gather(*(worker.close() for worker in self._workers))
