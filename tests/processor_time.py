"""How much work it is to start a program: processor's time, of which a busy machine has less."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable

_N_TIMES = 5


def least(start: Callable[[], object]) -> float:
    """The least seconds that the processes of a few calls of `start` took, who are waited for."""
    seconds = []
    for _ in range(_N_TIMES):
        before = _of_children()
        start()
        seconds.append(_of_children() - before)
    return min(seconds)


def least_of_an_interpreter() -> float:
    """Of one that only imports what every server needs of others."""
    command = [sys.executable, "-c", "import asyncio, orjson, uvloop"]
    return least(lambda: subprocess.run(command, check=True))


def _of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
