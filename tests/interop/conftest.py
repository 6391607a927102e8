"""A network of NB and SB databases, and a home for daemons, neither of which leaves anything."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.programs import KIND, Network, processes_of, wait_for
from servers import ENGINES

ON_ENGINES = {"test_clients", "test_hypervisor", "test_ovn", "test_python", "test_rbac"}
"""The modules whose tests run on engines too, at all times; INTEROP_KIND has others run there."""

NOT_ON_ENGINES = {
    "test_appctl": "commands and the file of one server; those of a cluster are in tests/clustered",
    "test_cluster_files": "files of C's clusters",
    "test_command_line": "how one server is started, on files",
    "test_configuration_file": "names files",
    "test_databases_change": "a database is a file that a server adds",
    "test_db_remotes": "three servers would want the port, and the status, of one row",
    "test_dev_cluster": "a command of its own",
    "test_file_format": "files",
    "test_metrics": "one server's, whose kind is given",
    "test_running": "how one server is run, on files",
    "test_startup_scripts": "start servers on files",
    "test_up": "a command of its own, for files",
    "test_workers": "one server's, whose kind is given",
}
"""What is not about the kind of server that INTEROP_KIND may name, and why, by module."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for the `kind` on each that it is to run on."""
    if "kind" in metafunc.fixturenames and _module(metafunc.module.__name__) in ON_ENGINES:
        metafunc.parametrize("kind", [KIND, *(ENGINES if KIND == "ovncp" else [])])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not about the kind of server."""
    here = Path(__file__).parent
    left_out = [
        item
        for item in items
        if KIND in ENGINES and item.path.parent == here and item.path.stem in NOT_ON_ENGINES
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _module(name: str) -> str:
    return name.rpartition(".")[2]


@pytest.fixture
def kind() -> str:
    """The kind of server that a test is about."""
    return KIND


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a path short enough for sockets in it; its processes must have ended."""
    directory = Path(tempfile.mkdtemp(prefix="ovs-"))
    yield directory
    wait_for(lambda: not processes_of(directory), f"these to end: {processes_of(directory)}", 5)
    shutil.rmtree(directory)


@pytest.fixture
def network(kind: str) -> Iterator[Network]:
    with Network(kind) as network:
        yield network
    assert processes_of(network.directory) == []
