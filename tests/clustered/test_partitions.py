"""A server that is cut off from its engine: reads go on, writes are refused, and it comes back."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from clustered.conftest import create, on_every_etcd
from clustered.rows import PATIENCE_S, counter, put, resume, rows, wait_until_seen
from clustered.wired import (
    TIMEOUT_MS,
    Wired,
    insert_unanswered,
    shown,
    wait_for_connected,
)
from engines import EtcdCluster, Postgres
from ovncp.log.contract.wire import Wire
from servers import Client, Server

UNKNOWN = "00000000-0000-0000-0000-000000000000"


class Cut:
    """Two servers over an engine that the test may harm: `cut` stops it, `heal` lets it go on."""

    def __init__(self, engine: EtcdCluster | Postgres) -> None:
        self.engine = engine
        name = secrets.token_hex(4)
        create(engine.url(database=name))
        url = engine.url(database=name, timeout_ms=TIMEOUT_MS)
        self.servers = [Server("ovncp", options=[url]) for _ in range(2)]

    def close(self) -> None:
        self.heal()
        for server in self.servers:
            server.close()

    def _signal(self, number: signal.Signals) -> None:
        if isinstance(self.engine, EtcdCluster):
            for member in (0, 1, 2):
                self.engine.signal(member, number)
        else:
            self.engine.signal_all(number)

    def cut(self) -> None:
        self._signal(signal.SIGSTOP)

    def heal(self) -> None:
        self._signal(signal.SIGCONT)


@pytest.fixture(params=[EtcdCluster, Postgres])
def cut(request: pytest.FixtureRequest) -> Iterator[Cut]:
    with request.param() as engine:
        cut = Cut(engine)
        yield cut
        cut.close()


def insert(client: Client, key: str) -> Any:
    return client.transact("D", {"op": "insert", "table": "T", "row": {"k": key}})[-1]


def test_reads_go_on_and_writes_are_refused_until_the_engine_is_back(cut: Cut) -> None:
    one, other = cut.servers
    put(one.client(), "a", "1")
    wait_until_seen(other, "a", "1")
    cut.cut()
    for server in cut.servers:
        wait_for_connected(server, False)
        assert shown(server)["leader"] is False
        assert rows(server) == {"a": "1"}
        refused = insert(server.client(timeout=PATIENCE_S), "b")
        assert refused["error"] == "cluster error"
        assert rows(server) == {"a": "1"}
    cut.heal()
    for server in cut.servers:
        wait_for_connected(server, True)
        assert shown(server)["leader"] is True
    put(one.client(), "c", "3")
    wait_until_seen(other, "c", "3")
    # What was refused is not there, and never will be.
    assert rows(one) == rows(other) == {"a": "1", "c": "3"}


def test_a_write_under_way_is_done_once_or_refused(cut: Cut) -> None:
    one, other = cut.servers
    client = one.client(timeout=60)
    put(client, "a", "1")
    cut.cut()
    ids = {
        key: client.start("transact", ["D", {"op": "insert", "table": "T", "row": {"k": key}}])
        for key in map(str, range(50))
    }
    wait_for_connected(one, False)
    assert rows(one) == {"a": "1"}
    cut.heal()
    done = {key for key, id in ids.items() if "error" not in client.reply(id)["result"][-1]}
    for server in cut.servers:
        wait_for_connected(server, True)
    assert set(rows(one)) == {"a", *done}
    assert rows(one) == rows(other)


def test_what_is_known_to_be_cut_off_is_refused_at_once(cut: Cut) -> None:
    one, _ = cut.servers
    put(one.client(), "a", "1")
    cut.cut()
    wait_for_connected(one, False)
    before = counter(one, "log_append")
    for number in range(20):
        assert insert(one.client(), str(number))["error"] == "cluster error"
    assert counter(one, "log_append") == before


def test_a_client_is_told_of_the_cut(cut: Cut) -> None:
    one, _ = cut.servers
    client = one.client()
    request = {"Database": [{"columns": ["name", "connected"], "where": [["name", "==", "D"]]}]}
    first = client.request("monitor_cond", ["_Server", "m", request])
    [row] = first["result"]["Database"].values()
    assert row["initial"]["connected"] is True
    cut.cut()
    assert _connected(client.notification(PATIENCE_S)) is False
    cut.heal()
    assert _connected(client.notification(PATIENCE_S)) is True


def _connected(message: dict[str, Any]) -> Any:
    [row] = message["params"][1]["Database"].values()
    return row["modify"]["connected"]


EVERYTHING = {"op": "select", "table": "T", "where": []}


def test_what_is_asked_at_the_cut_is_answered_after_that_is_told(cut: Cut) -> None:
    one, _ = cut.servers
    put(one.client(), "a", "1")
    client = one.client(timeout=60)
    wanted = {"Database": [{"columns": ["name", "connected"], "where": [["name", "==", "D"]]}]}
    client.request("monitor_cond", ["_Server", "m", wanted])
    cut.cut()
    read = client.start("transact", ["D", EVERYTHING])
    begun = client.start("monitor_cond_since", ["D", "n", {"T": [{"columns": ["k"]}]}, UNKNOWN])
    assert [row["k"] for row in client.reply(read)["result"][0]["rows"]] == ["a"]
    found, _, updates = client.reply(begun)["result"]
    assert not found
    assert [row["initial"]["k"] for row in updates["T"].values()] == ["a"]
    assert [_connected(message) for message in client.notifications] == [False]
    assert [message.get("id") for message in client.log[-3:]] == [None, read, begun]


def test_who_was_answered_by_a_server_that_was_cut_off_can_find_that_out(cut: Cut) -> None:
    """Also one that asks afterwards, when the server is connected again already."""
    one, _ = cut.servers
    client = one.client(timeout=60)
    put(client, "a", "1")
    deadline = time.monotonic() + PATIENCE_S
    # On a busy machine, the test itself may come too late.
    while time.monotonic() < deadline:
        wait_for_connected(one, True)
        cut.cut()
        client.transact("D", EVERYTHING)
        answered = time.monotonic()
        cut.heal()
        time.sleep(0.5)
        is_connected = shown(one)["connected"]
        if time.monotonic() < answered + 0.8:
            assert not is_connected
            return
    pytest.fail("the machine is too slow for this")


def test_a_client_is_told_when_the_outcome_cannot_be_found_out(wired: tuple[Wired, Server]) -> None:
    cut_off, other = wired
    client = cut_off.server.client(timeout=60)
    put(client, "a", "1")
    key, id = insert_unanswered(wired, client)
    cut_off.do(Wire.cut)
    wait_for_connected(cut_off.server, False)
    # What tells whose the row was goes.
    assert other.appctl("ovsdb-server/compact", "D") == ""
    cut_off.do(Wire.mend)
    results = client.reply(id)["result"]
    assert results[-1]["error"] == "outcome unknown"
    wait_for_connected(cut_off.server, True)
    assert rows(cut_off.server) == rows(other)
    assert {"a", key} <= rows(other).keys()


@on_every_etcd
def test_an_answer_that_is_lost_is_found_out(wired: tuple[Wired, Server]) -> None:
    cut_off, other = wired
    client = cut_off.server.client(timeout=60)
    put(client, "a", "1")
    key, id = insert_unanswered(wired, client)
    cut_off.do(Wire.cut)
    wait_for_connected(cut_off.server, False)
    cut_off.do(Wire.mend)
    [result] = client.reply(id)["result"]
    assert "uuid" in result
    assert rows(cut_off.server) == rows(other)
    assert {"a", key} <= rows(other).keys()


def test_a_client_that_has_seen_more_is_not_taken_back(wired: tuple[Wired, Server]) -> None:
    cut_off, other = wired
    put(cut_off.server.client(), "a", "1")
    _, known_here, _ = resume(cut_off.server)
    cut_off.do(Wire.cut)
    wait_for_connected(cut_off.server, False)
    put(other.client(), "b", "2")
    _, known, _ = resume(other)
    client = cut_off.server.client(timeout=60)
    params = ["D", "m", {"T": [{"columns": ["k"]}]}]
    id = client.start("monitor_cond_since", [*params, known])
    # Who has seen no more than what is here is answered.
    assert resume(cut_off.server, known_here) == (True, known_here, {})
    found, _, updates = resume(cut_off.server)
    assert not found
    assert [row["initial"]["k"] for row in updates["T"].values()] == ["a"]
    assert all(message.get("id") != id for message in client.log)
    cut_off.do(Wire.mend)
    assert client.reply(id)["result"] == [True, known, {}]
