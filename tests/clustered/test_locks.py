"""Locks hold over all servers of a cluster (RFC 7047 section 4.1.8)."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import time
from itertools import pairwise
from typing import Any

from clustered.conftest import SCHEMA, Start, on_every_etcd
from clustered.rows import PATIENCE_S, put, rows
from engines import EtcdCluster, Postgres
from ovncp.log.registry import engine as engine_of
from servers import Client, Server

N_LOCKS = 25
ASSERT = {"op": "assert", "lock": "l"}


def lock(client: Client, method: str = "lock") -> bool:
    reply = client.request(method, ["l"])
    assert reply["error"] is None
    is_owner: bool = reply["result"]["locked"]
    return is_owner


def own(client: Client, method: str = "lock") -> None:
    """Have the lock, which is this client's for the asking.

    A server that gets no word from the engine within a second answers that the client has to wait.
    """
    if not lock(client, method):
        assert told(client) == "locked"


def told(client: Client) -> str:
    """The next "locked" or "stolen"."""
    message = client.notification(PATIENCE_S)
    assert message["params"] == ["l"]
    method: str = message["method"]
    return method


def assert_and_insert(client: Client, key: str) -> Any:
    row = {"op": "insert", "table": "T", "row": {"k": key}}
    return client.transact("D", ASSERT, row)[0]


@on_every_etcd
def test_a_lock_has_one_owner_over_all_servers(start: Start) -> None:
    clients = [server.client() for server in start(3)]
    own(clients[0])
    assert [lock(client) for client in clients[1:]] == [False, False]
    assert assert_and_insert(clients[0], "mine") == {}
    assert assert_and_insert(clients[1], "not mine")["error"] == "not owner"
    clients[0].request("unlock", ["l"])
    deadline = time.monotonic() + PATIENCE_S
    while not (heirs := [client for client in clients[1:] if client.notifications]):
        assert time.monotonic() < deadline, "nobody gets the lock"
        for client in clients[1:]:
            client.receive(0.05)
    [heir] = heirs
    assert told(heir) == "locked"
    assert assert_and_insert(heir, "inherited") == {}


def test_a_lock_is_stolen_from_another_servers_client(start: Start) -> None:
    owner, thief = (server.client() for server in start(2))
    own(owner)
    own(thief, "steal")
    assert told(owner) == "stolen"
    assert assert_and_insert(owner, "too late")["error"] == "not owner"
    assert assert_and_insert(thief, "mine") == {}
    thief.request("unlock", ["l"])
    assert told(owner) == "locked"


def test_a_thief_is_not_robbed_by_those_who_wait(start: Start) -> None:
    owner, waiter, thief = (server.client() for server in start(3))
    own(owner)
    assert not lock(waiter)
    own(thief, "steal")
    assert told(owner) == "stolen"
    for number in range(5):
        assert assert_and_insert(thief, f"mine {number}") == {}
    for client in (owner, waiter, thief):
        client.sync()
        assert client.notifications == []


def test_a_lock_goes_to_those_who_wait_in_the_order_of_their_coming(start: Start) -> None:
    one, other, third = start(3)
    # More than one of a server, who do not follow on each other.
    clients = [server.client() for server in (one, other, one, third, other, one)]
    own(clients[0])
    assert [lock(client) for client in clients[1:]] == 5 * [False]
    # Who waits no more is in nobody's way.
    for leaving in (clients.pop(2), clients.pop(3)):
        leaving.request("unlock", ["l"])
    # The owner is told again that it is that, as by the C server.
    clients[0].sync()
    clients[0].notifications.clear()
    for owner, heir in pairwise(clients):
        owner.request("unlock", ["l"])
        assert told(heir) == "locked"
        for client in clients:
            client.sync()
            assert client.notifications == []


def wait_for_owners(clients: list[Client], names: list[str]) -> None:
    """Have all clients lock all these at once, and return when each lock has an owner."""
    asked = [(client, name, client.start("lock", [name])) for name in names for client in clients]
    owned = {name for client, name, id in asked if client.reply(id)["result"]["locked"]}
    deadline = time.monotonic() + PATIENCE_S
    while missing := set(names) - owned:
        assert time.monotonic() < deadline, f"nobody has {missing}"
        for client in clients:
            client.receive(0.05)
            owned |= {m["params"][0] for m in client.notifications if m["method"] == "locked"}


def test_one_of_those_who_come_at_once_gets_the_lock(start: Start) -> None:
    one, other = start(2)
    clients = [server.client() for server in (one, one, other)]
    wait_for_owners(clients, [f"l{number}" for number in range(N_LOCKS)])


def test_so_it_is_with_servers_of_two_logs(engine: EtcdCluster | Postgres) -> None:
    urls = []
    for name in ("D", "E"):
        urls.append(engine.url(secrets.token_hex(4)))
        schema = json.dumps(SCHEMA | {"name": name}).encode()
        asyncio.run(engine_of(urls[-1]).create(urls[-1], schema))
    with Server("ovncp", options=urls) as one, Server("ovncp", options=urls) as other:
        clients = [server.client() for server in (one, one, other)]
        wait_for_owners(clients, [f"l{number}" for number in range(N_LOCKS)])


def test_who_was_robbed_is_the_first_to_get_the_lock_back(start: Start) -> None:
    one, other = start(2)
    owner, waiter, thief, local_thief = (s.client() for s in (one, other, other, one))
    own(owner)
    assert not lock(waiter)
    for robber in (thief, local_thief):
        own(robber, "steal")
        assert told(owner) == "stolen"
        robber.request("unlock", ["l"])
        assert told(owner) == "locked"
    waiter.sync()
    assert waiter.notifications == []
    owner.request("unlock", ["l"])
    assert told(waiter) == "locked"


def test_a_theft_that_is_over_at_once_leaves_the_lock_to_somebody(start: Start) -> None:
    """Who waits at the owner's server may get the lease before the owner's is found to be gone."""
    one, other = start(2)
    owner, waiter, thief = one.client(), one.client(), other.client()
    own(owner)
    assert not lock(waiter)
    for _ in range(20):
        ids = [thief.start(method, ["l"]) for method in ("steal", "unlock")]
        for id in ids:
            thief.reply(id)
        thief.notifications.clear()
        owner.sync()
        while owner.notifications:
            heard = told(owner)
            if heard == "stolen":
                assert told(owner) == "locked"
    assert waiter.notifications == []


def test_who_waits_behind_one_robbed_twice_leaves_no_place_behind(start: Start) -> None:
    one, other = start(2)
    owner, local_thief, leaving, last = (one.client() for _ in range(4))
    waiter, thief = (other.client() for _ in range(2))
    own(owner)
    assert [lock(client) for client in (leaving, waiter, last)] == 3 * [False]
    own(local_thief, "steal")
    assert told(owner) == "stolen"
    own(thief, "steal")
    assert told(local_thief) == "stolen"
    leaving.request("unlock", ["l"])
    thief.request("unlock", ["l"])
    # The owner may be told again that it is that, as by the C server.
    while told(owner) != "locked":
        pass
    owner.request("unlock", ["l"])
    assert told(waiter) == "locked"
    last.sync()
    assert last.notifications == []
    waiter.request("unlock", ["l"])
    assert told(last) == "locked"


@on_every_etcd
def test_the_lock_of_a_server_that_dies_is_taken_over(start: Start) -> None:
    one, other = start(2)
    owner, heir = one.client(), other.client()
    own(owner)
    assert not lock(heir)
    os.kill(one.pid, signal.SIGKILL)
    assert told(heir) == "locked"
    assert assert_and_insert(heir, "mine") == {}


def test_the_lock_of_a_server_that_stops_is_taken_over_at_once(start: Start) -> None:
    one, other = start(2)
    own(one.client())
    heir = other.client()
    assert not lock(heir)
    one.stop()
    assert told(heir) == "locked"


@on_every_etcd
def test_a_server_that_was_asleep_does_not_write_for_a_former_owner(start: Start) -> None:
    one, other = start(2)
    owner, heir = one.client(timeout=PATIENCE_S), other.client()
    own(owner)
    assert not lock(heir)
    os.kill(one.pid, signal.SIGSTOP)
    # Waits in the socket, and is the first that the server finds when it wakes.
    row = {"op": "insert", "table": "T", "row": {"k": "late"}}
    id = owner.start("transact", ["D", ASSERT, row])
    assert told(heir) == "locked"
    put(heir, "k", "v")
    os.kill(one.pid, signal.SIGCONT)
    assert owner.reply(id)["result"][0]["error"] == "not owner"
    assert rows(other) == {"k": "v"}
