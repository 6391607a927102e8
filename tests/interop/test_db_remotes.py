"""`--remote=db:DB,TABLE,COLUMN`: served live and told of in status columns, as by the C server."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.programs import KIND, NB_SCHEMA, wait_for
from servers import COMMANDS, Client, Closed, Server, run

KINDS = (KIND, "c")

STRING_MAP = {"key": "string", "value": "string", "min": 0, "max": "unlimited"}
SCHEMA: dict[str, Any] = {
    "name": "Local",
    "version": "1.0.0",
    "tables": {
        "Config": {
            "isRoot": True,
            "columns": {
                "targets": {"type": {"key": "string", "min": 0, "max": "unlimited"}},
                "target": {"type": "string"},
                "connections": {
                    "type": {
                        "key": {"type": "uuid", "refTable": "Connection"},
                        "min": 0,
                        "max": "unlimited",
                    }
                },
                "count": {"type": "integer"},
            },
        },
        "Connection": {
            "columns": {
                "target": {"type": "string"},
                "read_only": {"type": {"key": "boolean", "min": 0, "max": 1}},
                "inactivity_probe": {"type": {"key": "integer", "min": 0, "max": 1}},
                "max_backoff": {"type": {"key": "integer", "min": 0, "max": 1}},
                "role": {"type": "string"},
                "other_config": {"type": STRING_MAP},
                "is_connected": {"type": "boolean"},
                "status": {"type": STRING_MAP},
            },
        },
    },
}


class Local:
    """A server whose remotes are in its database `Local`, and a client over its UNIX socket."""

    def __init__(self, kind: str, column: str, schema: dict[str, Any] = SCHEMA) -> None:
        options = [f"--remote=db:Local,Config,{column}"]
        self.server = Server(kind, [("local", schema)], options=options)
        self.client = self.server.client()

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def transact(self, *operations: dict[str, Any]) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.client.transact("Local", *operations)
        assert all("error" not in item for item in result), result
        return result

    def connect(self, target: str, **columns: Any) -> None:
        row = {"target": target, **columns}
        self.transact(
            {"op": "insert", "table": "Connection", "row": row, "uuid-name": "it"},
            {
                "op": "insert",
                "table": "Config",
                "row": {"connections": ["set", [["named-uuid", "it"]]]},
            },
        )

    def set_connection(self, **columns: Any) -> None:
        self.transact({"op": "update", "table": "Connection", "where": [], "row": columns})

    def shown(self) -> tuple[bool, dict[str, str]]:
        columns = ["is_connected", "status"]
        select = {"op": "select", "table": "Connection", "where": [], "columns": columns}
        (row,) = self.transact(select)[0]["rows"]
        return row["is_connected"], dict(row["status"][1])

    def wait_for_status(self, **wanted: str | None) -> dict[str, str]:
        def is_shown() -> bool:
            status = self.shown()[1]
            return all(status.get(name) == text for name, text in wanted.items())

        wait_for(is_shown, f"the status {wanted}, at first {self.shown()}")
        return self.shown()[1]

    def wait_for_port(self) -> int:
        wait_for(lambda: "listening on port" in self.server.log, "the listener")
        return self.server.port


def can_connect(address: int | Path) -> bool:
    """Whether the port, or the socket file, takes connections."""
    with socket.socket(socket.AF_INET if isinstance(address, int) else socket.AF_UNIX) as probe:
        where = ("127.0.0.1", address) if isinstance(address, int) else str(address)
        return probe.connect_ex(where) == 0


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    parameter: str = request.param
    return parameter


@pytest.mark.parametrize("column", ["targets", "target"])
def test_strings_are_targets(kind: str, column: str) -> None:
    with Local(kind, column) as local:
        row = {column: "ptcp:0:127.0.0.1"}
        local.transact({"op": "insert", "table": "Config", "row": row})
        port = local.wait_for_port()
        Client(("127.0.0.1", port)).sync()
        local.transact({"op": "delete", "table": "Config", "where": []})
        wait_for(lambda: not can_connect(port), "the listener's end")
        wait_for(lambda: "ptcp:0:127.0.0.1: remote deconfigured" in local.server.log, "a word")


INSERT = {"op": "insert", "table": "Config", "row": {"count": 1}}


def test_rows_are_followed(kind: str) -> None:
    with Local(kind, "connections") as local:
        local.connect("ptcp:0:127.0.0.1", read_only=True)
        client = Client(("127.0.0.1", local.wait_for_port()))
        (refusal,) = client.transact("Local", INSERT)
        assert refusal["error"] == "not allowed"
        local.set_connection(target="punix:second.sock", read_only=False)
        second = local.server.directory / "second.sock"
        wait_for(lambda: can_connect(second), "the second listener")
        (result,) = Client(second).transact("Local", INSERT)
        assert "error" not in result
        wait_for(lambda: not can_connect(local.server.port), "the first listener's end")


def test_sessions_go_by_what_their_row_says_now() -> None:
    # The C server goes by what the row said when the listener was made.
    with Local(KIND, "connections") as local:
        local.connect("ptcp:0:127.0.0.1")
        client = Client(("127.0.0.1", local.wait_for_port()))
        assert "error" not in client.transact("Local", INSERT)[0]
        local.set_connection(read_only=True)
        wait_for(lambda: "error" in client.transact("Local", INSERT)[0], "the refusal")


def test_a_silent_client_is_probed_as_its_row_says(kind: str) -> None:
    with Local(kind, "connections") as local:
        local.connect("ptcp:0:127.0.0.1", inactivity_probe=1)
        with socket.create_connection(("127.0.0.1", local.wait_for_port())) as silent:
            silent.settimeout(60)
            assert json.loads(silent.recv(1000))["method"] == "echo"
            assert silent.recv(1000) == b""


def test_the_status_of_a_listener(kind: str) -> None:
    with Local(kind, "connections") as local:
        local.connect("ptcp:0:127.0.0.1")
        port = local.wait_for_port()
        local.wait_for_status(bound_port=str(port))
        never = {"sec_since_connect": "0", "sec_since_disconnect": "0", "bound_port": str(port)}
        assert local.shown() == (False, never)
        clients = [Client(("127.0.0.1", port)) for _ in range(3)]
        local.wait_for_status(n_connections="3")
        assert local.shown() == (True, {**never, "n_connections": "3"})
        clients.pop().close()
        clients.pop().close()
        local.wait_for_status(n_connections=None)
        assert local.shown() == (True, never)
        clients.pop().close()
        wait_for(lambda: not local.shown()[0], "the end of the last connection")


def test_the_status_of_a_connection_that_the_server_makes(kind: str) -> None:
    with Local(kind, "connections") as local, socket.create_server(("127.0.0.1", 0)) as manager:
        manager.settimeout(60)
        port = manager.getsockname()[1]
        local.connect(f"tcp:127.0.0.1:{port}", inactivity_probe=0)
        peer = manager.accept()[0]
        local.wait_for_status(state="ACTIVE")
        for name in ("b", "a"):
            lock = {"method": "lock", "params": [name], "id": name}
            peer.sendall(json.dumps(lock).encode())

        def has_both() -> bool:
            return sorted(local.shown()[1].get("locks_held", "").split()) == ["a", "b"]

        wait_for(has_both, "the locks")
        is_connected, status = local.shown()
        assert is_connected
        assert status.keys() == {"state", "sec_since_connect", "locks_held"}
        # The lock goes to the next in the queue, and comes back as one that is waited for.
        local.client.request("steal", ["a"])
        local.wait_for_status(locks_waiting="a", locks_held="b")
        manager.close()
        peer.close()
        local.wait_for_status(state="BACKOFF")
        is_connected, status = local.shown()
        assert not is_connected
        assert status.keys() - {"last_error"} == {
            "state",
            "sec_since_connect",
            "sec_since_disconnect",
        }


def test_a_lost_connection_is_made_again(kind: str) -> None:
    with Local(kind, "connections") as local, socket.create_server(("127.0.0.1", 0)) as manager:
        manager.settimeout(60)
        target = f"tcp:127.0.0.1:{manager.getsockname()[1]}"
        local.connect(target, max_backoff=1000, inactivity_probe=0)
        manager.accept()[0].close()
        peer = manager.accept()[0]
        local.server.appctl("ovsdb-server/reconnect")
        peer.settimeout(60)
        assert peer.recv(1000) == b""
        manager.accept()[0].close()


TCP_SAVE_SYN, TCP_SAVED_SYN = 27, 28


def traffic_class(manager: socket.socket) -> int:
    """The second byte of the IP header of the packet that asked for a connection."""
    manager.settimeout(60)
    with manager.accept()[0] as peer:
        return peer.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, 100)[1]


def test_packets_are_marked_as_the_row_says(kind: str) -> None:
    with Local(kind, "connections") as local, socket.create_server(("127.0.0.1", 0)) as manager:
        manager.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
        local.connect(f"tcp:127.0.0.1:{manager.getsockname()[1]}", max_backoff=1000)
        assert traffic_class(manager) == 48 << 2
        for text, dscp in (("10", 10), ("64", 48), ("x", 0), ("46 ", 46)):
            local.set_connection(other_config=["map", [["dscp", text]]])
            marks: list[int] = []
            wait_for(lambda m=marks, d=dscp: m.append(traffic_class(manager)) or m[-1] == d << 2,
                     f"a connection marked by {text}, not {marks}")  # fmt: skip


def test_clients_come_back_when_packets_are_to_be_marked_otherwise(kind: str) -> None:
    with Local(kind, "connections") as local:
        local.connect("ptcp:0:127.0.0.1")
        client = Client(("127.0.0.1", local.wait_for_port()))
        client.sync()
        local.set_connection(other_config=["map", [["dscp", "10"]]])
        with pytest.raises(Closed):
            client.wait_until(lambda: False, "the end")


def test_status_columns_that_are_stored_are_in_the_log(kind: str) -> None:
    with Local(kind, "connections") as local:
        local.connect("ptcp:0:127.0.0.1")
        local.wait_for_status(bound_port=str(local.wait_for_port()))
        local.server.stop()
        log = run("ovsdb-tool", "-mm", "show-log", local.server.files["local"])
        assert "bound_port=" in log


def test_nothing_is_written_when_nothing_changed() -> None:
    with Local(KIND, "connections") as local:
        local.connect("ptcp:0:127.0.0.1")
        local.wait_for_status(bound_port=str(local.wait_for_port()))
        size = local.server.files["local"].stat().st_size
        local.server.appctl("time/warp", "60000", "1000")
        local.client.sync()
        assert local.server.files["local"].stat().st_size == size


def test_the_real_tools_and_schema(kind: str) -> None:
    remote = "--remote=db:OVN_Northbound,NB_Global,connections"
    with Server(kind, [("nb", NB_SCHEMA)], options=[remote]) as server:
        nbctl = ("ovn-nbctl", "--no-leader-only", "--timeout=60", f"--db={server.remote}")
        run(*nbctl, "init")
        run(*nbctl, "set-connection", "ptcp:0:127.0.0.1")
        wait_for(lambda: "listening on port" in server.log, "the listener")
        tcp = f"--db=tcp:127.0.0.1:{server.port}"
        run("ovn-nbctl", "--no-leader-only", "--timeout=60", tcp, "ls-add", "net")
        run(*nbctl, "del-connection")
        wait_for(lambda: not can_connect(server.port), "the listener's end")


def test_a_removed_database_takes_its_remotes_along(kind: str) -> None:
    with Local(kind, "targets") as local:
        row = {"targets": "ptcp:0:127.0.0.1"}
        local.transact({"op": "insert", "table": "Config", "row": row})
        port = local.wait_for_port()
        local.server.appctl("ovsdb-server/remove-db", "Local")
        wait_for(lambda: not can_connect(port), "the listener's end")
        word = '"db:Local,Config,targets": no database named Local'
        wait_for(lambda: word in local.server.log, "a word")
        local.server.appctl("ovsdb-server/add-db", str(local.server.files["local"]))
        wait_for(lambda: local.server.log.count("listening on port") == 2, "the listener's return")
        assert can_connect(local.server.port)


MISTAKES = [
    "--remote=db:Local,Config",
    "--remote=db:Nothing,Config,targets",
    "--remote=db:Local,Nothing,targets",
    "--remote=db:Local,Config,nothing",
    "--private-key=db:Local,Config,nothing",
    "--certificate=db:Local,Config,count",
    "--ca-cert=db:Local",
    "--ssl-ciphers=db:Nothing,Config,targets",
]


@pytest.fixture(scope="module")
def files() -> Iterator[dict[str, Server]]:
    servers = {kind: Server(kind, [("local", SCHEMA)], start=False) for kind in KINDS}
    yield servers
    for server in servers.values():
        server.close()


@pytest.mark.parametrize("option", MISTAKES)
def test_mistakes_at_the_start(files: dict[str, Server], option: str) -> None:
    ours, theirs = (refusal(server, option) for server in files.values())
    assert ours == theirs
    assert ours[0] == 1


def refusal(server: Server, option: str) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMANDS[server.kind], option, "--run=true", "-vconsole:off", server.files["local"]],
        env=server.env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, re.sub(r"\n+", "\n", done.stderr)
