"""Clients that stall, vanish or come by the thousand: everyone else is served on."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.schemas import NAMES, insert, names, names_in
from faults.test_input import resident_megabytes
from interop.programs import wait_for
from servers import Client, Closed, Server

NB_SCHEMA = Path("/usr/share/ovn/ovn-nb.ovsschema")
MANY = 10_000


def check_served(server: Server) -> None:
    """Somebody who comes gets an answer, whatever the others, who stay as they are, do."""
    with server.client() as client:
        client.request("echo", ["x"])


def wait_for_words(server: Server, words: str) -> None:
    wait_for(lambda: words in server.log, f"{words!r} in the log")


def test_a_client_that_never_answers_is_dropped(kind: str) -> None:
    """A half-open connection is one from which nothing comes any more, probes included."""
    options = ["--remote=db:OVN_Northbound,NB_Global,connections"]
    with Server(kind, [("nb", NB_SCHEMA)], options=options) as server:
        connection = {"target": "ptcp:0:127.0.0.1", "inactivity_probe": 1000}
        server.client().transact(
            "OVN_Northbound",
            {"op": "insert", "table": "Connection", "row": connection, "uuid-name": "c"},
            {"op": "insert", "table": "NB_Global", "row": {"connections": ["named-uuid", "c"]}},
        )
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            silent.settimeout(60)
            heard = b""
            while piece := silent.recv(4096):
                heard += piece
            assert heard.count(b'"method"') == 1
        check_served(server)


def test_a_client_that_never_reads_holds_nobody_up(ours: str) -> None:
    with Server(ours, [("names", NAMES)]) as server:
        sleeper, writer, watcher = server.client(), server.client(), server.client()
        for client in (sleeper, watcher):
            client.request("monitor_cond", ["Names", "m", {"Name": [{}]}])
        writer.transact("Names", insert("row"))
        text = {"op": "update", "table": "Name", "where": []}
        for number in range(3000):
            row = {"text": f"{number} {'x' * 20_000}"}
            writer.start("transact", ["Names", text | {"row": row}], id=number)
            if number % 50 == 49:
                writer.reply(number)
                while watcher.receive(0):
                    watcher.notifications.clear()
                    watcher.log.clear()
        check_served(server)
        assert resident_megabytes(server) < 400
        watcher.sync()
        try:
            sleeper.sync()
        except Closed:
            return
        last = sleeper.notifications[-1]["params"][-1]
        assert "2999 " in str(last)[:400]


def test_a_client_that_never_reads_its_dumps_holds_nobody_up(ours: str) -> None:
    with Server(ours, [("names", NAMES)]) as server:
        writer = server.client()
        for number in range(100):
            writer.transact("Names", insert(f"n{number}", "x" * 10_000))
        greedy = server.client(timeout=1)
        try:
            for number in range(500):
                request = ["Names", f"m{number}", {"Name": [{}]}]
                greedy.start("monitor_cond", request)
        except (Closed, TimeoutError):
            pass
        check_served(server)
        assert resident_megabytes(server) < 1000


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.fail(f"this needs {wanted} open files; raise the limit (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_connections_are_served(ours: str, many_files: None) -> None:
    request = b'{"method":"echo","params":["here"],"id":1}'
    with Server(ours, [("names", NAMES)]) as server, contextlib.ExitStack() as crowd:
        sessions = [crowd.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(MANY)]
        for session in sessions:
            # Without a timeout, for only so does it wait for room among those not yet accepted.
            session.connect(str(server.socket_path))
            session.settimeout(60)
            session.sendall(request)
        assert all(b"here" in session.recv(4096) for session in sessions)
        check_served(server)
        server.client().transact("Names", insert("after"))
        assert names(server.client()) == {"after"}
        assert resident_megabytes(server) < 1000


def test_a_server_out_of_files_serves_on_once_it_has_some(ours: str) -> None:
    with Server(ours, [("names", NAMES)]) as server:
        first = server.client()
        subprocess.run(["prlimit", f"--pid={server.pid}", "--nofile=64:64"], check=True)
        crowd = []
        for _ in range(200):
            session = socket.socket(socket.AF_UNIX)
            session.settimeout(1)
            try:
                session.connect(str(server.socket_path))
            except OSError:
                session.close()
                break
            crowd.append(session)
        assert first.request("echo", ["x"])["result"] == ["x"]
        for session in crowd:
            session.close()
        wait_for(lambda: is_served(server), "an answer")
        server.client().transact("Names", insert("kept"))


def is_served(server: Server) -> bool:
    with contextlib.suppress(Closed, OSError):
        check_served(server)
        return True
    return False


def test_slow_tls_handshakes_hold_nobody_up(kind: str, certificate: Path) -> None:
    key, cert = certificate / "key.pem", certificate / "cert.pem"
    tls = [f"--private-key={key}", f"--certificate={cert}", f"--ca-cert={cert}"]
    options = ["--remote=pssl:0:127.0.0.1", *tls]
    with Server(kind, [("names", NAMES)], options=options) as server:
        stalled = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        for session in stalled[::2]:
            session.sendall(b"\x16\x03\x01")
        check_served(server)
        listed = subprocess.run(
            ["ovsdb-client", "--timeout=60", *tls, "list-dbs", f"ssl:127.0.0.1:{server.port}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Names" in listed.stdout, listed.stderr
        for session in stalled:
            session.close()


def test_plain_text_on_a_tls_port_is_refused(kind: str, certificate: Path) -> None:
    key, cert = certificate / "key.pem", certificate / "cert.pem"
    tls = [f"--private-key={key}", f"--certificate={cert}", f"--ca-cert={cert}"]
    options = ["--remote=pssl:0:127.0.0.1", *tls]
    with Server(kind, [("names", NAMES)], options=options) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            plain.settimeout(60)
            plain.sendall(b'{"method":"list_dbs","params":[],"id":0}')
            assert b"Names" not in plain.recv(4096)
        check_served(server)


def request(id: Any, method: str, *params: Any) -> bytes:
    return json.dumps({"method": method, "params": params, "id": id}).encode()


def heard_until_closed(client: Client) -> list[dict[str, Any]]:
    with contextlib.suppress(Closed):
        while client.receive(client.timeout):
            pass
    assert client.closed
    return client.log


def test_pipelined_requests_are_answered_in_order(kind: str) -> None:
    """Each sees what those before it did, though these are not durable when it arrives."""
    asserting = {"op": "assert", "lock": "l"}
    with Server(kind, [("names", NAMES)]) as server:
        client = server.client()
        client.send_bytes(
            request(1, "transact", "Names", insert("a"))
            + request(2, "echo", "x")
            + request(3, "monitor", "Names", "m", {"Name": {"columns": ["name"]}})
            + request(4, "transact", "Names", insert("b"))
            + request(5, "monitor_cancel", "m")
            + request(6, "transact", "Names", insert("c"))
            + request(7, "lock", "l")
            + request(8, "transact", "Names", asserting, insert("d"))
            + request(9, "unlock", "l")
            + request(10, "transact", "Names", asserting, insert("e"))
        )
        client.wait_until(lambda: "10" in client.replies, "the last reply")
        assert [message["id"] for message in client.log] == [1, 2, 3, None, 4, 5, 6, 7, 8, 9, 10]
        assert names(server.client()) == {"a", "b", "c", "d"}
        assert len(client.replies["3"]["result"]["Name"]) == 1


def test_a_monitor_is_known_to_what_is_pipelined_after_it(kind: str) -> None:
    nothing, everything = {"Name": [{"where": [False]}]}, {"Name": [{"where": [True]}]}
    with Server(kind, [("names", NAMES)]) as server:
        client = server.client()
        client.send_bytes(
            request(1, "transact", "Names", insert("a"))
            + request(2, "monitor_cond", "Names", "m", nothing)
            + request(3, "monitor_cond_change", "m", "n", everything)
            + request(4, "monitor_cancel", "n")
        )
        assert client.reply(4) == {"id": 4, "result": {}, "error": None}
        (update,) = client.notifications
        assert update["params"][0] == "n"


def test_what_is_pipelined_after_a_conversion_meets_the_new_schema(kind: str) -> None:
    more = copy.deepcopy(NAMES)
    more["tables"]["More"] = {"columns": {"x": {"type": "string"}}, "isRoot": True}
    with Server(kind, [("names", NAMES)]) as server:
        client = server.client()
        client.request("set_db_change_aware", [True])
        client.send_bytes(
            request(1, "transact", "Names", insert("a"))
            + request(2, "convert", "Names", more)
            + request(3, "echo")
            + request(4, "transact", "Names", {"op": "insert", "table": "More", "row": {}})
        )
        assert "uuid" in client.reply(4)["result"][0]
        assert [message["id"] for message in client.log][1:] == [1, 2, 3, 4]


def test_requests_wait_for_no_transaction_that_waits(kind: str) -> None:
    waiting = {"op": "wait", "table": "Name", "where": [], "columns": ["name"], "until": "=="}
    with Server(kind, [("names", NAMES)]) as server:
        client, other = server.client(), server.client()
        client.send_bytes(
            request(1, "transact", "Names", waiting | {"rows": [{"name": "b"}]})
            + request(2, "echo", "x")
            + request(3, "transact", "Names", {"op": "comment", "comment": ""})
        )
        client.reply(3)
        other.transact("Names", insert("b"))
        assert client.reply(1)["result"] == [{}]
        assert [message["id"] for message in client.log] == [2, 3, 1]


NO_MESSAGES = {
    "no JSON": (b'{"x":]', "error parsing stream: line 0, column 5, byte 5: syntax error"),
    "no message": (b"[]", "received bad JSON-RPC message: message is not a JSON object"),
}


@pytest.mark.parametrize("case", NO_MESSAGES)
def test_valid_requests_before_garbage_are_answered(kind: str, case: str) -> None:
    garbage, reason = NO_MESSAGES[case]
    with Server(kind, [("names", NAMES)]) as server:
        client = server.client()
        valid = request(1, "echo") + request(2, "transact", "Names", insert("a"))
        client.send_bytes(valid + garbage + request(3, "echo"))
        assert [message["id"] for message in heard_until_closed(client)] == [1, 2]
        wait_for_words(server, "connection dropped (Protocol error)")
        assert reason in server.log


def test_requests_before_the_end_of_input_are_answered(kind: str) -> None:
    """As `nc -N` sends them: the client says no more, but reads on."""
    with Server(kind, [("names", NAMES)]) as server:
        client = server.client()
        client.send_bytes(request(1, "transact", "Names", insert("a")) + request(2, "echo"))
        client.socket.shutdown(socket.SHUT_WR)
        assert [message["id"] for message in heard_until_closed(client)] == [1, 2]
        assert re.findall(r"\|(?!timeval)\w+\|WARN\|.*", server.log) == []


@pytest.mark.parametrize("end", [b"", b'{"x":]'])
def test_of_much_that_comes_at_once_all_is_answered_before_its_end(kind: str, end: bytes) -> None:
    """More than is handled in one turn, with what looks like the end of a message within one."""
    with Server(kind, [("names", NAMES)]) as server:
        client = server.client()
        requests = [
            request(id, "transact", "Names", insert(f"{id}}}{{" * 500)) for id in range(100)
        ]
        client.send_bytes(b"".join(requests) + end)
        if not end:
            client.socket.shutdown(socket.SHUT_WR)
        assert [message["id"] for message in heard_until_closed(client)] == list(range(100))


def test_a_connection_that_is_reset_is_logged(kind: str) -> None:
    with Server(kind, [("names", NAMES)], tcp=True) as server:
        client = server.client(tcp=True)
        client.request("echo", [])
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        wait_for_words(server, "connection dropped (Connection reset by peer)")
        assert "receive error: Connection reset by peer" in server.log


def test_a_monitor_id_may_be_any_json_value(kind: str) -> None:
    ids = [1.0, 1.5, {"b": [1, 2], "a": None}, [], None, True, "", "é", 1e300]
    with Server(kind, [("names", NAMES)]) as server:
        client = server.client()
        for id in ids:
            assert client.request("monitor_cond", ["Names", id, {"Name": [{}]}])["error"] is None
        again = client.request("monitor_cond", ["Names", {"a": None, "b": [1, 2]}, {"Name": [{}]}])
        assert again["error"]["details"] == "duplicate monitor ID"
        client.transact("Names", insert("a"))
        told = [notification["params"][0] for notification in client.notifications]
        assert len(told) == len(ids)
        assert all(id in told for id in ids)
        for id in ids:
            change = {"Name": [{"where": [False]}]}
            assert client.request("monitor_cond_change", [id, id, change])["error"] is None
            assert client.request("monitor_cancel", [id])["error"] is None


def test_a_client_that_reads_slowly_is_not_taken_for_gone(kind: str) -> None:
    options = ["--remote=db:OVN_Northbound,NB_Global,connections"]
    with Server(kind, [("nb", NB_SCHEMA)], options=options) as server:
        writer = server.client()
        connection = {"target": "ptcp:0:127.0.0.1", "inactivity_probe": 1000}
        writer.transact(
            "OVN_Northbound",
            {"op": "insert", "table": "Connection", "row": connection, "uuid-name": "c"},
            {"op": "insert", "table": "NB_Global", "row": {"connections": ["named-uuid", "c"]}},
        )
        for number in range(100):
            row = {"name": f"a{number}", "addresses": "x" * 100_000}
            writer.transact("OVN_Northbound", {"op": "insert", "table": "Address_Set", "row": row})
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            slow.connect(("127.0.0.1", server.port))
            slow.sendall(request("m", "monitor", "OVN_Northbound", "m", {"Address_Set": {}}))
            n_bytes = 0
            while n_bytes < 10_000_000:
                piece = slow.recv(200_000)
                assert piece, "the server closed the connection"
                n_bytes += len(piece)
                if n_bytes < 7_000_000:  # the rest is in the kernel, where it is not seen to move
                    time.sleep(len(piece) / 2_500_000)
        assert "no response to inactivity probe" not in server.log


def test_a_client_that_lags_ends_with_the_same_rows(ours: str) -> None:
    """Every change reaches it once, however many are put together meanwhile."""
    with Server(ours, [("names", NAMES)]) as server:
        writer, lagging = server.client(), server.client()
        lagging.request("monitor_cond", ["Names", "m", {"Name": [{}]}])
        random_ = random.Random(1)
        for number in range(3000):
            name = f"n{random_.randrange(50)}"
            where = {"table": "Name", "where": [["name", "==", name]]}
            row = {"text": f"{number} {'x' * 10_000}"}
            writer.transact("Names", {"op": "delete", **where}, insert(name, "new"))
            writer.transact("Names", {"op": "update", "row": row, **where})
            if number % 100 == 0:
                lagging.receive(0.001)
        lagging.sync("Names")
        rows: dict[str, dict[str, Any]] = {}
        for notification in lagging.notifications:
            for uuid, update in notification["params"][1]["Name"].items():
                apply(rows, uuid, update)
        assert len(lagging.notifications) < 6000
        columns = {"op": "select", "table": "Name", "where": [], "columns": ["name", "text"]}
        (result,) = writer.transact("Names", columns)
        assert sorted(map(str, rows.values())) == sorted(map(str, result["rows"]))


def apply(rows: dict[str, dict[str, Any]], uuid: str, update: dict[str, Any]) -> None:
    """Change `rows` by a <row-update2>, which must fit."""
    ((kind, columns),) = update.items()
    assert (uuid in rows) != (kind == "insert")
    if kind == "delete":
        del rows[uuid]
    else:
        row = rows.setdefault(uuid, {}) | {
            name: value for name, value in columns.items() if name != "_version"
        }
        rows[uuid] = dict(sorted(row.items()))


def test_failing_transactions_leave_nothing_behind(ours: str) -> None:
    bad = (insert("dup"), {"op": "insert", "table": "None", "row": {}}, {"op": "abort"})
    with Server(ours, [("names", NAMES)]) as server:
        client = server.client()
        client.transact("Names", insert("dup"))
        before = resident_megabytes(server)
        for number in range(9000):
            client.start("transact", ["Names", bad[number % 3]], id=number)
            if number % 100 == 99:
                client.reply(number)
        assert resident_megabytes(server) < before + 20


def test_clients_that_leave_at_once_leave_nothing_behind(ours: str) -> None:
    with Server(ours, [("names", NAMES)]) as server:
        writer = server.client()
        for number in range(300):
            writer.start("transact", ["Names", insert(f"n{number}")], id=number)
            with server.client() as leaving:
                leaving.send_bytes(request(1, "monitor", "Names", "m", {"Name": {}}))
        writer.reply(299)
        check_served(server)
        nobody_else = {"monitors:0", "sessions:1"}
        wait_for(
            lambda: nobody_else <= set(server.appctl("memory/show").split()),
            f"{nobody_else} in {server.appctl('memory/show')}",
        )


def test_forms_that_nobody_monitors_any_more_are_forgotten(ours: str) -> None:
    columns = [f"c{number}" for number in range(9)]
    wide = {"columns": {name: {"type": "string"} for name in columns}, "isRoot": True}
    with Server(ours, [("wide", {"name": "Wide", "tables": {"Row": wide}})]) as server:
        client = server.client()
        client.transact("Wide", {"op": "insert", "table": "Row", "row": {}})
        for number in range(512):
            chosen = [name for place, name in enumerate(columns) if number >> place & 1]
            client.request("monitor", ["Wide", "m", {"Row": {"columns": chosen}}])
            client.request("monitor_cancel", ["m"])
        (kept,) = re.findall(r"json-caches:(\d+)", server.appctl("memory/show"))
        assert int(kept) < 300


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM])
def test_a_signal_ends_the_server_and_removes_its_sockets(kind: str, number: int) -> None:
    with Server(kind, [("names", NAMES)]) as server:
        server.client().transact("Names", insert("kept"))
        assert server.signal(number) == -number
        assert not server.socket_path.exists()
        assert not server.control.exists()
        assert names_in(server.files["names"]) == {"kept"}


def test_a_log_file_that_cannot_be_opened_ends_the_server(kind: str) -> None:
    with Server(kind, [("names", NAMES)], start=False) as server:
        command = [*server.command, "--log-file=/nonexistent/log"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
