"""Whose a socket is, while other processes start and end all the time."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from ovncp.proc import holder


@pytest.fixture
def coming_and_going() -> Iterator[None]:
    """Processes that end as soon as they were started."""
    with subprocess.Popen(["sh", "-c", "while :; do (:) & (:) & (:) & wait; done"]) as shell:
        yield
        shell.kill()


def test_the_holder_of_a_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert holder([os.readlink(f"/proc/self/fd/{listener.fileno()}")]) == os.getpid()
    assert holder(["socket:[0]"]) == 0


def test_processes_that_end_while_one_looks(coming_and_going: None) -> None:
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        assert holder(["socket:[0]"]) == 0
