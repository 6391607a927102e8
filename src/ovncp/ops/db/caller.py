"""What a verb needs of whoever runs it: time, uuids, connections, and eyes on its progress."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ovncp.follow.link import Connect


class Progress(Protocol):
    """Shows how far a verb is."""

    def __call__(self, words: str, done: int = 0, total: int = 0) -> None:
        """Show `words`, and which part of `total` is done, where that is known."""

    def clear(self) -> None:
        """Show nothing, so that something else can be shown."""


@dataclass(frozen=True)
class Caller:
    """Who runs a verb. `connect` makes of an OVSDB remote what connects to it, or a Refusal."""

    new_uuid: Callable[[], str]
    now_msec: Callable[[], int]
    connect: Callable[[str], Connect]
    progress: Progress
