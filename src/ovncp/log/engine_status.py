"""What an engine says of itself: its members, who leads, how full it is, what it complains of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TIGHT: Final = 0.6
"""The share of its quota from which on an engine is kept from filling up."""


@dataclass(frozen=True, slots=True)
class EngineMember:
    """One process of the engine. `role` is leader, follower, learner, or what the engine calls it.

    `used` and `allocated` are bytes, None where they are not known. `problem` says why it cannot be
    used, and is "" if it can.
    """

    name: str
    address: str
    role: str
    version: str = ""
    used: int | None = None
    allocated: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """An engine as one of its members sees it.

    `term` grows with each change of the leader. `alarms` are the states in which it refuses
    writes, in its own words.
    """

    engine: str
    version: str
    term: int
    members: tuple[EngineMember, ...]
    alarms: tuple[str, ...] = ()

    @property
    def leader(self) -> EngineMember | None:
        """The member that leads, if one does."""
        return next((member for member in self.members if member.role == "leader"), None)
