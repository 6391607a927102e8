"""What a run has seen: the writes with their answers, the reads, and what each monitor was told.

Every write is one transaction that adds 1 to the one row of Total, and to the version of a key;
puts its id into that row as `last`; takes the parts of the key's last write away and has parts of
its own instead; and leaves a row with its id in Write for ever. What Total is afterwards comes back
with the answer: it is the *number* of the write, its place in the one order of all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

Parts = frozenset[tuple[str, int]]
"""The rows of Part of one key: the id of the write, and which of its parts."""


class Answer(Enum):
    """What became of a write, as far as its client was told."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Holding:
    """One time that a client had a lock, from being told that it has it; `name` is unique."""

    lock: str
    name: str


@dataclass(frozen=True, slots=True)
class Write:
    """A transaction, asked for at `start` and answered at `end`, in seconds of one clock.

    `number` and `version` (of the key, afterwards) are known of those that are done only.
    `holding` is that under which it was written, with an `assert`.
    """

    id: str
    client: str
    server: str
    key: str
    n_parts: int
    start: float
    end: float = math.inf
    answer: Answer = Answer.UNKNOWN
    number: int = 0
    version: int = 0
    holding: Holding | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """A transaction that changes nothing: how many writes it saw, and the keys' versions.

    `is_connected` is what the server said of itself all the while.
    """

    client: str
    server: str
    start: float
    end: float
    number: int
    versions: Mapping[str, int]
    is_connected: bool = True


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key's row, and its parts."""

    version: int
    last: str
    parts: Parts


@dataclass(frozen=True, slots=True)
class View:
    """What a monitor knew at `time`, when it had been told of `number` writes.

    `ids` are the writes that it had not been told of before, `keys` the keys that have changed
    since. `transaction` is the transaction's id in the protocol, where one was given.
    """

    time: float
    number: int
    ids: tuple[str, ...]
    keys: Mapping[str, KeyState]
    transaction: str | None = None


@dataclass(slots=True)
class Witness:
    """What a monitor was told since it last began anew; it had known `known` writes before.

    `is_connected` is what the server said of itself when it had begun.
    """

    name: str
    known: int = 0
    views: list[View] = field(default_factory=list)
    is_connected: bool = True


@dataclass(slots=True)
class History:
    """All of it; `finals` is the whole state of each server in the end."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    finals: dict[str, View] = field(default_factory=dict)
