"""A network of NB and SB databases, and a home for daemons, neither of which leaves anything."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.programs import KIND, Network, processes_of, wait_for
from servers import ENGINES

ON_ENGINES = {"test_clients", "test_hypervisor", "test_ovn", "test_python"}
"""The modules whose tests run on engines too, at all times; INTEROP_KIND has others run there."""

NOT_ON_ENGINES = {
    "test_appctl": "commands and the file of one server; those of a cluster are in tests/clustered",
    "test_cluster_files": "files of C's clusters",
    "test_command_line": "how one server is started, on files",
    "test_configuration_file": "names files",
    "test_db_remotes": "three servers would want the port, and the status, of one row",
    "test_dev_cluster": "a command of its own",
    "test_file_format": "files",
    "test_metrics": "one server's, whose kind is given",
    "test_running": "how one server is run, on files",
    "test_startup_scripts": "start servers on files",
    "test_up": "a command of its own, for files",
    "test_workers": "one server's, whose kind is given",
    "test_a_lock_is_held_by_one_and_can_be_stolen": "of clients of several servers that wait for "
    "a lock, any may be the next; tests/clustered/test_locks.py has what holds",
}
"""Modules and tests that do not apply to three servers over an engine, and why."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for the `kind` on each that it is to run on."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if "kind" in metafunc.fixturenames and module in ON_ENGINES:
        everywhere = KIND == "ovncp" and metafunc.function.__name__ not in NOT_ON_ENGINES
        metafunc.parametrize("kind", [KIND, *(ENGINES if everywhere else [])])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not apply."""
    if KIND in ENGINES:
        left_out = [item for item in items if not _applies(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = filter(_applies, items)


def _applies(item: pytest.Item) -> bool:
    is_here = item.path.parent == Path(__file__).parent
    names = {item.path.stem, item.name.partition("[")[0]}
    return not (is_here and names & NOT_ON_ENGINES.keys())


@pytest.fixture
def kind() -> str:
    """The kind of server that a test is about."""
    return KIND


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a path short enough for sockets in it; its processes must have ended."""
    directory = Path(tempfile.mkdtemp(prefix="ovs-"))
    yield directory
    wait_for(lambda: not processes_of(directory), f"these to end: {processes_of(directory)}")
    shutil.rmtree(directory)


@pytest.fixture
def network(kind: str) -> Iterator[Network]:
    with Network(kind) as network:
        yield network
    assert processes_of(network.directory) == []
