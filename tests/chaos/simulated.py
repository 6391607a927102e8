"""A right history, as servers without faults could have shown it, for planting faults in."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from chaos.history import Answer, History, Holding, KeyState, Read, View, Witness, Write

SERVERS = ("s0", "s1", "s2")
KEYS = ("k0", "k1", "k2")
N_WRITES = 120
N_MONITORS = 5


class Simulation:
    """Write number n happens at n seconds; when clients ask and are told is random around that."""

    def __init__(self, seed: int):
        self._draw = random.Random(seed)
        self.order = [self._write(number) for number in range(1, N_WRITES + 1)]
        self._versions = dict.fromkeys(KEYS, 0)

    def history(self) -> History:
        """All of it."""
        return History(
            [self._answered(n, write) for n, write in enumerate(self.order, 1)] + self._without(),
            [self._read(self._draw.randrange(N_WRITES)) for _ in range(60)],
            [self._witness(f"m{i}") for i in range(N_MONITORS)],
            {server: self.view(0, N_WRITES) for server in SERVERS},
        )

    def _write(self, number: int) -> Write:
        # Locks change hands every ten writes; the last writes of a holding may be another's time.
        holding = None
        if number % 2:
            holding = Holding("lock", f"holding {number // 10}")
        draw = self._draw
        return Write(
            f"w{number}",
            f"c{draw.randrange(20)}",
            draw.choice(SERVERS),
            draw.choice(KEYS),
            draw.randint(1, 3),
            number - 10 * draw.random(),
            holding=holding,
        )

    def _answered(self, number: int, write: Write) -> Write:
        self._versions[write.key] += 1
        if self._draw.random() < 0.2:
            return write
        end = number + 10 * self._draw.random()
        version = self._versions[write.key]
        return replace(write, end=end, answer=Answer.DONE, number=number, version=version)

    def _without(self) -> list[Write]:
        """Writes that never happened."""
        writes = [replace(self._write(n), id=f"never{n}") for n in range(1, N_WRITES, 4)]
        refused = replace(writes[0], end=math.inf, answer=Answer.REFUSED)
        return [refused, *writes[1:]]

    def _read(self, number: int) -> Read:
        start, end = (number + 0.5 + sign * 5 * self._draw.random() for sign in (-1, 1))
        counts = {key: self._state(key, number).version for key in KEYS}
        return Read("r", self._draw.choice(SERVERS), start, end, number, counts)

    def _witness(self, name: str) -> Witness:
        numbers = [self._draw.randrange(20)]
        while numbers[-1] < N_WRITES:
            numbers.append(min(N_WRITES, numbers[-1] + self._draw.choice([1, 1, 1, 2, 5])))
        views = [self.view(a, b) for a, b in zip([0, *numbers], numbers, strict=False)]
        return Witness(name, 0, views)

    def view(self, after: int, upto: int) -> View:
        """What is new at `upto` to one who knew `after`."""
        writes = self.order[after:upto]
        keys = {key: self._state(key, upto) for key in KEYS if any(w.key == key for w in writes)}
        return View(upto + 0.3, upto, tuple(w.id for w in writes), keys, f"transaction {upto}")

    def _state(self, key: str, number: int) -> KeyState:
        return key_state([write for write in self.order[:number] if write.key == key])


def key_state(writes: Sequence[Write]) -> KeyState:
    """The state of a key after `writes`."""
    if not writes:
        return KeyState(0, "", frozenset())
    last = writes[-1]
    return KeyState(len(writes), last.id, frozenset((last.id, i) for i in range(last.n_parts)))
