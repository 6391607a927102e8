"""A server that is cut off from its engine alone, while others go on."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable

from engines import EtcdCluster, Postgres
from ovncp.log.contract.wire import Wire
from ovncp.log.location import Location
from servers import Server

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
