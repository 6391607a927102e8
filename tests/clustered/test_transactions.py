"""Several servers behave as one: what is written at any of them, and seen at any of them."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from typing import Any

import pytest

from clustered.conftest import Start, on_every_etcd, starting
from clustered.rows import PATIENCE_S, counter, put, resume, rows, wait_until_seen
from engines import EtcdCluster
from servers import Client, Closed, Server

N_WRITERS = 3
N_WRITES = 40


def test_a_write_is_seen_at_every_server_as_soon_as_it_is_acknowledged(start: Start) -> None:
    servers = start(3)
    clients = [server.client() for server in servers]
    for number in range(20):
        put(clients[number % 3], "k", str(number))
        for reader in clients:
            [found] = reader.transact("D", {"op": "select", "table": "T", "where": []})
            assert [row["v"] for row in found["rows"]] == [str(number)]


def test_a_unique_index_holds_over_all_servers(start: Start) -> None:
    servers = start(3)
    ids = []
    clients = [server.client() for server in servers]
    for client in clients:
        insert = {"op": "insert", "table": "T", "row": {"k": "one"}}
        ids.append((client, client.start("transact", ["D", insert])))
    errors = [client.reply(id, PATIENCE_S)["result"][-1].get("error") for client, id in ids]
    assert sorted(errors, key=str) == [None] + 2 * ["constraint violation"]
    assert [list(rows(server)) for server in servers] == 3 * [["one"]]


@on_every_etcd
def test_counting_at_all_servers_at_once_loses_nothing(start: Start) -> None:
    servers = start(3)
    put(servers[0].client(), "n", "0")
    failures: list[Any] = []

    def count(server: Server) -> None:
        client = server.client(timeout=PATIENCE_S)
        done = 0
        while done < N_WRITES:
            [found] = client.transact("D", {"op": "select", "table": "T", "where": []})
            before = found["rows"][0]["v"]
            results = client.transact(
                "D",
                _wait("n", before, 0),
                {"op": "update", "table": "T", "where": [], "row": {"v": str(int(before) + 1)}},
            )
            if "error" not in results[0]:
                done += 1
            elif results[0]["error"] != "timed out":
                failures.append(results)
                return

    threads = [threading.Thread(target=count, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [rows(server) for server in servers] == 3 * [{"n": str(N_WRITERS * N_WRITES)}]


def _wait(key: str, value: str, timeout_ms: int) -> dict[str, Any]:
    where = [["k", "==", key]]
    row = {"v": value}
    return {
        "op": "wait", "table": "T", "where": where, "columns": ["v"], "until": "==",
        "rows": [row], "timeout": timeout_ms,
    }  # fmt: skip


def test_a_wait_is_over_when_another_server_fulfils_it(start: Start) -> None:
    one, other = start(2)
    put(one.client(), "k", "no")
    waiting = other.client()
    id = waiting.start("transact", ["D", _wait("k", "yes", 60_000)])
    waiting.sync()
    put(one.client(), "k", "yes")
    assert waiting.reply(id, PATIENCE_S)["result"] == [{}]


def test_a_client_goes_on_at_another_server_from_where_it_was(start: Start) -> None:
    servers = start(3)
    put(servers[0].client(), "a", "1")
    _, last, _ = resume(servers[0])
    put(servers[1].client(), "b", "2")
    for server in servers:
        found, _, updates = resume(server, last)
        assert found
        [change] = updates["T"].values()
        assert change["insert"]["k"] == "b"


def test_monitors_everywhere_see_the_same_order(start: Start) -> None:
    servers = start(3)
    watchers = [server.client() for server in servers]
    for watcher in watchers:
        unknown = "00000000-0000-0000-0000-000000000000"
        watcher.request("monitor_cond_since", ["D", "m", {"T": [{}]}, unknown])
    threads = [
        threading.Thread(target=_fill, args=(server.client(), f"s{number}"))
        for number, server in enumerate(servers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    orders = [_ids(watcher, N_WRITERS * N_WRITES) for watcher in watchers]
    assert orders[0] == orders[1] == orders[2]
    assert rows(servers[0]) == rows(servers[1]) == rows(servers[2])


def _fill(client: Client, key: str) -> None:
    for number in range(N_WRITES):
        put(client, f"{key}-{number}", "x")


def _ids(watcher: Client, count: int) -> list[str]:
    """The ids of the transactions that a monitor is told of."""
    seen = 0
    ids = []
    while seen < count:
        params = watcher.notification(PATIENCE_S)["params"]
        seen += len(params[2]["T"])
        ids.append(params[1])
    return ids


def test_servers_that_all_write_give_way_to_each_other(start: Start) -> None:
    servers = start(3)
    clients = [server.client(timeout=PATIENCE_S) for server in servers]
    put(clients[0], "warm", "up")
    pending = {
        client: [client.start("transact", ["D", _insert(f"{number}-{i}")]) for i in range(300)]
        for number, client in enumerate(clients)
    }
    for client, ids in pending.items():
        for id in ids:
            assert "error" not in client.reply(id)["result"][-1]
    assert len(rows(servers[0])) == 1 + 3 * 300
    # Each conflict makes a server ask, so that there are not many more than there are turns.
    n_conflicts = sum(counter(server, "log_conflict") for server in servers)
    n_appends = sum(counter(server, "log_append") for server in servers)
    assert n_conflicts <= n_appends / 2


def test_bursts_that_come_to_all_servers_at_once_do_not_meet_each_time(start: Start) -> None:
    servers = start(3)
    clients = [server.client(timeout=PATIENCE_S) for server in servers]
    n_bursts, n_each = 12, 20
    for burst in range(n_bursts):
        ids = [
            (client, client.start("transact", ["D", _insert(f"{burst}-{number}-{i}")]))
            for i in range(n_each)
            for number, client in enumerate(clients)
        ]
        for client, id in ids:
            assert "error" not in client.reply(id)["result"][-1]
    assert len(rows(servers[0])) == n_bursts * 3 * n_each
    # From the first burst on they know of each other; else two of them would conflict each time.
    assert sum(counter(server, "log_conflict") for server in servers) < n_bursts
    # They have nothing to do with each other, so that each executes once.
    assert sum(counter(server, "log_overlap") for server in servers) == 0


def test_what_asserts_a_lock_executes_after_what_others_wrote(start: Start) -> None:
    """Others may have had the lock when they wrote, and whoever asks has it again."""
    servers = start(3)
    clients = [server.client(timeout=PATIENCE_S) for server in servers]
    assert clients[0].request("lock", ["l"])["result"] == {"locked": True}
    asserts = {clients[0]: [{"op": "assert", "lock": "l"}]}
    for burst in range(12):
        ids = []
        for i in range(20):
            for number, client in enumerate(clients):
                operations = [*asserts.get(client, []), _insert(f"{burst}-{number}-{i}")]
                ids.append((client, client.start("transact", ["D", *operations])))
        for client, id in ids:
            assert "error" not in client.reply(id)["result"][-1]
    assert len(rows(servers[0])) == 12 * 3 * 20
    # Only its server takes back what it executed, as the others' have nothing to do with anything.
    assert counter(servers[0], "log_overlap")
    assert not any(counter(server, "log_overlap") for server in servers[1:])


def test_no_answer_is_ahead_of_what_its_client_was_told(start: Start) -> None:
    """Neither of its own writes nor of others', while servers take turns."""
    servers = start(3)
    clients = [server.client(timeout=PATIENCE_S) for server in servers]
    for client in clients:
        client.request("monitor", ["D", "m", {"T": [{"columns": ["k"]}]}])
    select = {"op": "select", "table": "T", "where": [], "columns": ["_uuid"]}
    for burst in range(8):
        asked = [
            (client, client.start("transact", ["D", operation]))
            for i in range(20)
            for number, client in enumerate(clients)
            for operation in [_insert(f"{burst}-{number}-{i}"), select]
        ]
        for client, id in asked:
            assert "error" not in client.reply(id)["result"][-1]
    assert sum(counter(server, "log_gave_way") for server in servers)
    for client in clients:
        client.transact("D", select)
        told: set[str] = set()
        for message in client.log:
            if message.get("method") == "update":
                told |= message["params"][1]["T"].keys()
            elif isinstance(message["result"], list):
                [found] = message["result"]
                uuids = [found["uuid"]] if "uuid" in found else [r["_uuid"] for r in found["rows"]]
                assert {uuid for _, uuid in uuids} <= told
        assert len(told) == 8 * 20 * 3


