"""Real OVSDB servers, and a client to talk to them, for every test that needs one.

A `Server` is a process of its own in a directory of its own: Debian's C server (kind "c") or ours
(kind "ovncp"), started with the same options on files that the real `ovsdb-tool` made, so that a
test differs between the two in one word.  The kinds "etcd" and "postgresql" are three servers of
ours over one such engine, as if they were one, see `Spread`.  `Client` speaks RFC 7047 section 4
over a UNIX or TCP socket with nothing of ovncp's own wire code, so that a bug there cannot hide
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from engines import shared
from ovncp.log.registry import engine as engine_of

# Ample: whoever waits on a busy machine for what comes late is to see it come.
START_SECONDS = 60.0
REPLY_SECONDS = 60.0

OVNCP = str(Path(sys.executable).with_name("ovncp"))
ENGINES = ("etcd", "postgresql")
N_SPREAD = 3
COMMANDS = {
    "c": ["ovsdb-server"],
    "ovncp": [OVNCP, "ovsdb-server"],
    "workers": [OVNCP, "ovsdb-server", "--workers=2"],
    **{engine: [OVNCP, "ovsdb-server"] for engine in ENGINES},
}

Source = dict[str, Any] | bytes | str | Path


class Closed(Exception):
    """The server closed the connection."""


class Timeout(Exception):
    """What was waited for did not come in time."""


class Client:
    """One synchronous JSON-RPC session.

    `notifications` holds what the server sent unasked (its echo requests are answered and left
    out), `replies` the replies nobody has fetched yet, by id in JSON text; `log` holds all
    messages in the order of their arrival.
    """

    def __init__(
        self,
        address: Path | str | tuple[str, int],
        *,
        timeout: float = REPLY_SECONDS,
        parse_float: Callable[[str], Any] = float,
    ) -> None:
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.socket = socket.socket(family)
        self.socket.connect(address if isinstance(address, tuple) else str(address))
        self.timeout = timeout
        self.decoder = json.JSONDecoder(parse_float=parse_float)
        self.buffer = ""
        self.raw = b""
        self.log: list[dict[str, Any]] = []
        self.replies: dict[str, dict[str, Any]] = {}
        self.notifications: list[dict[str, Any]] = []
        self.next_id = 0
        self.closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True
        self.socket.close()

    def send_bytes(self, data: bytes) -> None:
        """Sends `data` as it is; a connection that the server has closed is `Closed`."""
        try:
            self.socket.settimeout(self.timeout)
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._lost() from error

    def send(self, message: Any) -> None:
        self.send_bytes(json.dumps(message).encode())

    def start(self, method: str, params: Any, id: Any = None) -> Any:
        """Sends a request without waiting; returns its id (numbered when `id` is None)."""
        if id is None:
            self.next_id += 1
            id = self.next_id
        self.send({"method": method, "params": params, "id": id})
        return id

    def notify(self, method: str, params: Any) -> None:
        self.send({"method": method, "params": params, "id": None})

    def request(self, method: str, params: Any, id: Any = None) -> dict[str, Any]:
        """The whole reply object: `id`, `result` and `error`."""
        return self.reply(self.start(method, params, id))

    def transact(self, database: str, *operations: dict[str, Any]) -> Any:
        """The `result` of a transact request that must not fail as a request."""
        reply = self.request("transact", [database, *operations])
        assert reply["error"] is None, reply
        return reply["result"]

    def reply(self, id: Any, timeout: float | None = None) -> dict[str, Any]:
        key = json.dumps(id)
        self.wait_until(lambda: key in self.replies, f"a reply to request {key}", timeout)
        return self.replies.pop(key)

    def notification(self, timeout: float | None = None) -> dict[str, Any]:
        """The oldest notification not yet taken, waited for."""
        self.wait_until(lambda: bool(self.notifications), "a notification", timeout)
        return self.notifications.pop(0)

    def sync(self, database: str | None = None) -> None:
        """Returns once the server has answered all that it had to say so far.

        With `database`, also what waits there for a transaction of another client to be stored.
        """
        id = f"sync{self.next_id}-{len(self.log)}"
        if database is None:
            self.request("echo", ["sync"], id)
        else:
            self.request("transact", [database, {"op": "comment", "comment": ""}], id)

    def wait_until(self, done: Callable[[], bool], what: str, timeout: float | None = None) -> None:
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not done():
            left = deadline - time.monotonic()
            if left <= 0 or not self.receive(left):
                raise Timeout(f"no {what} in time")

    def receive(self, timeout: float) -> bool:
        """Reads once from the socket; False when nothing came within `timeout` seconds."""
        self.socket.settimeout(max(timeout, 0.0001))
        try:
            data = self.socket.recv(1 << 20)
        except TimeoutError:
            return False
        except ConnectionResetError as error:
            raise self._lost() from error
        if not data:
            raise self._lost()
        self.raw += data
        self._decode()
        return True

    def _lost(self) -> Closed:
        self.closed = True
        return Closed("the server closed the connection")

    def _decode(self) -> None:
        # A message is an object, so that an end elsewhere than at a brace is not one yet; this
        # spares decoding a long message again with each piece that arrives.
        if not self.raw.rstrip().endswith(b"}"):
            return
        try:
            self.buffer += self.raw.decode()
        except UnicodeDecodeError:
            return
        self.raw = b""
        while text := self.buffer.lstrip():
            try:
                message, end = self.decoder.raw_decode(text)
            except json.JSONDecodeError:
                return
            self.buffer = text[end:]
            self._take(message)
        self.buffer = ""

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("method") == "echo":
            self.send({"id": message["id"], "result": message["params"], "error": None})
            return
        self.log.append(message)
        if "method" in message:
            self.notifications.append(message)
        else:
            self.replies[json.dumps(message.get("id"))] = message


class Server:
    """One running server with its own directory; a context manager that leaves nothing behind.

    `databases` are pairs of a name (that of the file) and a source: a schema (an object, or the
    path of an `.ovsschema` file), or a database file to copy (its path, or its bytes).
    `options` go to the command line as they are.  `tcp` asks for a TCP listener too, whose
    number is `port` then.  `patience` is how many seconds starting and stopping may take.
    """

    def __new__(cls, kind: str = "ovncp", *_: object, **__: object) -> Self:
        """One of a class for the kind, as `pathlib.Path` is one for the system."""
        return super().__new__(Spread if kind in ENGINES else cls)  # type: ignore[return-value]

    def __init__(
        self,
        kind: str = "ovncp",
        databases: Iterable[tuple[str, Source]] = (),
        *,
        options: Sequence[str] = (),
        tcp: bool = False,
        env: dict[str, str] | None = None,
        start: bool = True,
        patience: float = START_SECONDS,
    ) -> None:
        self.kind = kind
        self.directory = Path(tempfile.mkdtemp(prefix="ovsdb-"))
        self.own_socket = self.directory / "db.sock"
        self.control = self.directory / "ovsdb-server.ctl"
        self.log_path = self.directory / "ovsdb-server.log"
        self.options = list(options)
        self.tcp = tcp
        self.patience = patience
        self.env = self._environment() | (env or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[Client] = []
        try:
            self.files = {name: self.create(name, source) for name, source in databases}
            if start:
                self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _environment(self) -> dict[str, str]:
        names = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        return os.environ | dict.fromkeys(names, str(self.directory))

    def create(self, name: str, source: Source) -> Path:
        """The database file `name`.db, made from `source` (see the class)."""
        path = self.directory / f"{name}.db"
        if isinstance(source, bytes):
            path.write_bytes(source)
        elif isinstance(source, dict):
            schema = self.directory / f"{name}.ovsschema"
            schema.write_text(json.dumps(source))
            run("ovsdb-tool", "create", path, schema)
        elif str(source).endswith(".ovsschema"):
            run("ovsdb-tool", "create", path, source)
        else:
            shutil.copyfile(source, path)
        return path

    @property
    def command(self) -> list[str]:
        return [
            *COMMANDS[self.kind],
            f"--remote=punix:{self.own_socket}",
            *(["--remote=ptcp:0:127.0.0.1"] if self.tcp else []),
            f"--unixctl={self.control}",
            f"--log-file={self.log_path}",
            "-vconsole:off",
            *self.options,
            *map(str, self.files.values()),
        ]

    def start(self) -> None:
        """Starts the process and returns when it listens; what it printed is in `output`."""
        self.launch()
        self.wait_until_it_listens()

    def launch(self) -> None:
        """Starts the process."""
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def wait_until_it_listens(self) -> None:
        """Returns when it takes connections; RuntimeError if it does not."""
        deadline = time.monotonic() + self.patience
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind} server did not start:\n{self.output}{self.log}")
            time.sleep(0.005)

    def _listens(self) -> bool:
        return listens(self.control) and listens(self.own_socket)

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server was not started"
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def own_log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    @property
    def log(self) -> str:
        return self.own_log

    @property
    def output(self) -> str:
        path = self.directory / "output"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def members(self) -> list[Server]:
        """The servers of one process each that this is."""
        return [self]

    @property
    def socket_path(self) -> Path:
        """Where the next client is to connect."""
        return self.own_socket

    @property
    def own_port(self) -> int:
        """The TCP port in the log's last `listening on port` line, which may be a moment late."""
        deadline = time.monotonic() + REPLY_SECONDS
        while not (ports := re.findall(r"listening on port (\d+)\n", self.own_log)):
            assert time.monotonic() < deadline, f"no port in the log:\n{self.own_log}"
            time.sleep(0.01)
        return int(ports[-1])

    @property
    def port(self) -> int:
        """The TCP port where the next client is to connect."""
        return self.own_port

    @property
    def remote(self) -> str:
        """The server's address as `--db` of a real client takes it."""
        return f"unix:{self.socket_path}"

    def client(self, *, tcp: bool = False, **options: Any) -> Client:
        """A new session, closed with the server at the latest."""
        address = ("127.0.0.1", self.port) if tcp else self.socket_path
        client = Client(address, **options)
        self.clients.append(client)
        return client

    def own_appctl(self, *args: str) -> str:
        """What the runtime command printed; `subprocess.CalledProcessError` if it failed."""
        return run("ovs-appctl", "-t", self.control, *args)

    def appctl(self, *args: str) -> str:
        """See `own_appctl`."""
        return self.own_appctl(*args)

    def signal(self, number: int) -> int:
        """Sends a signal, and returns the exit status."""
        assert self.process is not None, "the server was not started"
        self.process.send_signal(number)
        return self.process.wait(self.patience)

    def kill9(self) -> None:
        self.signal(signal.SIGKILL)

    def stop(self) -> int:
        """Ends the server by `exit`; its exit status."""
        assert self.process is not None, "the server was not started"
        self.appctl("exit")
        return self.process.wait(self.patience)

    def restart(self) -> None:
        """Starts the server on its files again, stopping it first if it runs."""
        if self.alive:
            self.stop()
        # A killed server leaves its socket, to which a connection would be refused anyway.
        self.start()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if self.process is not None and self.alive:
            self.process.kill()
            self.process.wait()
        end_all(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)


