"""`--workers N`: what clients see of a server of several processes."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.programs import NB_SCHEMA, SB_SCHEMA, wait_for
from servers import Client, Server, relay_of, run

N_WORKERS = 3


@pytest.fixture
def server() -> Iterator[Server]:
    with Server("ovncp", [("sb", SB_SCHEMA)], options=[f"--workers={N_WORKERS}"], tcp=True) as it:
        yield it
        if it.alive:
            assert it.stop() == 0


def workers(server: Server) -> list[int]:
    """The pids of the server's children."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def sockets(pid: int) -> int:
    """How many descriptors of sockets a process has."""
    n_sockets = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # It may be closed meanwhile.
            n_sockets += str(link.readlink()).startswith("socket:")
    return n_sockets


def test_clients_are_spread_over_the_workers(server: Server) -> None:
    # The fixture has tried whether the server listens.
    wait_for(lambda: "sessions:" not in server.appctl("memory/show"), "the end of that")
    before = {pid: sockets(pid) for pid in [server.pid, *workers(server)]}
    assert len(before) == 1 + N_WORKERS
    for client in [server.client(tcp=n % 2 == 1) for n in range(4 * N_WORKERS)]:
        client.sync()
    gained = {pid: sockets(pid) - before[pid] for pid in before}
    assert gained.pop(server.pid) <= 0
    assert set(gained.values()) == {4}
    assert f"sessions:{4 * N_WORKERS}" in server.appctl("memory/show")


def test_all_see_what_one_was_told(server: Server) -> None:
    clients = [server.client() for _ in range(N_WORKERS)]
    for number, writer in enumerate(clients):
        name = f"hv{number}"
        writer.transact("OVN_Southbound", insert_set(name))
        for reader in clients:
            (result,) = reader.transact("OVN_Southbound", select_set(name))
            assert [row["name"] for row in result["rows"]] == [name]
            monitored = call(reader, "monitor", ["OVN_Southbound", [name], {"Address_Set": {}}])
            assert name in json.dumps(monitored)
            call(reader, "monitor_cancel", [[name]])


def call(client: Client, method: str, params: list[Any]) -> Any:
    """The result of a request that must not fail."""
    reply = client.request(method, params)
    assert reply["error"] is None, reply
    return reply["result"]


def insert_set(name: str) -> dict[str, object]:
    return {"op": "insert", "table": "Address_Set", "row": {"name": name}}


def select_set(name: str) -> dict[str, object]:
    where = [["name", "==", name]]
    return {"op": "select", "table": "Address_Set", "where": where, "columns": ["name"]}


def test_a_client_resumes_at_any_worker(server: Server) -> None:
    first = server.client()
    request = ["OVN_Southbound", "m", {"Address_Set": {}}, "00000000-0000-0000-0000-000000000000"]
    first.transact("OVN_Southbound", insert_set("before"))
    _, last_id, _ = call(first, "monitor_cond_since", request)
    first.transact("OVN_Southbound", insert_set("after"))
    for _ in range(N_WORKERS):
        found, _, updates = call(server.client(), "monitor_cond_since", [*request[:3], last_id])
        assert found
        (update,) = updates["Address_Set"].values()
        assert update["insert"]["name"] == "after"


def test_a_client_resumes_at_a_worker_that_was_not_there(server: Server) -> None:
    server.client().transact("OVN_Southbound", insert_set("before"))
    request = ["OVN_Southbound", "m", {"Address_Set": {}}, "00000000-0000-0000-0000-000000000000"]
    _, last_id, _ = call(server.client(), "monitor_cond_since", request)
    server.client().transact("OVN_Southbound", insert_set("after"))
    server.restart()
    found, _, updates = call(server.client(), "monitor_cond_since", [*request[:3], last_id])
    assert found
    assert len(updates["Address_Set"]) == 1


def test_a_worker_that_dies_is_replaced(server: Server) -> None:
    clients = [server.client() for _ in range(2 * N_WORKERS)]
    for client in clients:
        client.sync()
    (victim, *others) = workers(server)
    run("kill", "-9", str(victim))
    wait_for(lambda: len(set(workers(server)) - {victim, *others}) == 1, "another worker")
    wait_for(lambda: f"sessions:{2 * N_WORKERS - 2}" in server.appctl("memory/show"), "the count")
    wait_for(lambda: is_served(server), "the new worker")
    assert "a worker ended with status -9" in server.log
    assert sum(not is_closed(client) for client in clients) == 2 * N_WORKERS - 2


def is_served(server: Server) -> bool:
    with Client(server.socket_path) as client:
        client.sync()
    return True


def is_closed(client: Client) -> bool:
    try:
        client.sync()
    except Exception:  # noqa: BLE001  whichever way the connection is found to be gone
        return True
    return False


def test_the_workers_end_with_the_server(server: Server) -> None:
    pids = workers(server)
    server.kill9()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "their end")


def test_sigterm_ends_all(server: Server) -> None:
    pids = workers(server)
    client = server.client()
    client.sync()
    assert server.signal(signal.SIGTERM) == -signal.SIGTERM
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert is_closed(client)


def test_runtime_commands_reach_the_workers(server: Server) -> None:
    server.appctl("vlog/set", "jsonrpc:file:dbg")
    clients = [server.client() for _ in range(N_WORKERS)]
    for client in clients:
        client.sync()
    server.appctl("ovsdb-server/reconnect")
    for client in clients:
        wait_for(lambda client=client: is_closed(client), "the end of the connection")
    server.appctl("ovsdb-server/disable-monitor-cond")
    reply = server.client().request("monitor_cond", ["OVN_Southbound", "m", {}])
    assert reply["error"] == "unknown method"
    assert server.appctl("time/warp", "1000").strip() == "warped"


def test_databases_come_and_go(server: Server) -> None:
    file = server.create("nb", NB_SCHEMA)
    client = server.client()
    call(client, "set_db_change_aware", [True])
    server.appctl("ovsdb-server/add-db", str(file))
    assert "OVN_Northbound" in call(client, "list_dbs", [])
    for _ in range(N_WORKERS):
        assert call(server.client(), "get_schema", ["OVN_Northbound"])
    server.appctl("ovsdb-server/remove-db", "OVN_Northbound")
    assert "OVN_Northbound" not in call(client, "list_dbs", [])


def test_a_remote_can_be_added_and_removed(server: Server) -> None:
    path = server.directory / "more.sock"
    server.appctl("ovsdb-server/add-remote", f"punix:{path}")
    client = Client(path)
    client.sync()
    server.appctl("ovsdb-server/remove-remote", f"punix:{path}")
    wait_for(lambda: is_closed(client), "the end of the connection")
    client.close()


def test_a_transaction_of_many_rows(server: Server) -> None:
    client = server.client()
    operations = [insert_set(f"set{n}") for n in range(5000)]
    assert len(client.transact("OVN_Southbound", *operations)) == 5000
    for reader in [server.client() for _ in range(N_WORKERS)]:
        dump = call(reader, "monitor", ["OVN_Southbound", "m", {"Address_Set": {}}])
        assert len(dump["Address_Set"]) == 5000


def test_a_relay_has_workers_too(server: Server) -> None:
    insert = {"op": "insert", "table": "Address_Set", "row": {"name": "there"}}
    server.client().transact("OVN_Southbound", insert)
    databases = ["OVN_Southbound"]
    with relay_of("ovncp", server, databases=databases, options=["--workers=1"]) as relay:
        (result,) = relay.client(timeout=30).transact("OVN_Southbound", select_set("there"))
        assert result["rows"] == [{"name": "there"}]
