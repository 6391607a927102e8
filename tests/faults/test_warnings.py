"""Bad clients cannot fill the log: what is said of them is limited as on the C server."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections import Counter
from pathlib import Path

from faults.conftest import KINDS
from faults.schemas import NAMES
from interop.programs import wait_for
from servers import Client, Server, run

JSONRPC_BURST, TLS_BURST = 5, 25


def let_in(address: Path | tuple[str, int], data: bytes, n_times: int) -> None:
    """Connects, sends `data`, and waits for the server to close, again and again."""
    for _ in range(n_times):
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        with socket.socket(family) as client, contextlib.suppress(OSError):
            client.settimeout(60)
            client.connect(address if isinstance(address, tuple) else str(address))
            client.sendall(data)
            while client.recv(4096):
                pass


def warnings(server: Server) -> Counter[str]:
    """How many warnings each module has logged, once all is logged."""
    server.appctl("version")
    return Counter(re.findall(r"\|(\w+)\|WARN\|", server.log))


def test_malformed_messages(kind: str) -> None:
    with Server(kind, [("names", NAMES)], tcp=True) as server:
        address = ("127.0.0.1", server.port)
        let_in(server.socket_path, b'{"foo":1}', 20)
        assert warnings(server) == {"jsonrpc": JSONRPC_BURST, "reconnect": 20}
        # One limit for all that this part says of clients.
        let_in(server.socket_path, b'{"id"]', 3)
        reset(address, 3)
        all_of_them = {"jsonrpc": JSONRPC_BURST, "reconnect": 26}
        wait_for(lambda: warnings(server) == all_of_them, f"{all_of_them}, not {warnings(server)}")


def reset(address: tuple[str, int], n_times: int) -> None:
    for _ in range(n_times):
        with Client(address) as client:
            client.sync()
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_limit_can_be_lifted_and_set_again(kind: str) -> None:
    with Server(kind, [("names", NAMES)]) as server:
        let_in(server.socket_path, b'{"foo":1}', 10)
        server.appctl("vlog/disable-rate-limit", "jsonrpc")
        assert "(rate limiting disabled)" in server.appctl("vlog/list")
        let_in(server.socket_path, b'{"foo":1}', 10)
        assert warnings(server)["jsonrpc"] == JSONRPC_BURST + 10
        server.appctl("vlog/enable-rate-limit", "jsonrpc")
        let_in(server.socket_path, b'{"foo":1}', 10)
        assert warnings(server)["jsonrpc"] == JSONRPC_BURST + 10
        assert "Dropped" not in server.log


def test_what_was_dropped_is_told_later() -> None:
    """A message passes every twelve seconds, as five do in a minute."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server(kind, [("names", NAMES)])) for kind in KINDS]
        for server in servers:
            let_in(server.socket_path, b'{"foo":1}', 12)
        told_of = re.compile(r"\|jsonrpc\|WARN\|(Dropped.*)\n.*\|jsonrpc\|WARN\|(.*)\n")

        def all_tell() -> bool:
            for server in servers:
                let_in(server.socket_path, b'{"foo":1}', 1)
            time.sleep(0.5)
            return all(told_of.search(server.log) for server in servers)

        wait_for(all_tell, "a word on what was dropped")
        for server in servers:
            told, then = told_of.findall(server.log)[0]
            assert re.fullmatch(
                r"Dropped \d+ log messages in last \d+ seconds"
                r" \(most recently, \d seconds ago\) due to excessive rate",
                told,
            )
            assert "received bad JSON-RPC message" in then


def test_those_that_do_not_speak_tls(kind: str, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server"),
        *("-keyout", key, "-out", certificate),
    )
    options = ["--remote=pssl:0:127.0.0.1", f"--private-key={key}", f"--certificate={certificate}"]
    with Server(kind, [("names", NAMES)], options=[*options, f"--ca-cert={certificate}"]) as server:
        let_in(("127.0.0.1", server.port), b"GET / HTTP/1.1\r\n\r\n", TLS_BURST + 15)
        assert warnings(server)["stream_ssl"] == TLS_BURST
