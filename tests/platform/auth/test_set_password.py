"""`ovncp api set-password`: who lost a password has another one, from the database itself."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ovncp.auth.settings import DatabaseSettings
from ovncp.cli import set_password
from platform_node import Node, databases
from servers import OVNCP, Server

FIRST = "The first user is admin, with the password "
MINE = "the password of me"
OTHER = "another long password"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with databases("ovncp") as server:
        yield server


class Accounts(NamedTuple):
    """A node of which `client` is an administrator, "me"; and the first password of "admin"."""

    node: Node
    url: str
    lost: str

    @property
    def env(self) -> dict[str, str]:
        """Where the database is."""
        return {**os.environ, "DATABASE_URL": self.url}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def accounts(
    request: pytest.FixtureRequest,
    server: Server,
    new_database: Callable[[str], DatabaseSettings],
) -> Iterator[Accounts]:
    """Those of a node that each test has a user of its own at."""
    url = new_database(request.param).primary
    env = {**os.environ, "DATABASE_URL": url}
    with Node(server.remote, server.remote, env=env) as node:
        lost = node.told(FIRST)
        node.client.auth = ("admin", lost)
        node.post("/users", {"name": "me", "role": "admin", "password": MINE})
        node.client.auth = ("me", MINE)
        yield Accounts(node, url, lost)


def as_process(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [OVNCP, "api", "set-password", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


class Said(NamedTuple):
    """How the verb ended, and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Runs the verb in this process."""

    def run(*arguments: str, url: str, given: str = "") -> Said:
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        capsys.readouterr()
        return Said(set_password.main(arguments), *capsys.readouterr())

    return run


def logs_in(node: Node, name: str, password: str) -> Callable[[], int]:
    """Log in; asks with the token for the status of an answer."""
    token = node.post("/login", {"name": name, "password": password}, 200)["token"]
    headers = {"authorization": f"Bearer {token}"}
    return lambda: node.client.get("/me", headers=headers, auth=None).status_code


def test_while_a_node_runs(accounts: Accounts, verb: Callable[..., Said]) -> None:
    node = accounts.node
    ask = logs_in(node, "admin", accounts.lost)
    done = as_process("admin", env=accounts.env)
    assert (done.returncode, done.stderr) == (0, "")
    words = done.stdout.split()
    assert words[:-1] == ["The", "user", "admin", "has", "the", "password"]
    node.post("/login", {"name": "admin", "password": accounts.lost}, 401)
    assert ask() == 401
    assert logs_in(node, "admin", words[-1])() == 200

    said = verb("admin", "--stdin", url=accounts.url, given=f"{OTHER}\n")
    assert (said.status, said.err) == (0, "") and OTHER not in said.out
    assert logs_in(node, "admin", OTHER)() == 200
    last, first = node.get("/audit", resource="users", limit=2)["items"]
    admin = node.get("/users/admin")
    for record in (last, first):
        assert record["principal"].startswith("console:")
        assert (record["action"], record["result"]) == ("change", "done")
        assert record["target"] == admin["id"]
        assert record["before"]["name"] == record["after"]["name"] == "admin"
    assert OTHER not in str(last) and words[-1] not in str(first)


REFUSED = {
    ("eve",): "there is no user eve",
    ("me", "--stdin"): "a password has from 12 to 256 characters",
    (): "one user is wanted",
    ("me", "eve"): "one user is wanted",
    ("--pasword=x", "me"): "unrecognized option '--pasword=x'",
}


def test_what_cannot_be_done_is_told_and_nothing_is_changed(
    accounts: Accounts, verb: Callable[..., Said]
) -> None:
    ask = logs_in(accounts.node, "me", MINE)
    for arguments, reason in REFUSED.items():
        said = verb(*arguments, url=accounts.url, given="short\n")
        assert (said.status, said.out) == (1, "") and reason in said.err
    done = as_process("eve", env=accounts.env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "ovncp api set-password: there is no user eve\n"
    assert ask() == 200


def test_a_database_that_no_node_was_started_with(
    database_settings: DatabaseSettings, verb: Callable[..., Said]
) -> None:
    said = verb("admin", url=database_settings.primary)
    known = {"sqlite": "there are no accounts", "postgresql": "the database has no accounts"}
    reason = known["sqlite" if database_settings.sqlite_file else "postgresql"]
    assert (said.status, said.out) == (1, "") and reason in said.err


def test_without_a_database_it_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Callable[..., Said]
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    monkeypatch.chdir(tmp_path)
    done = as_process("admin", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no {tmp_path}/var/accounts.db" in done.stderr and "Traceback" not in done.stderr
    said = verb("admin", url="postgresql://ovncp@127.0.0.1:1/none")
    assert (said.status, said.out) == (1, "") and "the database is out of reach" in said.err
    assert list(tmp_path.iterdir()) == []


def test_who_is_not_active_stays_so(accounts: Accounts, verb: Callable[..., Said]) -> None:
    node = accounts.node
    node.post("/users", {"name": "ann", "role": "viewer"})
    node.patch("/users/ann", {"is_active": False})
    said = verb("ann", "--stdin", url=accounts.url, given=OTHER)
    assert said.status == 0
    assert "ann is not active" in said.err
    node.post("/login", {"name": "ann", "password": OTHER}, 401)
