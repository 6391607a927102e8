"""The process that does the upkeep of a log for a server: what it is told, and what it answers.

It needs as much memory as a server of the database, and a processor for a while; as a process of
its own it holds nobody up, and all of that is given back. One line of JSON goes in, with the
location of the log in it, which may hold a password; one comes out. It ends when its standard input
does: with the server.
"""

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import orjson

from ovncp.log.base import LogError
from ovncp.log.engine import EngineLog
from ovncp.log.registry import open_log
from ovncp.log.retention import Retention
from ovncp.ovsdb.database import Settings
from ovncp.ovsdb.errors import OvsdbError
from ovncp.server import uuids
from ovncp.server.clock import Clock
from ovncp.server.log_upkeep import Shortened, shorten


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done: see `log_upkeep.shorten`."""

    location: str
    retention: Retention
    settings: Settings

    def encode(self) -> bytes:
        """The line for the process."""
        return orjson.dumps({**asdict(self), "settings": self.settings._asdict()}) + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> "Order":
        """What `encode` made a line of."""
        json = orjson.loads(line)
        return cls(json["location"], Retention(**json["retention"]), Settings(**json["settings"]))


async def obey(line: bytes) -> bytes:
    """Do in this process what `line` orders; the line to answer."""
    order = Order.decode(line)
    try:
        return orjson.dumps({"result": (await _shorten(order))._asdict()}) + b"\n"
    except (LogError, OvsdbError) as error:
        return orjson.dumps({"error": str(error)}) + b"\n"


async def _shorten(order: Order) -> Shortened:
    log = await open_log(order.location)
    assert isinstance(log, EngineLog), "only engines are shared"
    try:
        new_uuid = uuids.make_source(os.urandom(32))
        now = Clock().wall_msec()
        return await shorten(log, order.retention, order.settings, new_uuid, now)
    finally:
        await log.close()


async def run(command: Sequence[str], order: Order) -> Shortened:
    """What a process of `command` makes of `order`; it is killed when this is cancelled.

    Raises LogError.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    try:
        return _result(await _ask(process, order), await process.wait())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _ask(process: Process, order: Order) -> bytes:
    assert process.stdin is not None and process.stdout is not None
    # It may have ended already, as its status tells; writing to it would be another error.
    if not process.stdin.is_closing():
        process.stdin.write(order.encode())
    return await process.stdout.readline()


def _result(line: bytes, status: int) -> Shortened:
    if not line:
        raise LogError(f"upkeep of the log failed: the process ended with status {status}")
    json = orjson.loads(line)
    if "error" in json:
        raise LogError(f"upkeep of the log failed: {json['error']}")
    return Shortened(**json["result"])
