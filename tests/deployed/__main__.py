"""All that can happen to a deployment, in an order that chance decides, for longer than a test.

    PYTHONPATH=tests python -m deployed [--kind ovncp|c] [--seconds N] [--seed N] [FAULT...]

The exit status is 1 if a guarantee was broken; which, and what the clients met, is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter

from deployed.deployment import deployed
from deployed.faults import FAULTS, REPEATABLE, Fault
from deployed.history import History
from deployed.judge import judge
from deployed.run import clients

_MOST_SHOWN = 40


async def run(kind: str, faults: list[Fault]) -> History:
    """What the clients saw while faults happened one after the other."""
    async with deployed(kind) as deployment, clients(deployment) as history:
        for happens in faults:
            await asyncio.sleep(1)
            print(happens.__name__.replace("_", " "), flush=True)
            await happens(deployment)
    return history


def summary(history: History) -> str:
    """Figures about a run."""
    outcomes = Counter(f"{write.kind} {write.outcome.value}" for write in history.writes)
    sums = [sum(getattr(h, name) for h in history.heard) for name in ("n_sessions", "n_moved")]
    return (
        f"{len(history.writes)} writes: {dict(outcomes)}\n"
        f"answers: {dict(history.answers)}\n"
        f"{len(history.events)} events for {len(history.heard)} clients, "
        f"{sums[0]} sessions, {sums[1]} asked to move\n"
        f"{len(history.terms)} leaders\n"
    )


def main() -> int:
    """Run it, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m deployed", description=__doc__)
    parser.add_argument("--kind", default="ovncp", choices=["ovncp", "c"])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("fault", nargs="*", choices=[[], *FAULTS], help="in this order, instead")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    # Each of them takes some twelve seconds.
    drawn = chance.choices(REPEATABLE, k=max(1, round(given.seconds / 12)))
    faults = [FAULTS[name] for name in given.fault or drawn]
    print(f"seed {given.seed}")
    history = asyncio.run(run(given.kind, faults))
    wrong = judge(history)
    print(summary(history), *wrong[:_MOST_SHOWN], sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
