"""Every backend keeps every promise of the log that it can be asked for."""

from __future__ import annotations

import pytest

from log_contract.conftest import KINDS
from ovncp.log.contract.run import cases_for

CASES = [
    pytest.param(kind, case, id=f"{kind}: {case.name}")
    for kind, its_bench in KINDS.items()
    for case in cases_for(its_bench)
]


@pytest.mark.parametrize(("kind", "case"), CASES)
async def test_contract(case, bench) -> None:
    await case.run(bench)
