"""Runs the cases on an engine, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ovncp.log.contract import cases, lease_cases, shared_cases, upkeep_cases
from ovncp.log.contract.bench import Bench, EngineBench, engine_bench
from ovncp.log.contract.case import CASES, Case

MODULES = (cases, lease_cases, shared_cases, upkeep_cases)
"""Those with cases."""

_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a case went, None for well."""

    name: str
    failure: Exception | None


def cases_for(kind: type[Bench]) -> list[Case]:
    """The cases that a bench of `kind` is good for."""
    return [case for case in CASES if issubclass(kind, case.bench)]


async def run(location: str, only: str = "") -> AsyncIterator[Result]:
    """Try the engine of `location`, in databases of their own, with the cases named like `only`.

    Raises LogError if the engine cannot be used at all.
    """
    for case in cases_for(EngineBench):
        if only in case.name:
            async with engine_bench(location) as bench:
                yield Result(case.name, await _failure(case, bench))


async def _failure(case: Case, bench: Bench) -> Exception | None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await case.run(bench)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises is what is wanted here
        return error
    return None
