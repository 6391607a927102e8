"""The control socket, by the real ovs-appctl and by raw bytes, beside the C server."""

import json
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.habits import Place, is_alive, wait_until


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Our daemon on ours.ctl and the C server on c.ctl."""
    with Place(tmp_path_factory.mktemp("unixctl")) as place:
        for run, name in ((place.ours, "ours"), (place.c, "c")):
            done = run(
                *("--detach", "--overwrite-pidfile"),
                f"--pidfile={name}.pid",
                f"--unixctl={name}.ctl",
                f"--log-file={place.path}/{name}.log",
            )
            assert done.returncode == 0, done.stderr
        yield place


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Place]:
    """A place with nothing in it yet."""
    with Place(tmp_path) as place:
        yield place


@pytest.mark.parametrize(
    "command",
    [
        ["version"],
        ["vlog/list"],
        ["vlog/list-pattern"],
        ["vlog/list", "x"],
        ["vlog/set", "nonesuch"],
        ["vlog/set", "console:file:dbg"],
        ["vlog/set", "info:dbg"],
        ["vlog/set", "jsonrpc:raft"],
        ["vlog/set", "PATTERN"],
        ["vlog/set", "PATTERN:x:y"],
        ["vlog/set", "FACILITY:x"],
        ["vlog/set", "FACILITY:local7"],
        ["vlog/disable-rate-limit", "nonesuch"],
        ["vlog/reopen"],
        ["vlog/close"],
        ["coverage/read-counter"],
        ["coverage/read-counter", "nonesuch"],
        ["coverage/read-counter", "a", "b"],
        ["coverage/show", "x"],
        ["nonesuch"],
        ["nonesuch", "x"],
    ],
    ids=" ".join,
)
def test_answers_as_the_c_server_does(place: Place, command: list[str]) -> None:
    ours, c = place.appctl("ours.ctl", *command), place.appctl("c.ctl", *command)
    if command == ["vlog/list"]:
        assert set(c.stdout.splitlines()) <= set(ours.stdout.splitlines())
        return
    assert (ours.returncode, ours.stdout) == (c.returncode, c.stdout)
    assert ours.stderr == c.stderr.replace("c.ctl", "ours.ctl")


def test_list_commands(place: Place) -> None:
    ours, c = (place.appctl(f"{name}.ctl", "list-commands").stdout for name in ("ours", "c"))
    assert ours.splitlines()[0] == c.splitlines()[0]
    shared = [line for line in c.splitlines() if re.match(r"  (vlog|coverage|list|version)", line)]
    assert shared == [line for line in ours.splitlines() if line in shared]


def test_a_handler_may_wait_and_fail(place: Place) -> None:
    done = place.appctl("ours.ctl", "fail", "why")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "as told: why"


def test_a_defect_of_a_command_is_only_its_own(place: Place) -> None:
    place.appctl("ours.ctl", "vlog/reopen")
    done = place.appctl("ours.ctl", "break")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "break: internal error: division by zero",
    )
    assert place.appctl("ours.ctl", "version").returncode == 0
    assert "|unixctl|ERR|break failed\nTraceback" in place.read("ours.log")


def exchange(place: Place, target: str, request: bytes) -> bytes:
    """What a server answers to raw bytes, until it is silent or hangs up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(place.path / target))
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


@pytest.mark.parametrize(
    "request_",
    [
        b'{"id":0,"method":"version","params":[]}',
        b'{"id":0,"method":"version","params":[]}{"id":1,"method":"nope","params":[]}',
        b'{"id":0,"method":"version","params":[1]}',
        b'{"id":0,"method":"vlog/set","params":["info",3]}',
        b'{"id":[{"b":1}],"method":"\xc3\xa9","params":[]}',
        b'{"id":0,"method":"version","params":[],"result":null,"error":null}',
        b'{"id":null,"method":"version","params":[]}',
        b'{"method":"version","params":[]}',
        b'{"id":"x","method":"version","params":{}}',
        b'{"id":"x","method":3,"params":[]}',
        b'{"id":"x","method":"version","params":[],"other":1}',
        b'{"id":5,"result":1,"error":null}',
        b"[]",
        b"{]",
    ],
)
def test_raw_requests_are_answered_as_by_the_c_server(place: Place, request_: bytes) -> None:
    # C reads on after a half-closed client's last request, but not always before it sees the end;
    # so the answers are compared as a prefix of what was asked one by one.
    ours = exchange(place, "ours.ctl", request_)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(place.path / "c.ctl"))
        connection.sendall(request_)
        # Where ours says nothing, C is given a moment to say something else.
        connection.settimeout(60 if ours else 0.3)
        c = b""
        try:
            while len(c) < max(len(ours), 1) and (data := connection.recv(65536)):
                c += data
        except TimeoutError:
            pass
    assert ours == c


def test_a_mistake_after_a_request_does_not_lose_the_answer(place: Place) -> None:
    answer = exchange(place, "ours.ctl", b'{"id":0,"method":"version","params":[]}{]')
    assert json.loads(answer)["id"] == 0


def test_json_format(place: Place) -> None:
    """Newer ovs-appctl's `--format json`; C 3.1 does not know it yet."""
    requests = [("set-options", ["--format", "json"]), ("version", []), ("nope", [])]
    text = "".join(
        json.dumps({"id": n, "method": m, "params": p}) for n, (m, p) in enumerate(requests)
    )
    answer = exchange(place, "ours.ctl", text.encode()).decode()
    decoder, replies = json.JSONDecoder(), []
    while answer:
        reply, end = decoder.raw_decode(answer)
        replies.append(reply.get("result") or reply["error"])
        answer = answer[end:]
    plain = {"reply-format": "plain", "reply": "ovsdb-server (Open vSwitch) 3.1.0"}
    assert replies[1] == plain
    assert replies[2].startswith('"nope" is not a valid command')


def test_socket_mode_is_the_c_servers(place: Place) -> None:
    ours, c = (stat.S_IMODE((place.path / f"{name}.ctl").stat().st_mode) for name in ("ours", "c"))
    assert oct(ours) == oct(c)


def test_default_path_and_removal(bare: Place) -> None:
    assert bare.ours("--detach", "--pidfile").returncode == 0
    pid = bare.pid()
    assert (bare.path / f"ovsdb-server.{pid}.ctl").exists()
    assert bare.appctl("ovsdb-server", "version").returncode == 0
    assert bare.appctl("ovsdb-server", "exit").returncode == 0
    wait_until(lambda: not is_alive(pid))
    assert list(bare.path.iterdir()) == []


def test_a_long_path(bare: Place) -> None:
    deep = bare.path / ("d" * 120)
    deep.mkdir()
    assert bare.ours("--detach", "--pidfile", f"--unixctl={deep}/x.ctl").returncode == 0
    assert bare.appctl(f"{deep}/x.ctl", "exit").returncode == 0


def test_none(bare: Place) -> None:
    assert bare.ours("--detach", "--pidfile", "--unixctl=none").returncode == 0
    assert list(bare.path.glob("*.ctl")) == []


def test_a_socket_that_cannot_be_made(bare: Place) -> None:
    ours, c = (run("--unixctl=/nonexistent/x.ctl") for run in (bare.ours, bare.c))
    assert ours.returncode == c.returncode == 1
    assert ours.stderr.splitlines()[-1] == c.stderr.splitlines()[-1]
