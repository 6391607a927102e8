"""The kinds of server that the faults happen to, and what every test here asks of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# The tests are about ours; "c" shows that a test itself is right, "c,ovncp" compares.
KINDS = os.environ.get("FAULT_KINDS", "c,ovncp").split(",")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of server: a fault that the C server has an answer to happens to both."""
    return str(request.param)


@pytest.fixture
def ours() -> str:
    """Our server only, for a promise that the C server does not make."""
    return KINDS[-1]


@pytest.fixture(scope="module")
def certificate() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tls-"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=server", "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    yield directory
    shutil.rmtree(directory)