class Spread(Server):
    """Three servers over one log for each database, on an engine that all tests share.

    What is done to it is done to all three, runtime commands too, of which the first one's answer
    counts; whoever asks for an address (`socket_path`, `remote`, `port`, `client()`) gets that of
    another one than the last time.  `files` are the locations of the databases.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.fellows: list[Server] = []
        self._turns = itertools.cycle(range(N_SPREAD))
        super().__init__(*arguments, **options)

    def create(self, name: str, source: Source) -> str:  # type: ignore[override]
        """A database of its own on the engine, of what `source` has; its location."""
        url = shared(self.kind).url(database=f"{name}-{secrets.token_hex(4)}")
        if isinstance(source, str | Path) and str(source).endswith(".ovsschema"):
            source = json.loads(Path(source).read_text())
        if isinstance(source, dict):
            asyncio.run(engine_of(url).create(url, json.dumps(source).encode()))
        else:
            run(OVNCP, "db", "import", super().create(name, source), url)
        return url

    @property
    def members(self) -> list[Server]:
        return [self, *self.fellows]

    @property
    def socket_path(self) -> Path:
        return self.members[next(self._turns)].own_socket

    @property
    def port(self) -> int:
        return self.members[next(self._turns)].own_port

    @property
    def log(self) -> str:
        return "".join(member.own_log for member in self.members)

    def appctl(self, *args: str) -> str:
        for fellow in self.fellows:
            fellow.appctl(*args)
        return super().appctl(*args)

    def start(self) -> None:
        if not self.fellows:
            options = [*self.options, *self.files.values()]
            self.fellows = [
                Server("ovncp", options=options, tcp=self.tcp, start=False, patience=self.patience)
                for _ in range(N_SPREAD - 1)
            ]
        for fellow in self.fellows:
            fellow.launch()
        super().start()
        for fellow in self.fellows:
            fellow.wait_until_it_listens()

    def signal(self, number: int) -> int:
        for fellow in self.fellows:
            fellow.signal(number)
        return super().signal(number)

    def stop(self) -> int:
        status = super().stop()
        for fellow in self.fellows:
            fellow.process.wait(self.patience)
        return status

    def close(self) -> None:
        for fellow in self.fellows:
            fellow.close()
        super().close()


def listens(path: Path) -> bool:
    """Whether the socket takes connections; there is a moment when it is there and does not."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def of_one_process(kind: str) -> str:
    """The kind of a server beside one of this kind that shares nothing."""
    return "ovncp" if kind in ENGINES else kind


def relay_of(
    kind: str, *sources: Server, databases: Sequence[str], options: Sequence[str] = ()
) -> Server:
    """A relay of `databases`, which are at each of `sources`, ready to be used."""
    remotes = ",".join(source.remote for source in sources)
    kind = of_one_process(kind)
    specs = [f"relay:{name}:{remotes}" for name in databases]
    relay = Server(kind, options=[*options, *specs])
    for name in databases:
        run("ovsdb-client", "--timeout=60", "wait", relay.remote, name, "connected")
    return relay


def end_all(directory: Path) -> None:
    """Ends the processes that have `directory` as their OVS_RUNDIR, children and daemons too."""
    while pids := _processes_of(directory):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _processes_of(directory: Path) -> list[int]:
    mark, pids = f"OVS_RUNDIR={directory}".encode(), []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        # A process may end meanwhile.
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                pids.append(int(pid))
    return pids


def run(*command: str | Path) -> str:
    """The standard output of a program that must succeed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
        error.add_note(done.stderr)
        raise error
    return done.stdout
