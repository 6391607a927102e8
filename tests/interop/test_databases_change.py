"""What clients are told when databases come, go and change: just what the C server tells them."""

from __future__ import annotations

from typing import Any

import pytest

from interop.programs import KIND
from servers import Closed, Server

TABLES = {"T": {"columns": {"i": {"type": "integer"}}}}
ONE = {"name": "one", "version": "1.0.0", "tables": TABLES}
TWO = {"name": "two", "version": "1.0.0", "tables": TABLES}
NEWER = ONE | {"version": "2.0.0"}

MONITOR = ["_Server", "m", {"Database": {"columns": ["name"]}}]
MONITOR_ONE = ["one", "n", {"T": {}}]


def told(kind: str, change: str, is_aware: bool) -> list[Any]:
    """What a client hears during `change`; one that is not aware is disconnected then."""
    with Server(kind, [("one", ONE)]) as server:
        two = server.create("two", TWO)
        client = server.client()
        client.request("set_db_change_aware", [is_aware])
        client.request("monitor", MONITOR)
        client.request("monitor", MONITOR_ONE)
        if change == "convert":
            server.client().request("convert", ["one", NEWER])
        else:
            server.appctl(*change.format(two=two).split())
        if is_aware:
            # Another server has to see the conversion first.
            client.sync("one" if change == "convert" else None)
        else:
            with pytest.raises(Closed):
                client.wait_until(lambda: False, "end of the connection")
        return [(message["method"], shape(message["params"])) for message in client.notifications]


def shape(params: list[Any]) -> list[Any]:
    """The parameters of a notification with no uuid in them."""
    if len(params) < 2:
        return params
    return [params[0], [sorted(rows.values(), key=str) for rows in params[1].values()]]


@pytest.mark.parametrize("is_aware", [False, True], ids=["unaware", "aware"])
@pytest.mark.parametrize(
    "change",
    ["ovsdb-server/add-db {two}", "ovsdb-server/remove-db one", "convert"],
)
def test_clients_hear_of_it_as_from_the_c_server(change: str, is_aware: bool) -> None:
    assert told(KIND, change, is_aware) == told("c", change, is_aware)
