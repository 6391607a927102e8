"""What the clients of a deployment did and saw, for the judge.

A writer counts on in `external_ids` of a switch of its own, and makes and deletes ports there; each
write is known by its switch and a text that no other write has. Listeners note every event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Event = dict[str, Any]
Id = tuple[int, int]
"""Of an event: it can be compared."""


def id_of(text: str) -> Id:
    """The id that a message has."""
    token, number = map(int, text.split("-"))
    return token, number


class Outcome(Enum):
    """What became of a write, as far as its writer was told."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass
class Write:
    """One write: `kind` is "count", "make" or "delete"; `what` the number, or the port's name."""

    kind: str
    switch: str
    what: str
    outcome: Outcome = Outcome.UNKNOWN


@dataclass
class Heard:
    """What one client has heard: the events after `first`, up to `position`."""

    who: str
    wish: str
    admits: Callable[[Event], bool]
    """Whether the client has asked for an event; the same for all who have that wish."""
    first: Id | None = None
    position: Id | None = None
    events: list[Event] = field(default_factory=list)
    n_missed: int = 0
    session: str = ""
    """The id of the session of now."""
    n_sessions: int = 0
    n_moved: int = 0


@dataclass
class Term:
    """The time for which a node held that it leads, in seconds since the epoch."""

    node: str
    token: int
    start: float
    end: float


@dataclass
class History:
    """All of it; `broken` is what somebody saw at once that must not be."""

    writes: list[Write] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    events: dict[Id, Event] = field(default_factory=dict)
    """What anybody has heard."""
    terms: list[Term] = field(default_factory=list)
    leaders: set[tuple[int, str]] = field(default_factory=set)
    """What nodes said when they were asked who leads: the token, and the node."""
    answers: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """What the Northbound has at the end: of each switch the number that was counted to."""
    ports: dict[str, list[str]] = field(default_factory=dict)
    """What it has of ports, of each switch."""
    audited: dict[str, int] = field(default_factory=dict)
    """How many counts are in the audit trail as done, of each switch."""

    @property
    def order(self) -> dict[Id, Event]:
        """All events, in order."""
        return dict(sorted(self.events.items()))


def counts(switch: str, order: Mapping[Id, Event]) -> Iterator[tuple[int, Id]]:
    """The numbers that events tell a switch to have counted to, with the events' ids."""
    for id, event in order.items():
        if (event["table"], event["name"]) == ("Logical_Switch", switch):
            number = event.get("changes", {}).get("external_ids", {}).get("n")
            if number is not None:
                yield int(number), id
