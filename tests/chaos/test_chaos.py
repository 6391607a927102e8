"""Two minutes of harm, see `chaos.__main__`; `make chaos` is ten, with another seed each time."""

from __future__ import annotations

import pytest

from chaos.__main__ import report, run_subject

SECONDS = 60
N_CLIENTS = 20


@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ["etcd", "postgresql"])
def test_whatever_happens_nothing_is_lost_doubled_or_told_wrongly(engine: str) -> None:
    run, violations = run_subject(engine, 1, SECONDS, N_CLIENTS)
    assert not violations, report(run, violations)
    assert run.counts["done"] > 0 and run.history.reads and run.counts["locks held"] > 0
