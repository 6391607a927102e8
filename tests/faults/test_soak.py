"""A short soak, see `soak.__main__`; `make soak` is a long one."""

from __future__ import annotations

import pytest

from soak.__main__ import soak_own

SECONDS = 8


@pytest.mark.parametrize(("workers", "relays"), [(0, 0), (2, 0), (0, 1)])
def test_clients_know_a_state_that_there_was(workers: int, relays: int) -> None:
    counts = soak_own(SECONDS, 1, 9, workers, relays).counts
    assert counts["updates"] > 0
    assert counts["quiet points"] > 0
