"""The text of `cluster/status` (ovsdb-server(1)), in the layout that scripts look into.

What C's servers do themselves, the engine does here: its term, its leader and its members are
shown. All servers of a log take writes, so that each of them leads that can reach the engine.
"""

from collections.abc import Iterator

from ovncp.log.engine_status import EngineMember, EngineStatus
from ovncp.server import fullness
from ovncp.server.cluster import Cluster
from ovncp.server.peers import Peer


def text(cluster: Cluster) -> str:
    """All of it, as of when `cluster` looked last."""
    return "".join(f"{line}\n" for line in _lines(cluster))


def _lines(cluster: Cluster) -> Iterator[str]:
    runner, engine = cluster.runner, cluster.upkeep.engine
    cid, sid = cluster.cid, runner.server_id
    leader = "self" if runner.is_connected else "unknown"
    first, last = cluster.log.snapshot_index + 1, cluster.log.next_index
    yield short(sid)
    yield f"Name: {runner.name}"
    yield f"Cluster ID: {short(cid)} ({cid})"
    yield f"Server ID: {short(sid)} ({sid})"
    yield f"Address: {cluster.this_server().address}"
    yield f"Status: {_status(cluster)}"
    yield f"Role: {'leader' if runner.is_connected else 'follower'}"
    yield f"Term: {engine.term if engine else 0}"
    yield f"Leader: {leader}"
    yield f"Vote: {leader}"
    yield ""
    yield f"Election timer: {_election_timer(engine)}"
    yield f"Log: [{first}, {last}]"
    yield f"Entries not yet committed: {runner.database.n_unsettled}"
    yield f"Entries not yet applied: {cluster.n_unapplied}"
    yield f"Connections: {_connections(engine)}".rstrip()
    yield f"Disconnections: {runner.n_losses}"
    yield from _engine_lines(cluster)
    yield "Servers:"
    now_msec = cluster.clock.wall_msec()
    for peer in cluster.peers:
        yield f"    {_server(peer, sid, now_msec)}"


def short(uuid: str) -> str:
    """The four digits by which servers are called."""
    return uuid[:4]


def _status(cluster: Cluster) -> str:
    if cluster.runner.is_connected:
        return "cluster member"
    return f"disconnected from the cluster ({cluster.runner.failure})"


def _election_timer(engine: EngineStatus | None) -> str:
    return f"that of {engine.engine}" if engine else "the engine's"


def _connections(engine: EngineStatus | None) -> str:
    members = engine.members if engine else ()
    return " ".join(f"(->{m.name})" if m.problem else f"->{m.name}" for m in members)


def _engine_lines(cluster: Cluster) -> Iterator[str]:
    engine, usage = cluster.upkeep.engine, cluster.upkeep.usage
    if engine is None:
        yield "Engine: not reached yet"
        return
    yield f"Engine: {engine.engine} {engine.version}"
    yield f"Engine leader: {engine.leader.name if engine.leader else 'unknown'}"
    if usage is not None:
        yield f"Engine storage: {fullness.words(usage)}"
    if engine.alarms:
        yield f"Engine alarms: {', '.join(engine.alarms)}"
    yield "Engine members:"
    for member in engine.members:
        yield f"    {_member(member)}"


def _member(member: EngineMember) -> str:
    parts = [f"{member.name} at {member.address} {member.role}"]
    if member.version:
        parts.append(f"version={member.version}")
    if member.used is not None and member.allocated is not None:
        parts.append(f"used={member.used} allocated={member.allocated}")
    if member.problem:
        parts.append(f"({member.problem})")
    return " ".join(parts)


def _server(peer: Peer, sid: str, now_msec: int) -> str:
    name = short(peer.sid)
    words = f"{name} ({name} at {peer.address})"
    if peer.sid == sid:
        words += " (self)"
    words += f" next_index={peer.index + 1} match_index={peer.index}"
    if peer.sid != sid:
        words += f" last msg {max(0, now_msec - peer.date_msec)} ms ago"
    return words
