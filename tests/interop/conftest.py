"""A network of NB and SB databases, and a home for daemons, neither of which leaves anything."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.programs import Network, processes_of, wait_for


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a path short enough for sockets in it; its processes must have ended."""
    directory = Path(tempfile.mkdtemp(prefix="ovs-"))
    yield directory
    wait_for(lambda: not processes_of(directory), f"these to end: {processes_of(directory)}", 5)
    shutil.rmtree(directory)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network
    assert processes_of(network.directory) == []
