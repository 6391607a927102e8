"""What the tests write and read: rows of the table T, by their keys."""

from __future__ import annotations

import time
from typing import Any

from servers import Client, Closed, Server

PATIENCE_S = 60.0
_UNKNOWN = "00000000-0000-0000-0000-000000000000"
_ALL = {"T": [{"columns": ["k", "v"]}]}


def put(client: Client, key: str, value: str) -> None:
    """Have the row `key` with `value`."""
    results = client.transact(
        "D",
        {"op": "delete", "table": "T", "where": [["k", "==", key]]},
        {"op": "insert", "table": "T", "row": {"k": key, "v": value}},
    )
    assert "error" not in results[-1], results


def rows(server: Server) -> dict[str, str]:
    """All of them, as `server` has them now."""
    [result] = server.client().transact("D", {"op": "select", "table": "T", "where": []})
    return {row["k"]: row["v"] for row in result["rows"]}


def resume(server: Server, transaction_id: str = _UNKNOWN) -> tuple[bool, str, Any]:
    """What a client is told that comes with what it knows; see ovsdb-server(7), 4.1.15."""
    reply = server.client().request("monitor_cond_since", ["D", "m", _ALL, transaction_id])
    found, last, updates = reply["result"]
    return found, last, updates


def wait_until_seen(server: Server, key: str, value: str) -> None:
    """Return when `server` shows the row `key` with `value`."""
    deadline = time.monotonic() + PATIENCE_S
    while not _shows(server, key, value):
        assert time.monotonic() < deadline, f"{key}={value} does not get there"
        time.sleep(0.02)


def _shows(server: Server, key: str, value: str) -> bool:
    try:
        return rows(server).get(key) == value
    except Closed:
        return False  # As when a server begins again from the snapshot.


def counter(server: Server, name: str) -> int:
    """How often something happened in `server`."""
    return int(server.appctl("coverage/read-counter", name))
