"""`ovncp api set-password`: who lost a password has another one, from the database itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from ovncp.auth.settings import DatabaseSettings
from platform_node import Node, databases
from servers import OVNCP, Server

OTHER = "another long password"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with databases("ovncp") as server:
        yield server


@pytest.fixture
def env(database_settings: DatabaseSettings) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": database_settings.primary}


def set_password(
    *arguments: str, env: dict[str, str], given: str = "", **options
) -> subprocess.CompletedProcess[str]:
    command = [OVNCP, "api", "set-password", *arguments]
    return subprocess.run(
        command, input=given, env=env, capture_output=True, text=True, timeout=60, **options
    )


def refused(*arguments: str, env: dict[str, str], given: str = "", **options) -> str:
    """What is said of a password that is not set."""
    done = set_password(*arguments, env=env, given=given, **options)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    return done.stderr


def first_password(node: Node) -> str:
    assert node.process.stdout is not None
    return node.process.stdout.readline().decode().split()[-1]


def logs_in(node: Node, password: str) -> Callable[[], int]:
    """Log in; asks with the token for the status of an answer."""
    token = node.post("/login", {"name": "admin", "password": password}, 200)["token"]
    headers = {"authorization": f"Bearer {token}"}
    return lambda: node.client.get("/me", headers=headers).status_code


def test_while_a_node_runs(server: Server, env: dict[str, str]) -> None:
    with Node(server.remote, server.remote, env=env) as node:
        lost = first_password(node)
        ask = logs_in(node, lost)
        done = set_password("admin", env=env)
        assert (done.returncode, done.stderr) == (0, "")
        words = done.stdout.split()
        assert words[:-1] == ["The", "user", "admin", "has", "the", "password"]
        node.post("/login", {"name": "admin", "password": lost}, 401)
        assert ask() == 401
        assert logs_in(node, words[-1])() == 200

        done = set_password("admin", "--stdin", env=env, given=f"{OTHER}\n")
        assert (done.returncode, done.stderr) == (0, "") and OTHER not in done.stdout
        node.client.auth = ("admin", OTHER)
        last, first = node.get("/audit", resource="users")["items"]
        me = node.get("/me")
        for record in (last, first):
            assert record["principal"].startswith("console:")
            assert (record["action"], record["result"]) == ("change", "done")
            assert record["target"] == me["id"]
            assert record["before"]["name"] == record["after"]["name"] == "admin"
        assert OTHER not in str(last) and words[-1] not in str(first)


def test_what_cannot_be_done_is_told_and_nothing_is_changed(
    server: Server, env: dict[str, str]
) -> None:
    assert "there are no accounts" in (said := refused("admin", env=env)) or (
        "the database has no accounts" in said
    )
    with Node(server.remote, server.remote, env=env) as node:
        password = first_password(node)
        ask = logs_in(node, password)
        assert "there is no user eve" in refused("eve", env=env)
        short = refused("admin", "--stdin", env=env, given="short\n")
        assert "a password has from 12 to 256 characters" in short
        assert "one user is wanted" in refused(env=env)
        assert "one user is wanted" in refused("admin", "eve", env=env)
        assert "unrecognized option '--pasword=x'" in refused("--pasword=x", "admin", env=env)
        assert ask() == 200


def test_without_a_database_it_says_where_it_looked(tmp_path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    assert f"no {tmp_path}/var/accounts.db" in refused("admin", env=env, cwd=tmp_path)
    away = {**env, "DATABASE_URL": "postgresql://ovncp@127.0.0.1:1/none"}
    assert "the database is out of reach" in refused("admin", env=away)
    assert list(tmp_path.iterdir()) == []


def test_who_is_not_active_stays_so(server: Server, env: dict[str, str]) -> None:
    with Node(server.remote, server.remote, env=env) as node:
        node.client.auth = ("admin", first_password(node))
        node.post("/users", {"name": "ann", "role": "viewer"})
        node.patch("/users/ann", {"is_active": False})
        done = set_password("ann", "--stdin", env=env, given=OTHER)
        assert done.returncode == 0
        assert "ann is not active" in done.stderr
        node.post("/login", {"name": "ann", "password": OTHER}, 401)
