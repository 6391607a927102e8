"""Clients write to and watch a cluster to which everything happens, and all they saw is judged.

    PYTHONPATH=tests python -m chaos [--seconds N] [--seed N] [--clients N] [SUBJECT...]

A subject is `etcd` or `postgresql` (three servers of ours over each), `file` (one server), or `c`
(three of C's); the first two by default, which share the time. The exit status is 1 if a guarantee
was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys

from chaos.checker import Violation, check
from chaos.nemeses import Stage, harm
from chaos.run import PATIENCE_S, Run, is_usable
from chaos.subjects import SUBJECTS, Subject
from chaos.transactions import EVERYTHING, NAME, whole_view
from chaos.watcher import Watcher
from chaos.writer import Holder, Writer
from soak.connection import Connection, Lost

N_HOLDERS = 4
PAUSE_S = 0.4
HEALING_SECONDS = 120.0
"""How long all may take to come to themselves once nothing is wrong any more."""


async def chaos(run: Run, subject: Subject, seconds: float, n_clients: int) -> None:
    """Have `n_clients` write and as many watch for `seconds`; all is in `run` afterwards."""
    watchers = [Watcher(run, f"m{number}") for number in range(n_clients)]
    writers = [Writer(run, f"w{number}", PAUSE_S) for number in range(n_clients - N_HOLDERS)]
    writers += [Holder(run, f"h{number}", PAUSE_S) for number in range(N_HOLDERS)]
    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(watcher.run()) for watcher in watchers]
        writing = [group.create_task(writer.run()) for writer in writers]
        await harm(Stage(run, subject), seconds)
        # Who writes after the harm is over shows that it works again.
        await asyncio.sleep(2)
        run.is_quiet = True
        await asyncio.wait_for(asyncio.gather(*writing), HEALING_SECONDS)
        await _see_the_end(run, watchers)
        run.is_over = True
        await asyncio.gather(*watching)


async def _see_the_end(run: Run, watchers: list[Watcher]) -> None:
    """Note the final states, when all have the same number of writes, or had time enough to."""
    until = run.now() + HEALING_SECONDS
    numbers: set[int] = set()
    while len(numbers) != 1 and run.now() < until:
        for name, endpoint in run.endpoints.items():
            await _see_final(run, name, endpoint)
        finals = run.history.finals.values()
        numbers = {view.number for view in finals} | {watcher.number for watcher in watchers}
        await asyncio.sleep(0.2)


async def _see_final(run: Run, name: str, endpoint: str) -> None:
    """Note the whole state of one server, if it has come to itself."""
    connection = Connection()
    try:
        await connection.open(endpoint)
    except OSError:
        run.counts["final states asked for in vain"] += 1
        return
    try:
        async with asyncio.timeout(PATIENCE_S):
            if await is_usable(connection, leads=False):
                results = await connection.request("transact", [NAME, *EVERYTHING])
                run.history.finals[name] = whole_view(run.now(), results)
    except (Lost, TimeoutError):
        run.counts["final states asked for in vain"] += 1
    finally:
        connection.abort()


def run_subject(
    name: str, seed: int, seconds: float, n_clients: int
) -> tuple[Run, list[Violation]]:
    """A run on the subject `name`, and what was wrong."""
    with SUBJECTS[name]() as subject:
        run = Run(subject.endpoints, seed)
        asyncio.run(chaos(run, subject, seconds, n_clients))
        violations = check(run.history)
        if violations:
            run.complaints = subject.complaints()
    return run, violations


def report(run: Run, violations: list[Violation]) -> str:
    """What happened, and what was wrong."""
    lines = [f"{number:8} {what}" for what, number in sorted(run.counts.items())]
    lines += [f"{time:8.1f} {what}" for time, what in run.diary]
    lines += [f"{name}: {line}" for name, told in run.complaints.items() for line in told]
    lines += [f"BROKEN  {violation}" for violation in violations]
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Harm a cluster under load.")
    parser.add_argument("--seconds", type=float, default=600, help="of harm, in all")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32))
    parser.add_argument("--clients", type=int, default=20, help="that write, and as many watch")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=", ".join(SUBJECTS))
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # And leave nothing behind.
    subjects = args.subjects or ["etcd", "postgresql"]
    print(f"CHAOS_ARGS='--seed {args.seed} --seconds {args.seconds:g}'", flush=True)
    is_right = True
    for name in subjects:
        run, violations = run_subject(name, args.seed, args.seconds / len(subjects), args.clients)
        print(f"{name}:\n{report(run, violations)}", flush=True)
        is_right = is_right and not violations
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
