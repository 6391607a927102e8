"""Messages: what counts as one, the C server's words for what does not, and how ours look."""

import re
import socket
import subprocess
import time

import orjson
import pytest

from ovncp.ovsdb.json_bytes import encode
from ovncp.wire.jsonrpc import (
    InvalidMessage,
    Kind,
    check,
    encode_error,
    encode_notification,
    encode_reply,
    encode_request,
)
from servers import listens


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"id": 1, "method": "echo", "params": []}, Kind.REQUEST),
        ({"id": {}, "method": "echo", "params": [], "result": None}, Kind.REQUEST),
        ({"id": None, "method": "cancel", "params": [1]}, Kind.NOTIFICATION),
        ({"method": "cancel", "params": [1]}, Kind.NOTIFICATION),
        ({"id": 1, "result": {}, "error": None}, Kind.REPLY),
        ({"id": 1, "result": 0}, Kind.REPLY),
        ({"id": 1, "result": None, "error": "x"}, Kind.ERROR),
    ],
)
def test_kinds(message, kind):
    assert check(message) is kind


BAD = [
    [],
    {},
    {"id": 1},
    {"id": 1, "method": 3, "params": []},
    {"id": 1, "method": None, "params": []},
    {"id": 1, "method": "a"},
    {"id": 1, "method": "a", "params": 3},
    {"id": 1, "method": "a", "params": {}},
    {"method": "a"},
    {"params": []},
    {"id": 1, "params": []},
    {"id": 1, "result": 2, "x": 3},
    {"id": 1, "method": "a", "x": []},
    {"id": 1, "result": 1, "error": 2},
    {"id": 1, "result": 1, "method": "a"},
    {"id": 1, "error": 1, "params": []},
    {"result": 1},
    {"error": 1},
]


@pytest.fixture(scope="module")
def c_server(tmp_path_factory):
    """The C server; a function from bytes sent to the error that it logs."""
    home = tmp_path_factory.mktemp("c")
    (home / "schema").write_text('{"name":"d","version":"1.0.0","tables":{}}')
    subprocess.run(["ovsdb-tool", "create", home / "db", home / "schema"], check=True)
    log = home / "log"
    command = [
        "ovsdb-server", f"--remote=punix:{home}/sock", f"--unixctl={home}/ctl",
        "--no-chdir", "-vconsole:off", f"--log-file={log}", home / "db",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(home / "sock") and listens(home / "ctl"))
        unlimited = ["ovs-appctl", "-t", f"{home}/ctl", "vlog/disable-rate-limit"]
        subprocess.run(unlimited, check=True)
        yield lambda data: error_of(home / "sock", log, data)
    finally:
        process.terminate()
        process.wait()


def wait_for(ready):
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


def error_of(path, log, data):
    at = log.stat().st_size
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(data)
        assert client.recv(1) == b""
    found = re.compile("received bad JSON-RPC message: (.*)\n")
    wait_for(lambda: found.search(log.read_text()[at:]))
    return found.search(log.read_text()[at:])[1]


@pytest.mark.parametrize("message", BAD, ids=str)
def test_errors_are_those_of_c(message, c_server):
    with pytest.raises(InvalidMessage) as caught:
        check(message)
    assert str(caught.value) == c_server(orjson.dumps(message))


def test_encoders():
    assert orjson.loads(encode_request(1, "m", [2])) == {"id": 1, "method": "m", "params": [2]}
    assert orjson.loads(encode_notification("m", [])) == {"id": None, "method": "m", "params": []}
    assert orjson.loads(encode_reply("i", {})) == {"id": "i", "result": {}, "error": None}
    assert orjson.loads(encode_error("i", "e")) == {"id": "i", "error": "e"}


@pytest.mark.parametrize("message", [encode_request(1, "m", []), encode_notification("m", [])])
def test_encoded_calls_are_messages(message):
    assert check(orjson.loads(message)) in (Kind.REQUEST, Kind.NOTIFICATION)


def test_bytes_that_came_in_go_out():
    assert encode(["\udcff\u00e9"]) == b'["\xff\xc3\xa9"]'
