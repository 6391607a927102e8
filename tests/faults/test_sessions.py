"""Clients that stall, vanish or come by the thousand: everyone else is served on."""

from __future__ import annotations

import contextlib
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.schemas import NAMES, insert, names
from faults.test_input import resident_megabytes
from servers import Closed, Server

NB_SCHEMA = Path("/usr/share/ovn/ovn-nb.ovsschema")
MANY = 10_000


def served_within(server: Server, seconds: float) -> None:
    start = time.monotonic()
    with server.client(timeout=seconds) as client:
        client.request("echo", ["x"])
    assert time.monotonic() - start < seconds


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
        deadline = time.monotonic() + 5
        while "listening on port" not in server.log:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            silent.settimeout(10)
            heard = b""
            while piece := silent.recv(4096):
                heard += piece
            assert heard.count(b'"method"') == 1
        served_within(server, 2)


def test_a_client_that_never_reads_holds_nobody_up(ours: str) -> None:
    with Server(ours, [("names", NAMES)]) as server:
        sleeper, writer, watcher = server.client(), server.client(timeout=30), server.client()
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
        served_within(server, 2)
        assert resident_megabytes(server) < 400
        watcher.sync()
        try:
            sleeper.timeout = 30
            sleeper.sync()
        except Closed:
            return
        last = sleeper.notifications[-1]["params"][-1]
        assert "2999 " in str(last)[:400]


def test_a_client_that_never_reads_its_dumps_holds_nobody_up(ours: str) -> None:
    with Server(ours, [("names", NAMES)]) as server:
        writer = server.client(timeout=30)
        for number in range(100):
            writer.transact("Names", insert(f"n{number}", "x" * 10_000))
        greedy = server.client(timeout=1)
        try:
            for number in range(500):
                request = ["Names", f"m{number}", {"Name": [{}]}]
                greedy.start("monitor_cond", request)
        except (Closed, TimeoutError):
            pass
        served_within(server, 2)
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
            session.settimeout(30)
            session.sendall(request)
        assert all(b"here" in session.recv(4096) for session in sessions)
        served_within(server, 5)
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
        deadline = time.monotonic() + 10
        while True:
            try:
                served_within(server, 2)
                break
            except (Closed, OSError, AssertionError):
                assert time.monotonic() < deadline
        server.client().transact("Names", insert("kept"))


@pytest.fixture(scope="module")
def certificate() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tls-"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=server", "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    yield directory
    shutil.rmtree(directory)


def test_slow_tls_handshakes_hold_nobody_up(kind: str, certificate: Path) -> None:
    key, cert = certificate / "key.pem", certificate / "cert.pem"
    tls = [f"--private-key={key}", f"--certificate={cert}", f"--ca-cert={cert}"]
    options = ["--remote=pssl:0:127.0.0.1", *tls]
    with Server(kind, [("names", NAMES)], options=options) as server:
        stalled = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        for session in stalled[::2]:
            session.sendall(b"\x16\x03\x01")
        served_within(server, 2)
        listed = subprocess.run(
            ["ovsdb-client", "--timeout=5", *tls, "list-dbs", f"ssl:127.0.0.1:{server.port}"],
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
            plain.settimeout(5)
            plain.sendall(b'{"method":"list_dbs","params":[],"id":0}')
            assert b"Names" not in plain.recv(4096)
        served_within(server, 2)
