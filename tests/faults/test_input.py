"""Bad input gets the C server's answer or a closed session; everyone else is served on."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator

import pytest

from faults.conftest import KINDS
from faults.schemas import NAMES, insert, names
from servers import Client, Closed, Server

ECHO = b'{"method":"echo","params":["x"],"id":"x"}'


def nested(depth: int) -> bytes:
    return b'{"method":"echo","id":0,"params":' + b"[" * depth + b"]" * depth + b"}"


RAW: dict[str, bytes] = {
    "not JSON": b"nonsense",
    "an unfinished literal": b'{"method":tru}',
    "a trailing comma": b'{"method":"echo","params":[],"id":0,}',
    "a stray bracket": b"]",
    "a number": b"42 ",
    "a string": b'"echo"',
    "an array": b'["echo"]',
    "null": b"null",
    "an empty object": b"{}",
    "no method": b'{"params":[],"id":0}',
    "no params": b'{"method":"echo","id":0}',
    "no id": b'{"method":"echo","params":[]}',
    "a method that is a number": b'{"method":1,"params":[],"id":0}',
    "params that are an object": b'{"method":"echo","params":{},"id":0}',
    "an unknown member": b'{"method":"echo","params":[],"id":0,"more":1}',
    "a member twice": b'{"method":"echo","method":"echo","params":[],"id":0}',
    "a reply to nothing": b'{"result":1,"error":null,"id":"nothing"}',
    "a reply with an error": b'{"result":null,"error":"e","id":"nothing"}',
    "an unknown method": b'{"method":"nonsense","params":[],"id":0}',
    "an unknown notification": b'{"method":"nonsense","params":[],"id":null}',
    "an unknown database": b'{"method":"transact","params":["nothing"],"id":0}',
    "transact without parameters": b'{"method":"transact","params":[],"id":0}',
    "transact with a number": b'{"method":"transact","params":["Names",1],"id":0}',
    "an unknown operation": b'{"method":"transact","params":["Names",{"op":"x"}],"id":0}',
    "an unknown table": b'{"method":"transact","params":["Names",{"op":"insert","table":"x",'
    b'"row":{}}],"id":0}',
    "an unknown column": b'{"method":"transact","params":["Names",{"op":"insert","table":"Name",'
    b'"row":{"x":1}}],"id":0}',
    "a wrong type": b'{"method":"transact","params":["Names",{"op":"insert","table":"Name",'
    b'"row":{"name":1}}],"id":0}',
    "monitor of nothing": b'{"method":"monitor","params":["Names",0,{"x":{}}],"id":0}',
    "monitor of a wrong type": b'{"method":"monitor","params":["Names",0,[]],"id":0}',
    "monitor_cancel of nothing": b'{"method":"monitor_cancel","params":[0],"id":0}',
    "lock without a name": b'{"method":"lock","params":[],"id":0}',
    "lock with a bad name": b'{"method":"lock","params":["a b"],"id":0}',
    "unlock of nothing": b'{"method":"unlock","params":["a"],"id":0}',
    "get_schema of nothing": b'{"method":"get_schema","params":["x"],"id":0}',
    "invalid UTF-8": b'{"method":"echo","params":["\xff\xfe"],"id":0}',
    "invalid UTF-8 as a function": b'{"method":"transact","params":["Names",{"op":"select",'
    b'"table":"Name","where":[["name","\xff","x"]]}],"id":0}',
    "invalid UTF-8 as a mutator": b'{"method":"transact","params":["Names",{"op":"mutate",'
    b'"table":"Name","where":[],"mutations":[["name","\xff","x"]]}],"id":0}',
    "an overlong UTF-8 form": b'{"method":"echo","params":["\xc0\x80"],"id":0}',
    "a lone surrogate": b'{"method":"echo","params":["\\ud800"],"id":0}',
    "a null character": b'{"method":"echo","params":["\\u0000"],"id":0}',
    "a control character": b'{"method":"echo","params":["\x01"],"id":0}',
    "a bad escape": b'{"method":"echo","params":["\\x"],"id":0}',
    "a number with a leading zero": b'{"method":"echo","params":[01],"id":0}',
    "a huge number": b'{"method":"echo","params":[1e400],"id":0}',
    "999 deep": nested(990),
    "1,001 deep": nested(1001),
    "100,000 deep": nested(100_000),
    "an integer too large": b'{"method":"echo","params":[9223372036854775808],"id":0}',
    "a byte order mark": b'\xef\xbb\xbf{"method":"echo","params":[],"id":0}',
}


def answers(server: Server, data: bytes) -> tuple[list[str], bool]:
    """The messages that come back after `data` and an echo, and if the session was closed."""
    heard, closed = b"", False
    with socket.socket(socket.AF_UNIX) as session:
        session.connect(str(server.socket_path))
        session.settimeout(2)
        try:
            session.sendall(data + ECHO)
            while not END.search(heard):
                piece = session.recv(1 << 20)
                closed = not piece
                heard += piece or b'"id":"x"'
        except (ConnectionResetError, BrokenPipeError):
            closed = True
        except TimeoutError:
            pass
    return sorted(messages(heard.removesuffix(b'"id":"x"') if closed else heard)), closed


END = re.compile(rb'"id": ?"x"')


def messages(heard: bytes) -> list[str]:
    """The messages in `heard` with their members in order, or as they are if they are no JSON."""
    text, found = heard.decode(errors="surrogateescape"), []
    # The C server writes reals with 15 digits, ours with as many as they have.
    decoder = json.JSONDecoder(parse_float=lambda real: float(f"{float(real):.15g}"))
    while text:
        try:
            message, end = decoder.raw_decode(text)
        except json.JSONDecodeError:
            return [*found, text]
        found.append(json.dumps(message, sort_keys=True))
        text = text[end:].lstrip()
    return found


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Server]]:
    """The C server and ours; and a parser in the test that goes as deep as theirs."""
    sys.setrecursionlimit(10_000)
    with Server("c", [("names", NAMES)]) as theirs, Server(KINDS[-1], [("names", NAMES)]) as ours:
        yield [theirs, ours]


@pytest.mark.parametrize("data", RAW.values(), ids=RAW)
def test_bad_input_gets_the_c_servers_answer(pair: list[Server], data: bytes) -> None:
    bystander = pair[1].client()
    theirs, ours = (answers(server, data) for server in pair)
    assert ours == theirs
    assert bystander.request("echo", ["still here"])["result"] == ["still here"]


def test_a_message_over_the_limit_closes_its_session_only(ours: str) -> None:
    with Server(ours, [("names", NAMES)]) as server:
        bystander, flood = server.client(), server.client(timeout=200)
        try:
            flood.send_bytes(b'{"method":"echo","id":0,"params":["')
            for _ in range(1100):
                flood.send_bytes(b"x" * (1 << 20))
        except Closed:
            pass
        else:
            raise AssertionError("more than a gigabyte of one message was taken")
        assert resident_megabytes(server) < 1500
        bystander.transact("Names", insert("served on"))


def resident_megabytes(server: Server) -> float:
    with open(f"/proc/{server.pid}/status") as status:
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status.read())[0]) / 1e3


def test_a_comment_is_stored_whatever_its_bytes(kind: str) -> None:
    with Server(kind, [("names", NAMES)]) as server:
        operations = json.dumps(["Names", insert("a"), {"op": "comment", "comment": "why"}])
        request = b'{"method":"transact","params":%b,"id":0}' % operations.encode()
        _, closed = answers(server, request.replace(b"why", b"\xff"))
        assert not closed
        assert b'"_comment":"\xff"' in server.files["names"].read_bytes()
        server.restart()
        assert names(server.client()) == {"a"}


def test_a_long_message_is_no_error(kind: str) -> None:
    with Server(kind, [("names", NAMES)]) as server:
        client = server.client()
        text = "x" * 20_000_000
        client.transact("Names", insert("long", text))
        (result,) = client.transact(
            "Names", {"op": "select", "table": "Name", "where": [], "columns": ["text"]}
        )
        assert result["rows"] == [{"text": text}]


def test_a_message_in_single_bytes_is_understood(ours: str) -> None:
    with Server(ours, [("names", NAMES)]) as server:
        client = server.client()
        for byte in ECHO:
            client.send_bytes(bytes([byte]))
        assert client.reply("x")["result"] == ["x"]


def test_a_session_that_ends_in_the_middle_of_a_message_harms_nobody(ours: str) -> None:
    with Server(ours, [("names", NAMES)]) as server:
        for length in range(1, len(ECHO)):
            with socket.socket(socket.AF_UNIX) as session:
                session.connect(str(server.socket_path))
                session.sendall(ECHO[:length])
        assert names(server.client()) == set()
        assert server.alive


def test_a_client_that_leaves_before_the_answer_harms_nobody(ours: str) -> None:
    request = json.dumps({"method": "transact", "params": ["Names", insert("")], "id": 0})
    with Server(ours, [("names", NAMES)]) as server:
        for number in range(100):
            client = Client(server.socket_path)
            client.send_bytes(request.replace('""', f'"n{number}"', 1).encode())
            client.close()
        reader = server.client()
        reader.transact("Names", insert("last"))
        assert "last" in names(reader)
        assert "ERR" not in server.log
