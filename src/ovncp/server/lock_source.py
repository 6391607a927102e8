"""Where the locks of a server's clients are decided, if not at the server itself."""

from typing import Any, Protocol

from ovncp.follow.link import Answered


class LockSource(Protocol):
    """Grants locks: the source of a relayed database, or the log of a cluster."""

    name: str
    lock_holder: "LockHolder"

    @property
    def order(self) -> str:
        """By what all servers ask the sources they have in common in the same order."""

    @property
    def is_connected(self) -> bool:
        """Whether requests can be made."""

    def request(self, method: str, params: list[Any], answered: Answered) -> object:
        """Ask for "lock", "steal" or "unlock"; `answered` gets the result and the error."""


class LockHolder(Protocol):
    """What asks sources for locks."""

    def source_found(self, source: LockSource) -> None:
        """Note that `source` is connected."""

    def source_says(self, source: LockSource, method: str, name: str) -> None:
        """Take "locked" or "stolen"."""

    def source_lost(self, source: LockSource) -> None:
        """Note that all locks at the source are lost."""
