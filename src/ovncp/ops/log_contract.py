"""Whether an engine keeps what a log promises: the contract suite, run on it."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ovncp.log.base import LogError
from ovncp.log.contract.run import run
from ovncp.ops.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one promise: whether it was kept, and if not, where it was broken."""

    promise: str
    kept: bool
    trace: str


async def try_engine(location: str, only: str) -> AsyncIterator[Outcome]:
    """Try the promises with `only` in their words, in databases that are deleted afterwards.

    They are named `contract_...`, beside the one that `location` names, which is left alone.
    Raises Refusal if the engine cannot be used at all.
    """
    try:
        async for result in run(location, only):
            trace = "".join(traceback.format_exception(result.failure)) if result.failure else ""
            yield Outcome(result.name, result.failure is None, trace)
    except LogError as error:
        raise Refusal(str(error)) from error