def _insert(key: str) -> dict[str, Any]:
    return {"op": "insert", "table": "T", "row": {"k": key}}


def test_a_transaction_may_be_larger_than_a_request_of_the_engine(start: Start) -> None:
    one, other = start(2)
    client = one.client(timeout=PATIENCE_S)
    inserts = [
        {"op": "insert", "table": "T", "row": {"k": str(i), "v": "v" * 100}} for i in range(30_000)
    ]
    results = client.transact("D", *inserts)
    assert "error" not in results[-1]
    wait_until_seen(other, "29999", "v" * 100)
    assert len(rows(other)) == 30_000


def test_those_who_read_at_one_server_are_in_no_writers_way_at_another(start: Start) -> None:
    one, other = start(2)
    client = one.client(timeout=PATIENCE_S)
    put(client, "k", "v")
    is_over = threading.Event()

    def read_all_the_time() -> None:
        with other.client(timeout=PATIENCE_S) as reader:
            while not is_over.is_set():
                reader.transact("D", {"op": "select", "table": "T", "where": [["k", "==", "k"]]})

    reading = threading.Thread(target=read_all_the_time)
    reading.start()
    for number in range(200):
        put(client, "k", str(number))
    is_over.set()
    reading.join()
    assert counter(one, "log_gave_way") == counter(other, "log_conflict") == 0


