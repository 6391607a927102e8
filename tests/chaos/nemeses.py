"""What goes wrong: each does harm for a while, and undoes it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from chaos import vdso
from chaos.machines import Machine
from chaos.run import Run
from chaos.subjects import Subject
from chaos.victims import EtcdVictim, PostgresVictim, Victim

LONGEST_S = 10.0

Nemesis = Callable[["Stage"], Awaitable[None]]


class Stage:
    """A subject under harm. Two may do harm at a time, but not to the same."""

    def __init__(self, run: Run, subject: Subject):
        self.run = run
        self.subject = subject
        self._harmed: set[str] = set()

    @contextlib.asynccontextmanager
    async def some(self, victims: Sequence[Victim], what: str) -> AsyncIterator[Victim]:
        """One of `victims` that is whole; note that `what` happens to it."""
        whole = [victim for victim in victims if victim.name not in self._harmed]
        while not whole:
            await asyncio.sleep(0.1)
            whole = [victim for victim in victims if victim.name not in self._harmed]
        victim = self.run.draw.choice(whole)
        self._harmed.add(victim.name)
        self.note(f"{what}: {victim.name}")
        try:
            yield victim
        finally:
            self._harmed.discard(victim.name)
            self.note(f"{what} is over: {victim.name}")

    def note(self, what: str) -> None:
        """Keep a diary."""
        self.run.diary.append((self.run.now(), what))

    async def a_while(self, longest_s: float = LONGEST_S) -> None:
        await asyncio.sleep(longest_s * self.run.draw.random())

    @property
    def everybody(self) -> list[Victim]:
        return [*self.subject.servers, *self.subject.members]


async def kill_server(stage: Stage) -> None:
    """SIGKILL a server, and start it after a while."""
    async with stage.some(stage.subject.servers, "SIGKILL") as victim:
        await _kill(stage, [victim], 3)


async def kill_member(stage: Stage) -> None:
    """SIGKILL a member of the engine; of PostgreSQL, the whole or one that serves a client."""
    async with stage.some(stage.subject.members, "SIGKILL") as victim:
        only_one = isinstance(victim, PostgresVictim) and stage.run.draw.random() < 0.5
        if only_one and victim.postgres.backends:
            stage.note("only one that serves a client")
            victim.kill_backend()
            await stage.a_while(3)
        else:
            await _kill(stage, [victim], 3)


async def kill_engine(stage: Stage) -> None:
    """SIGKILL all of the engine at once."""
    async with contextlib.AsyncExitStack() as stack:
        victims = [
            await stack.enter_async_context(stage.some([victim], "SIGKILL"))
            for victim in stage.subject.members
        ]
        await _kill(stage, victims, 5)


async def kill_servers(stage: Stage) -> None:
    """SIGKILL all servers at once."""
    async with contextlib.AsyncExitStack() as stack:
        victims = [
            await stack.enter_async_context(stage.some([victim], "SIGKILL"))
            for victim in stage.subject.servers
        ]
        await _kill(stage, victims, 2)


async def _kill(stage: Stage, victims: Sequence[Victim], longest_s: float) -> None:
    for victim in victims:
        await asyncio.to_thread(victim.kill)
    try:
        await stage.a_while(longest_s)
    finally:
        await asyncio.gather(*(asyncio.to_thread(victim.start) for victim in victims))


async def freeze(stage: Stage) -> None:
    """SIGSTOP anybody for as long as ten seconds."""
    async with stage.some(stage.everybody, "SIGSTOP") as victim:
        await _freeze(victim, LONGEST_S * stage.run.draw.choice([0.05, 0.3, 1]))


async def _freeze(victim: Victim, seconds: float) -> None:
    pids = victim.pids
    _signal(pids, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        _signal(pids, signal.SIGCONT)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        # A process of PostgreSQL may have ended by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def cut_off(stage: Stage) -> None:
    """Cut anybody off from all others, or in one direction only, or from some of them."""
    async with stage.some(stage.everybody, "cut off") as victim:
        draw = stage.run.draw
        others = _others(stage, victim)
        if draw.random() < 0.3:
            others = draw.sample(others, draw.randint(1, len(others)))
        way = draw.choice(["both ways", "hears nothing", "is not heard"])
        stage.note(f"{victim.name} {way}, from {len(others)}")
        assert victim.machine is not None
        if way != "is not heard":
            victim.machine.be_deaf_to(others)
        if way != "hears nothing":
            for other in others:
                other.be_deaf_to([victim.machine])
        try:
            await stage.a_while()
        finally:
            for machine in [victim.machine, *others]:
                machine.hear_all()


def _others(stage: Stage, victim: Victim) -> list[Machine]:
    machines = [other.machine for other in stage.everybody if other is not victim]
    return [machine for machine in machines if machine is not None]


async def slow_disk(stage: Stage) -> None:
    """Have each flush of a member's files take up to 300 ms more, by strace."""
    async with stage.some(stage.subject.members, "slow disk") as victim:
        delay_us = stage.run.draw.choice([20_000, 100_000, 300_000])
        calls = "fsync,fdatasync"
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
        command += ["-e", f"inject={calls}:delay_enter={delay_us}"]
        for pid in victim.pids:
            command += ["-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            await stage.a_while()
        finally:
            tracer.terminate()
            await asyncio.to_thread(tracer.wait)


async def jump_clock(stage: Stage) -> None:
    """Set the clock of a machine forth or back, and later right."""
    async with stage.some(stage.everybody, "clock") as victim:
        ahead_s = stage.run.draw.choice([-86400, -3600, -60, -5, 5, 60, 3600, 86400])
        stage.note(f"{victim.name}'s is {ahead_s} s ahead")
        _set_clock(victim, ahead_s)
        try:
            await stage.a_while()
        finally:
            _set_clock(victim, 0)


def _set_clock(victim: Victim, ahead_s: int) -> None:
    if isinstance(victim, EtcdVictim):
        vdso.set_clock(victim.cluster.pid(victim.member), ahead_s)
    else:
        assert victim.machine is not None
        victim.machine.set_clock(ahead_s)


def nemeses(subject: Subject) -> list[Nemesis]:
    """What can be done to `subject`; what is often is there more than once."""
    found: list[Nemesis] = [kill_server, kill_server, freeze]
    if subject.members:
        found += [kill_servers, kill_member, kill_member, kill_engine, slow_disk]
    if subject.network:
        found += [freeze, cut_off, cut_off, cut_off, jump_clock]
    return found


async def harm(stage: Stage, seconds: float) -> None:
    """Have something go wrong all the while, and at times two things."""
    deeds = nemeses(stage.subject)
    until = stage.run.now() + seconds

    async def one_after_another(longest_pause_s: float) -> None:
        while True:
            await stage.a_while(longest_pause_s)
            if stage.run.now() > until:
                return
            await stage.run.draw.choice(deeds)(stage)

    await asyncio.gather(one_after_another(3), one_after_another(12))
