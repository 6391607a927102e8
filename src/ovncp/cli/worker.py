"""The process of a worker (`ovncp ovsdb-server --workers N`).

It is given the options of the main process, of which it heeds those for logging and storing.
"""

import os
import signal
import socket
from collections.abc import Sequence

from ovncp.cli import options, ovsdb_server
from ovncp.server import memory, runtime_commands, uuids, vlog
from ovncp.server.clock import Clock
from ovncp.server.command import Command
from ovncp.server.subject import Subject
from ovncp.server.vlog import Vlog
from ovncp.server.watch import Watch
from ovncp.server.worker import Worker
from ovncp.server.workers import CATCH_UP

_NAME = "ovsdb-worker"


def main(channel: int, connection: int, argv: Sequence[str]) -> int:
    """Serve clients until the main process, at the other ends of the descriptors, is gone."""
    with open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(_NAME)
    # They are for the main process, which ends us.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    log = vlog.install(ovsdb_server.PROGRAM)
    parsed = options.parse(argv, ovsdb_server.TABLE, log.hooks())
    settings = ovsdb_server.settings_of(parsed)
    return ovsdb_server.run_loop(_serve(settings, log, channel, connection))


async def _serve(settings: ovsdb_server.Settings, log: Vlog, channel: int, connection: int) -> int:
    worker = Worker(
        Clock(),
        uuids.make_source(os.urandom(32)),
        settings.storing,
        settings.limits,
        socket.socket(fileno=channel),
        connection,
    )
    watch = Watch(Subject(worker.server))
    worker.register([*log.commands(), *_commands(worker), *watch.commands()])
    ovsdb_server.collect_young_garbage()
    watch.start()
    await worker.ended.wait()
    await watch.close()
    await worker.close()
    return 0


def _commands(worker: Worker) -> list[Command]:
    async def show_memory(_: list[str]) -> str:
        return memory.show(await memory.usage(worker.server))

    async def catch_up(_: list[str]) -> str:
        await worker.server.caught_up()
        return ""

    return [
        Command(CATCH_UP, "", 0, 0, catch_up),
        Command("memory/show", "", 0, 0, show_memory),
        *runtime_commands.time_commands(worker.server.clock),
    ]
