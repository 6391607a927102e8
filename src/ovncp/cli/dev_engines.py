"""The engines that `ovncp dev-cluster` can run: their programs, and where a log is on them.

Nobody needs a password to reach them, nor to reach the servers: all of it is for this machine only.
"""

import os
import pwd
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from ovncp.cli.foreground import find
from ovncp.server.preflight import LOOPBACK, Refused
from ovncp.server.supervisor import Program


class DevEngine(ABC):
    """One engine, with all that is its own in `directory`, on TCP `ports` of its own.

    `name` is what the log says; `victim` is a program to kill for a try, and what it is in words.
    """

    name: str
    victim: tuple[str, str]
    n_ports: int

    def __init__(self, directory: Path, ports: Sequence[int]):
        """Raises Refused if it is not installed."""
        self.directory = directory
        self.ports = ports

    @property
    @abstractmethod
    def addresses(self) -> str:
        """Where its clients connect to."""

    @abstractmethod
    def location(self, database: str) -> str:
        """The URL of a log on it."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what has to be there before the first start, if it is not.  Raises Refused."""

    @abstractmethod
    def programs(self) -> list[Program]:
        """What runs, in the order of the start."""

    def program(self, name: str, argv: Sequence[str], address: str) -> Program:
        """One that serves at `address`, and writes neither a pidfile nor a file for its log."""
        pidfile, log = self.directory / f"{name}.pid", self.directory / f"{name}.log"
        return Program(name, tuple(argv), f"tcp:{address}", pidfile=pidfile, log=log)


class Etcd(DevEngine):
    """Three members."""

    name = "etcd"
    victim = "etcd-1", "a member of etcd"
    n_ports = 6  # of each the clients', and then of each the other members'

    _NUMBERS = (1, 2, 3)

    def __init__(self, directory: Path, ports: Sequence[int]):
        super().__init__(directory, ports)
        etcd = find("etcd")
        if etcd is None:
            raise Refused("etcd is not installed (on Debian: apt-get install etcd-server)")
        self._etcd = etcd

    @property
    def addresses(self) -> str:
        return ",".join(map(self._clients, self._NUMBERS))

    def location(self, database: str) -> str:
        return f"etcd://{self.addresses}/dev-cluster?db={database}"

    def prepare(self) -> None:
        """See `DevEngine.prepare`; members do it themselves."""

    def programs(self) -> list[Program]:
        return [self._member(number) for number in self._NUMBERS]

    def _member(self, number: int) -> Program:
        name = f"etcd-{number}"
        clients, peers = self._clients(number), self._peers(number)
        members = ",".join(f"etcd-{other}={self._peers(other)}" for other in self._NUMBERS)
        argv = (
            self._etcd,
            f"--name={name}",
            f"--data-dir={self.directory / name}",
            f"--listen-client-urls=http://{clients}",
            f"--advertise-client-urls=http://{clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster={members}",
            "--logger=zap",
        )
        return self.program(name, argv, clients)

    def _clients(self, number: int) -> str:
        return f"{LOOPBACK}:{self.ports[number - 1]}"

    def _peers(self, number: int) -> str:
        return f"http://{LOOPBACK}:{self.ports[number + 2]}"


class PostgreSQL(DevEngine):
    """One server; the user `postgres` runs it where we are root, as whom it refuses to run."""

    name = "postgres"
    victim = "postgres", "PostgreSQL"
    n_ports = 1

    _USER = "postgres"
    _DEBIANS = Path("/usr/lib/postgresql")
    # Nobody is let in as a superuser, who may do on the machine what PostgreSQL's user may.
    _ACCESS = f"host ovncp ovncp {LOOPBACK}/32 trust\n"
    _FIRST_STATEMENTS = b"CREATE ROLE ovncp LOGIN\nCREATE DATABASE ovncp OWNER ovncp\n"

    def __init__(self, directory: Path, ports: Sequence[int]):
        super().__init__(directory, ports)
        self._data = directory / "postgres"
        self._postgres = self._find("postgres")
        self._initdb = self._find("initdb")
        self._prefix = self._become_another() if os.getuid() == 0 else ()

    def _find(self, program: str) -> str:
        """A program of PostgreSQL: of the version that the data are of, or else of the latest."""
        package, version = "postgresql", "[1-9][0-9]"
        if (self._data / "PG_VERSION").exists():
            version = (self._data / "PG_VERSION").read_text().strip()
            package = f"postgresql-{version}"
        debians = map(str, self._DEBIANS.glob(f"{version}/bin/{program}"))
        path = max(debians, default=find(program))
        if path is None:
            raise Refused(f"{program} is not installed (on Debian: apt-get install {package})")
        return path

    def _become_another(self) -> tuple[str, ...]:
        try:
            pwd.getpwnam(self._USER)
        except KeyError as error:
            text = f"PostgreSQL does not run as root, and there is no user {self._USER!r}"
            raise Refused(f"{text}: run this as another user") from error
        identity = (f"--reuid={self._USER}", f"--regid={self._USER}", "--init-groups")
        # A process that becomes another user's is not to die with its parent any more.
        return ("setpriv", *identity, "--pdeathsig=TERM", "--")

    @property
    def addresses(self) -> str:
        return f"{LOOPBACK}:{self.ports[0]}"

    def location(self, database: str) -> str:
        return f"postgresql://ovncp@{self.addresses}/ovncp?db={database}"

    def prepare(self) -> None:
        """See `DevEngine.prepare`; what was begun and not finished begins anew."""
        if self._data.exists():
            return
        begun = self.directory / "postgres.begun"
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir(mode=0o700)
        if self._prefix:
            shutil.chown(begun, self._USER, self._USER)
        try:
            self._run("test", "-w", str(begun))
        except Refused as error:
            text = f"the user {self._USER!r}, as whom PostgreSQL runs, cannot reach {begun}"
            raise Refused(f"{text}: name another directory with --data-dir") from error
        self._run(self._initdb, "-D", str(begun), "--encoding=UTF8", "--no-locale", "--auth=reject")
        (begun / "pg_hba.conf").write_text(self._ACCESS)
        single = (self._postgres, "--single", "-c", "exit_on_error=on", "-D", str(begun))
        self._run(*single, "postgres", statements=self._FIRST_STATEMENTS)
        begun.rename(self._data)

    def _run(self, *command: str, statements: bytes = b"") -> None:
        argv = (*self._prefix, *command)
        done = subprocess.run(argv, input=statements, capture_output=True, check=False, cwd="/")
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise Refused(f"cannot run {command[0]}: {(lines or ['it said nothing'])[-1]}")

    def programs(self) -> list[Program]:
        argv = (
            *self._prefix,
            self._postgres,
            *("-D", str(self._data)),
            *("-p", str(self.ports[0])),
            *("-c", f"listen_addresses={LOOPBACK}"),
            *("-c", "unix_socket_directories="),
        )
        return [self.program(self.name, argv, self.addresses)]


ENGINES: dict[str, type[DevEngine]] = {"etcd": Etcd, "postgresql": PostgreSQL}
"""By what --engine says."""
