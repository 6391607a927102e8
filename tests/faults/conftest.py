"""The kinds of server that the faults happen to, and what every test here asks of them."""

from __future__ import annotations

import os

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