def n_requests(etcd: EtcdCluster) -> int:
    """How many transactions clients have asked the members for."""
    total = 0
    for host in etcd.hosts:
        with urllib.request.urlopen(f"http://{host}/metrics") as answer:
            text = answer.read().decode()
        found = re.findall(r'^grpc_server_started_total.*method="Txn".* (\d+)$', text, re.M)
        total += sum(map(int, found))
    return total


def test_followers_on_etcd_do_not_ask_for_what_the_watch_brings(etcd: EtcdCluster) -> None:
    n_writes = 100
    with starting(etcd) as start:
        one, *_ = servers = start(3)
        client = one.client(timeout=PATIENCE_S)
        put(client, "k", "v")
        before, began = n_requests(etcd), time.monotonic()
        for number in range(n_writes):
            put(client, "k", str(number))
        n_asked, seconds = n_requests(etcd) - before, time.monotonic() - began
        for server in servers:
            assert rows(server) == {"k": str(n_writes - 1)}
            assert counter(server, "log_entry_of_others") == (server is not one) * (n_writes + 1)
    # One for each write; the rest are the servers' signs of life, more than one a second each.
    assert n_asked < 1.2 * n_writes + 5 * seconds


def test_a_large_transaction_gets_its_turn_beside_many_small_ones(start: Start) -> None:
    one, other = start(2)
    is_over = threading.Event()
    n_small: list[int] = []

    def write_all_the_time() -> None:
        client = other.client(timeout=PATIENCE_S)
        while not is_over.is_set():
            put(client, "small", str(len(n_small)))
            n_small.append(1)

    writing = threading.Thread(target=write_all_the_time)
    writing.start()
    try:
        inserts = [
            {"op": "insert", "table": "T", "row": {"k": str(i), "v": "v" * 100}}
            for i in range(20_000)
        ]
        results = one.client(timeout=60).transact("D", *inserts)
    finally:
        is_over.set()
        writing.join()
    assert "error" not in results[-1]
    assert n_small
    assert len(rows(other)) == 20_001


@pytest.mark.parametrize("is_aware", [True, False])
def test_a_conversion_reaches_the_clients_of_all_servers(start: Start, is_aware: bool) -> None:
    one, other = start(2)
    put(one.client(), "k", "v")
    schema = one.client().request("get_schema", ["D"])["result"]
    schema["version"] = "2.0.0"
    schema["tables"]["T"]["columns"]["w"] = {"type": "integer"}
    watcher = other.client()
    if is_aware:
        watcher.request("set_db_change_aware", [True])
    watcher.request("monitor", ["D", "m", {"T": {}}])
    assert one.client().request("convert", ["D", schema])["error"] is None
    if is_aware:
        assert watcher.notification(PATIENCE_S)["method"] == "monitor_canceled"
    else:
        with pytest.raises(Closed):
            watcher.wait_until(lambda: False, "the end", PATIENCE_S)
    assert other.client().request("get_schema", ["D"])["result"]["version"] == "2.0.0"
    put(other.client(), "k", "w")
    wait_until_seen(one, "k", "w")


def test_a_client_that_comes_after_a_conversion_elsewhere_is_not_disconnected(start: Start) -> None:
    one, other = start(2)
    converter = one.client()
    converter.request("set_db_change_aware", [True])
    schema = converter.request("get_schema", ["D"])["result"]
    select = {"op": "select", "table": "T", "where": [], "columns": ["w"]}
    schema["tables"]["T"]["columns"]["w"] = {"type": "integer"}
    first_requests = [
        ("get_schema", ["D"]),
        ("transact", ["D", select]),
        ("monitor", ["D", None, {"T": {"columns": ["w"]}}]),
    ]
    for number, (method, params) in enumerate(first_requests * 2, 2):
        schema["version"] = f"{number}.0.0"
        assert converter.request("convert", ["D", schema])["error"] is None
        client = other.client()
        reply = client.request(method, params)
        assert reply["error"] is None and "unknown column" not in str(reply)
        assert client.request("get_schema", ["D"])["result"]["version"] == schema["version"]
        put(client, "k", method)
