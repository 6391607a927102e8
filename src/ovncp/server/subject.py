"""What is watched: a server, and what it does not know of itself."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ovncp.server.server import Server


class Subject(NamedTuple):
    """`remotes` are by target; `compactions` has the latest ones, as `Compaction.latest`."""

    server: Server
    remotes: Mapping[str, Any] = {}
    compactions: Mapping[str, tuple[int, int]] = {}
