"""Real engines for the operator's verbs, and the command that works on them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engines import EtcdCluster, Postgres

OVNCP = Path(sys.executable).with_name("ovncp")


@dataclass(frozen=True)
class Done:
    """What a run of `ovncp db` came to."""

    status: int
    output: str
    error: str

    @property
    def json(self) -> Any:
        """What `--json` printed."""
        return json.loads(self.output)


class Command:
    """Runs `ovncp db` in `directory`, where relative paths are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, *arguments: object) -> Done:
        done = subprocess.run(
            [OVNCP, "db", *map(str, arguments)],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=200,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def well(self, *arguments: object) -> Done:
        """As a call, which has to end with status 0."""
        done = self(*arguments)
        assert done.status == 0, done
        return done


@pytest.fixture
def directory() -> Iterator[Path]:
    """A folder whose name is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="db-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def db(directory: Path) -> Command:
    """`ovncp db`, in a folder of its own."""
    return Command(directory)


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdCluster]:
    """One member, which no test may harm."""
    with EtcdCluster(1) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server that no test may harm."""
    with Postgres() as server:
        yield server


@pytest.fixture(params=["file", "etcd", "postgresql"])
def url(request: pytest.FixtureRequest, directory: Path) -> str:
    """Where a new log can be made, on each kind of engine."""
    name = f"T{os.urandom(4).hex()}"
    if request.param == "file":
        return str(directory / f"{name}.db")
    engine = request.getfixturevalue({"etcd": "etcd", "postgresql": "postgres"}[request.param])
    return engine.url(name)
