"""Who asks, and what they may do in general."""

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What somebody may do, each all that those before may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


@dataclass(frozen=True)
class Principal:
    """Who asks. `tenant` is None for who is responsible for everything.

    `id` tells principals apart, over all nodes and for good; `name` is for people.
    """

    id: str
    name: str
    role: Role
    tenant: str | None = None
