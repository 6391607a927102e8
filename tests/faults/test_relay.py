"""Relays whose sources die, come back, move and change (ovsdb(7), "Relay Service Model")."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from faults.schemas import NAMES, insert, names, select
from interop.programs import wait_for
from servers import Client, Closed, Server, Timeout, relay_of

ZERO = "00000000-0000-0000-0000-000000000000"
PATIENCE_MSEC = 30_000


class Setting:
    """A source, and the relays that a test starts behind it."""

    def __init__(self, stack: ExitStack, kind: str) -> None:
        self.stack = stack
        self.kind = kind
        self.source = self.another_source()

    def another_source(self, kind: str | None = None) -> Server:
        return self.stack.enter_context(Server(kind or self.kind, [("names", NAMES)]))

    def relay(self, *sources: Server, kind: str | None = None) -> Server:
        sources = sources or (self.source,)
        relay = relay_of(kind or self.kind, *sources, databases=["Names"])
        return self.stack.enter_context(relay)


@pytest.fixture
def setting(ours: str) -> Iterator[Setting]:
    with ExitStack() as stack:
        yield Setting(stack, ours)


def aware(server: Server) -> Client:
    """A client that is not disconnected when databases come, go or change."""
    client = server.client()
    client.request("set_db_change_aware", [True])
    return client


def monitor(client: Client, last_id: str = ZERO) -> list[Any]:
    """What the answer to "monitor_cond_since" is."""
    requests = {"Name": [{"columns": ["name"]}]}
    result: list[Any] = client.request("monitor_cond_since", ["Names", "m", requests, last_id])[
        "result"
    ]
    return result


def next_update(client: Client, timeout: float | None = None) -> tuple[str, dict[str, Any]]:
    """The id of the next "update3", and the names in it by kind of change."""
    message = client.notification(timeout)
    assert message["method"] == "update3", message
    _, last_id, tables = message["params"]
    return last_id, kinds(tables)


def kinds(tables: dict[str, Any]) -> dict[str, Any]:
    changes = {}
    for row in tables.get("Name", {}).values():
        ((kind, columns),) = row.items()
        changes.setdefault(kind, []).append(columns and columns.get("name"))
    return {kind: sorted(changed, key=str) for kind, changed in changes.items()}


def shown(client: Client) -> dict[str, Any]:
    """How `_Server` shows the database."""
    where = [["name", "==", "Names"]]
    columns = ["model", "connected", "leader"]
    operation = {"op": "select", "table": "Database", "where": where, "columns": columns}
    (result,) = client.transact("_Server", operation)
    return result["rows"][0]


def n_full_dumps(relay: Server) -> int:
    """How often the relay had to be told everything."""
    for line in relay.appctl("coverage/show").splitlines():
        if line.startswith("relay_full_dump"):
            return int(line.split()[-1])
    return 0


def test_a_source_that_comes_back_tells_only_what_changed(setting: Setting) -> None:
    relay = setting.relay()
    client = aware(relay)
    client.transact("Names", insert("before"))
    monitor(client)
    setting.source.kill9()
    assert names(client) == {"before"}
    setting.source.restart()
    setting.source.client().transact("Names", insert("after"))
    assert next_update(client)[1] == {"insert": ["after"]}
    assert n_full_dumps(relay) == 1
    client.transact("Names", insert("through the relay"))
    assert next_update(client)[1] == {"insert": ["through the relay"]}


def test_clients_of_a_relay_see_the_difference_when_the_source_has_no_history(
    setting: Setting,
) -> None:
    source = setting.another_source("c")
    relay = setting.relay(source)
    client = aware(relay)
    client.transact("Names", insert("stays"), insert("goes"))
    monitor(client)
    source.kill9()
    source.start()
    there = source.client()
    there.transact("Names", {"op": "delete", "table": "Name", "where": [["name", "==", "goes"]]})
    there.transact("Names", insert("comes"))
    seen = dict(next_update(client)[1])
    while not {"insert", "delete"} <= seen.keys():
        seen |= next_update(client)[1]
    assert seen == {"insert": ["comes"], "delete": [None]}


def test_clients_are_told_in_time_that_the_source_is_lost(setting: Setting) -> None:
    relay = setting.relay()
    client = aware(relay)
    assert shown(client) == {"model": "relay", "connected": True, "leader": False}
    setting.source.kill9()
    relay.appctl("time/warp", str(PATIENCE_MSEC // 2))
    assert shown(client)["connected"] is True
    relay.appctl("time/warp", str(PATIENCE_MSEC))
    wait_for(lambda: shown(client)["connected"] is False, "the relay to give up the source")
    setting.source.restart()
    relay.appctl("time/warp", str(PATIENCE_MSEC))
    wait_for(lambda: shown(client)["connected"] is True, "the relay to find the source")


def test_a_relay_goes_on_at_its_second_remote(setting: Setting) -> None:
    one, other = setting.relay(), setting.relay()
    relay = setting.relay(one, other)
    client = aware(relay)
    client.transact("Names", insert("before"))
    monitor(client)
    for gone, left in ((one, other), (other, one)):
        gone.kill9()
        client.sync()  # The relay has noticed by then; what it had sent before would be canceled.
        client.transact("Names", insert(f"without {gone.directory}"))
        assert next_update(client)[1] == {"insert": [f"without {gone.directory}"]}
        gone.restart()
        wait_for(lambda left=left: shown(aware(left))["connected"], "the relay between")
    assert n_full_dumps(relay) == 1


def test_a_client_resumes_anywhere(setting: Setting) -> None:
    one, other = setting.relay(), setting.relay()
    behind = setting.relay(other)
    with aware(one) as client:
        monitor(client)
        client.transact("Names", insert("seen"))
        known_id, _ = next_update(client)
    setting.source.client().transact("Names", insert("not seen"))
    for server in (setting.source, one, other, behind):
        there = server.client()
        wait_for(lambda there=there: names(there) == {"seen", "not seen"}, "both names")
        found, last_id, tables = monitor(there, known_id)
        assert (found, kinds(tables)) == (True, {"insert": ["not seen"]})
        assert last_id != known_id
        assert monitor(server.client(), last_id)[::2] == [True, {}]


def test_what_was_under_way_is_canceled_and_what_was_not_sent_waits(setting: Setting) -> None:
    relay = setting.relay()
    client = aware(relay)
    never = {"op": "wait", "table": "Name", "where": [], "columns": ["name"], "until": "==",
             "rows": [{"name": "never"}]}  # fmt: skip
    under_way = client.start("transact", ["Names", insert("x"), never])
    there = setting.source
    wait_for(lambda: "triggers:1" in there.appctl("memory/show"), "the transaction at the source")
    with pytest.raises(Timeout):
        client.reply(under_way, 0.3)
    setting.source.kill9()
    assert client.reply(under_way)["error"] == "canceled"
    waiting = client.start("transact", ["Names", insert("later")])
    canceled = client.start("transact", ["Names", insert("canceled")])
    client.notify("cancel", [canceled])
    assert client.reply(canceled)["error"] == "canceled"
    with pytest.raises(Timeout):
        client.reply(waiting, 0.3)
    setting.source.restart()
    assert client.reply(waiting)["error"] is None
    assert names(setting.source.client()) == {"later"}


def test_a_waiting_transaction_is_canceled_at_the_source(setting: Setting) -> None:
    relay = setting.relay()
    client = aware(relay)
    wait = {"op": "wait", "table": "Name", "where": [], "columns": ["name"], "until": "==",
            "rows": [{"name": "go"}]}  # fmt: skip
    canceled = client.start("transact", ["Names", wait, insert("canceled")])
    with aware(relay) as other:
        other.start("transact", ["Names", wait, insert("of one that leaves")])
        other.sync()
    going = client.start("transact", ["Names", wait, insert("went")])
    there = setting.source
    # That of the one that leaves is not waited for any more.
    wait_for(lambda: "triggers:2" in there.appctl("memory/show"), "both at the source")
    with pytest.raises(Timeout):
        client.reply(going, 0.3)
    client.notify("cancel", [canceled])
    assert client.reply(canceled)["error"] == "canceled"
    wait_for(lambda: "triggers:1" in there.appctl("memory/show"), "the other at the source")
    setting.source.client().transact("Names", insert("go"))
    assert client.reply(going)["error"] is None
    assert names(client) == {"go", "went"}


def test_a_lock_moves_from_relay_to_relay(setting: Setting) -> None:
    one, other = setting.relay().client(), setting.relay().client()
    assert one.request("lock", ["l"])["result"] == {"locked": True}
    assert other.request("lock", ["l"])["result"] == {"locked": False}
    guarded = ["Names", {"op": "assert", "lock": "l"}, insert("a")]
    assert other.request("transact", guarded)["result"][0]["error"] == "not owner"
    assert one.request("transact", guarded)["result"][0] == {}
    one.request("unlock", ["l"])
    assert other.notification()["method"] == "locked"
    guarded[2] = insert("b")
    assert one.request("transact", guarded)["result"][0]["error"] == "not owner"
    assert other.request("transact", guarded)["result"][0] == {}


def test_clients_of_other_relays_get_their_turn(setting: Setting) -> None:
    here = setting.relay()
    first, second, elsewhere = here.client(), here.client(), setting.relay().client()
    assert first.request("lock", ["l"])["result"] == {"locked": True}
    assert elsewhere.request("lock", ["l"])["result"] == {"locked": False}
    assert second.request("lock", ["l"])["result"] == {"locked": False}
    first.close()
    assert elsewhere.notification()["method"] == "locked"
    elsewhere.request("unlock", ["l"])
    assert second.notification()["method"] == "locked"


def test_a_lock_is_stolen_across_relays(setting: Setting) -> None:
    one, other = setting.relay().client(), setting.relay().client()
    assert one.request("lock", ["l"])["result"] == {"locked": True}
    assert other.request("steal", ["l"])["result"] == {"locked": True}
    assert one.notification()["method"] == "stolen"
    guarded = ["Names", {"op": "assert", "lock": "l"}, insert("a")]
    assert one.request("transact", guarded)["result"][0]["error"] == "not owner"
    other.request("unlock", ["l"])
    assert one.notification()["method"] == "locked"


def test_a_lock_is_lost_with_the_source_and_comes_back_with_it(setting: Setting) -> None:
    client = aware(setting.relay())
    assert client.request("lock", ["l"])["result"] == {"locked": True}
    setting.source.kill9()
    assert client.notification()["method"] == "stolen"
    assert client.request("lock", ["other"])["result"] == {"locked": False}
    setting.source.restart()
    given = {tuple(client.notification()["params"]) for _ in range(2)}
    assert given == {("l",), ("other",)}


def test_a_conversion_at_the_source_reaches_the_clients(setting: Setting) -> None:
    behind = setting.relay(setting.relay())
    one_that_knows, other = aware(behind), behind.client()
    one_that_knows.transact("Names", insert("kept"))
    monitor(one_that_knows)
    newer = json.loads(json.dumps(NAMES))
    newer["version"] = "1.1.0"
    newer["tables"]["Name"]["columns"]["number"] = {"type": "integer"}
    assert setting.source.client().request("convert", ["Names", newer])["error"] is None
    assert one_that_knows.notification()["method"] == "monitor_canceled"
    with pytest.raises(Closed):
        other.wait_until(lambda: False, "the end")
    assert one_that_knows.request("get_schema", ["Names"])["result"]["version"] == "1.1.0"
    (result,) = one_that_knows.transact("Names", select() | {"columns": ["name", "number"]})
    assert result["rows"] == [{"name": "kept", "number": 0}]
    one_that_knows.transact("Names", insert("new"))


def test_a_relay_refuses_to_be_converted(setting: Setting) -> None:
    error = setting.relay().client().request("convert", ["Names", NAMES])["error"]
    assert error["error"] == "not allowed"
