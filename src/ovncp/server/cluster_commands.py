"""The commands of `ovs-appctl` about a database that several servers share: `cluster/...`.

Words and errors are the C server's (ovsdb-server(1), "Cluster Commands"). What its servers do
among themselves is the engine's business here, and whoever asks for it is told where to ask.
"""

from collections.abc import Mapping

from ovncp.server import cluster_status
from ovncp.server.cluster import Cluster
from ovncp.server.command import Command, CommandError

_TIMERS = {
    "etcd": "--heartbeat-interval and --election-timeout of its members",
    "PostgreSQL": "that of whatever promotes its standbys",
}


def commands(clusters: Mapping[str, Cluster]) -> list[Command]:
    """All of them; `clusters` are by the databases' names."""
    own = _Commands(clusters)
    name = "cluster/"
    return [
        Command(name + "change-election-timer", "DB TIME", 2, 2, own.change_election_timer),
        Command(name + "cid", "DB", 1, 1, own.cid),
        Command(name + "kick", "DB SERVER", 2, 2, own.kick),
        Command(name + "leave", "DB", 1, 1, own.leave),
        Command(name + "sid", "DB", 1, 1, own.sid),
        Command(name + "status", "DB", 1, 1, own.status),
    ]


class _Commands:
    """A method for each command; each gets the arguments and returns the reply."""

    def __init__(self, clusters: Mapping[str, Cluster]) -> None:
        self._clusters = clusters

    def _cluster(self, name: str) -> Cluster:
        cluster = self._clusters.get(name)
        if cluster is None:
            raise CommandError("unknown cluster")
        return cluster

    async def status(self, args: list[str]) -> str:
        cluster = self._cluster(args[0])
        await cluster.look()
        return cluster_status.text(cluster)

    def cid(self, args: list[str]) -> str:
        return self._cluster(args[0]).cid

    def sid(self, args: list[str]) -> str:
        return self._cluster(args[0]).runner.server_id

    def leave(self, args: list[str]) -> str:
        self._cluster(args[0])
        raise CommandError(
            "a server does not leave this cluster: it holds nothing that others need. "
            f'Stop it, or stop it serving the database: "ovsdb-server/remove-db {args[0]}"'
        )

    async def kick(self, args: list[str]) -> str:
        cluster = self._cluster(args[0])
        await cluster.look()
        for peer in cluster.peers:
            if peer.sid.startswith(args[1]) and len(args[1]) >= len(cluster_status.short(peer.sid)):
                raise CommandError(
                    "a server is not removed from this cluster: it is not counted when anything "
                    f"is decided. Stop it: process {peer.pid} on {peer.host}"
                )
        raise CommandError("unknown server")

    def change_election_timer(self, args: list[str]) -> str:
        engine = self._cluster(args[0]).upkeep.engine
        name = engine.engine if engine else "the engine of the log"
        timer = _TIMERS.get(name, "it is set there")
        raise CommandError(f"elections are held by {name}, and the timer is its own: {timer}")
