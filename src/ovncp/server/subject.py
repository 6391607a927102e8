"""What is watched: a server, and what it does not know of itself."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ovncp.server.cluster import Cluster
from ovncp.server.server import Server


class Subject(NamedTuple):
    """`remotes` are by target; `compactions` has the latest ones, as `Compaction.latest`.

    `clusters` are by the databases' names.
    """

    server: Server
    remotes: Mapping[str, Any] = {}
    compactions: Mapping[str, tuple[int, int]] = {}
    clusters: Mapping[str, Cluster] = {}
