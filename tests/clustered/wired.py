"""A server that is cut off from its engine alone, while others go on."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

from clustered.rows import PATIENCE_S, rows
from engines import EtcdCluster, Postgres
from ovncp.log.contract.wire import Wire
from ovncp.log.location import Location
from servers import Client, Server

TIMEOUT_MS = 2000


class Wired:
    """A server whose connections to its engine go over a wire that the test may harm."""

    def __init__(self, engine: EtcdCluster | Postgres, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        place = Location.parse(url)
        self._wire = Wire(place.hosts)
        hosts = asyncio.run_coroutine_threadsafe(self._wire.start(), self._loop).result()
        self.server = Server("ovncp", options=[dataclasses.replace(place, hosts=hosts).url()])

    def do(self, what: Callable[[Wire], None]) -> None:
        """Harm the wire, or mend it."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (what(self._wire), done.set()))
        done.wait()

    def close(self) -> None:
        self.do(Wire.mend)
        self.server.close()
        asyncio.run_coroutine_threadsafe(self._wire.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def shown(server: Server) -> dict[str, Any]:
    """The database's row of `_Server`."""
    where = [["name", "==", "D"]]
    [result] = server.client().transact(
        "_Server", {"op": "select", "table": "Database", "where": where}
    )
    row: dict[str, Any] = result["rows"][0]
    return row


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def wait_for_connected(server: Server, is_connected: bool) -> None:
    wait_until(lambda: shown(server)["connected"] is is_connected, f"connected: {is_connected}")


def insert_unanswered(wired: tuple[Wired, Server], client: Client) -> tuple[str, Any]:
    """Have a row stored by the first server, whose client's answer is lost: its key, and the id.

    What else is under way at that moment may be waited for in vain; then it is tried again.
    """
    cut_off, other = wired
    for number in range(20):
        wait_for_connected(cut_off.server, True)
        cut_off.do(Wire.mute)
        key = f"b{number}"
        id = client.start("transact", ["D", {"op": "insert", "table": "T", "row": {"k": key}}])
        deadline = time.monotonic() + 3 * TIMEOUT_MS / 1000
        while time.monotonic() < deadline:
            if key in rows(other):
                return key, id
            time.sleep(0.05)
        cut_off.do(Wire.cut)
        cut_off.do(Wire.mend)
        client.reply(id)
    raise AssertionError("nothing is stored while the answers are lost")
