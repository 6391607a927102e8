"""Clients of every kind on servers that are killed again and again, for as long as one likes.

One writer for each database changes it at random, and knows every state that there was by its
number, which is in the database as well. Clients monitor parts of it in all versions, change their
conditions, stop reading for a while, vanish, and come back with ids that are known, old or made up.
After each update, what a client knows has to be what it wants to see of the state whose number it
sees; when all keep quiet, that has to be the latest.

    PYTHONPATH=tests python -m soak [--seconds N] [--seed N] [--clients N] [--workers N]
                                    [--relays N]
    PYTHONPATH=tests python -m soak [...] ENDPOINT...

An endpoint is `unix:PATH` or `tcp:HOST:PORT`, of a server that has the databases of
`values.schema`: of relays of one source, say, whose deaths are up to you. The first one is written
to. With none there is a server of our own, with workers and relays, which are killed like it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

from servers import Server
from soak.client import Client
from soak.run import Run
from soak.values import DATABASES, schema
from soak.writer import Writer

QUIET_SECONDS = 120.0  # for all clients to know the latest state
LIMITS = ("dumps=3", "session-backlog-bytes=1000000", "backlog-bytes=8000000")
COUNTERS = ("monitor_merged", "session_overflow", "backlog_overflow")
HISTORY = "--history-bytes=2000000"


async def soak(
    run: Run, n_clients: int, disturb: Callable[[Run], Awaitable[None]] | None = None
) -> None:
    """Have `n_clients` for each database until `run` is over; raises AssertionError."""
    writers = [Writer(run, name) for name in DATABASES]
    clients = [
        Client(run, writer, 1 + number % 3) for writer in writers for number in range(n_clients)
    ]
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.run())
        await asyncio.sleep(0.5)
        for client in clients:
            group.create_task(client.run())
        group.create_task(_keep_quiet(run, writers, clients))
        if disturb is not None:
            group.create_task(disturb(run))


async def _keep_quiet(run: Run, writers: list[Writer], clients: list[Client]) -> None:
    """Now and then see whether all clients know the latest state."""
    while not run.is_over:
        await asyncio.sleep(2 + 2 * run.draw.random())
        run.is_quiet = True
        for writer in writers:
            await writer.is_idle.wait()
        async with asyncio.timeout(QUIET_SECONDS):
            while not run.is_over and not all(client.is_up_to_date for client in clients):
                await asyncio.sleep(0.05)
        run.counts["quiet points"] += 1
        run.is_quiet = False


def kill(source: Server, relays: list[Server]) -> Callable[[Run], Awaitable[None]]:
    """Has servers and workers killed, or stopped, or databases compacted, from time to time."""

    async def disturb(run: Run) -> None:
        while not run.is_over:
            await asyncio.sleep(1 + 4 * run.draw.random())
            if run.draw.random() < COMPACTIONS:
                await asyncio.to_thread(source.appctl, "ovsdb-server/compact")
            else:
                await run.draw.choice(DEEDS)(run, run.draw.choice([source, *relays]))

    return disturb


async def _end(run: Run, server: Server) -> None:
    """A server ends, or is killed, and comes back."""
    await _count(run, server)
    await asyncio.to_thread(run.draw.choice([server.kill9, server.kill9, server.stop]))
    await asyncio.to_thread(server.start)
    run.counts["deaths of a server"] += 1


async def _end_worker(run: Run, server: Server) -> None:
    """A worker is killed, if there is one, and replaced."""
    workers = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    if workers:
        os.kill(int(run.draw.choice(workers)), signal.SIGKILL)
        run.counts["deaths of a worker"] += 1


DEEDS = (_end, _end_worker)
COMPACTIONS = 0.2


async def _count(run: Run, server: Server) -> None:
    """Add what has happened in the server's life."""
    for counter in COUNTERS:
        text = await asyncio.to_thread(server.appctl, "coverage/read-counter", counter)
        run.counts[counter] += int(text)


def soak_own(
    seconds: float, seed: int, n_clients: int, n_workers: int = 0, n_relays: int = 0
) -> Run:
    """A soak of servers of our own; what has happened."""
    options = [HISTORY, f"--workers={n_workers}", *(f"--limit={limit}" for limit in LIMITS)]
    databases = [(name, schema(name)) for name in DATABASES]
    with Server("ovncp", databases, options=options, patience=60) as source, ExitStack() as stack:
        specs = [f"relay:{name}:{source.remote}" for name in DATABASES]
        relays = [
            stack.enter_context(Server("ovncp", options=[*options, *specs], patience=60))
            for _ in range(n_relays)
        ]
        run = Run([server.remote for server in (source, *relays)], seed, seconds)
        asyncio.run(soak(run, n_clients, kill(source, relays)))
    return run


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Soak a server.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.getrandbits(32))
    parser.add_argument("--clients", type=int, default=15, help="for each database")
    parser.add_argument("--workers", type=int, default=2, help="of each of our own servers")
    parser.add_argument("--relays", type=int, default=1, help="of our own server")
    parser.add_argument("endpoints", nargs="*")
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.seconds:.0f} seconds", flush=True)
    if args.endpoints:
        run = Run(args.endpoints, args.seed, args.seconds)
        asyncio.run(soak(run, args.clients))
    else:
        run = soak_own(args.seconds, args.seed, args.clients, args.workers, args.relays)
    for what, number in sorted(run.counts.items()):
        print(f"{number:8} {what}")


if __name__ == "__main__":
    sys.exit(main())
