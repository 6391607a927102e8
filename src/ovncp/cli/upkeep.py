"""The process that does the upkeep of a log for a server (`server/upkeep_process.py`)."""

import asyncio
import os
import sys

import uvloop

from ovncp.server.upkeep_process import obey

_NAME = "ovsdb-upkeep"
_NICENESS = 10


def main() -> int:
    """Do what the standard input orders, and say on the standard output what came of it."""
    with open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(_NAME)
    # The server that shares the processors comes first.
    os.nice(_NICENESS)
    uvloop.install()
    sys.stdout.buffer.write(asyncio.run(_obey(sys.stdin.buffer.readline())))
    return 0


async def _obey(line: bytes) -> bytes:
    # Nothing else comes in but the end, with which the server's right to do this may end too.
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: os._exit(1))
    return await obey(line)
