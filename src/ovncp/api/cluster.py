"""The nodes of the platform, their sessions and locks: `/cluster`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.responses import Response

from ovncp.api.administration import Body, Shown, Visit, visiting
from ovncp.api.location import PREFIX
from ovncp.api.problem import Problem
from ovncp.cluster.base import Grant
from ovncp.cluster.membership import Membership, Seen

router = APIRouter(prefix=f"{PREFIX}/cluster", tags=["cluster"])

Reading = Annotated[Visit, Depends(visiting("cluster"))]
Changing = Annotated[Visit, Depends(visiting("cluster", changes=True))]


class Migration(Body):
    """Where a session is to go."""

    to: str | None = Field(None, description="A node; the one with the fewest if none is named.")


class ClusterNode(Shown):
    """A node of the platform."""

    id: str
    hostname: str
    ip: str
    port: int
    version: str
    started: float = Field(description="Seconds since the epoch, by its own clock.")
    status: str = Field(examples=["active", "silent", "draining"])
    sessions: int = Field(description="How many clients of events it has.")
    has_seen_all: bool = Field(description="Whether it would lose no events as the leader.")
    silent_seconds: float = Field(description="For how long nothing has been heard of it.")


class ListOfNodes(Shown):
    """The nodes, as the one that answers sees them."""

    items: list[ClusterNode]
    answered_by: str


class Leader(Shown):
    """The node that does what only one may do."""

    node: str
    token: int = Field(description="Greater than that of any leader before.")


class ClientSession(Shown):
    """A client of events."""

    id: str
    node: str
    user: str
    tenant: str | None
    address: str
    opened: float = Field(description="Seconds since the epoch, by the node's clock.")


class ListOfSessions(Shown):
    """Clients' sessions."""

    items: list[ClientSession]


class Migrated(Shown):
    """Where a client was asked to go."""

    to: str


class Lock(Shown):
    """A lock that a node holds."""

    key: str
    node: str
    token: int
    seconds_left: float


class ListOfLocks(Shown):
    """The locks that any node holds."""

    items: list[Lock]


def _node(membership: Membership, seen: Seen) -> ClusterNode:
    silence_s = round(membership.silence_s(seen), 3)
    more = {"status": membership.status(seen), "silent_seconds": silence_s}
    return ClusterNode.model_validate(asdict(seen.record) | more)


@router.get("/nodes", summary="List nodes")
async def list_nodes(visit: Reading) -> ListOfNodes:
    """The nodes, as the one that answers sees them."""
    node = visit.platform.node
    nodes = sorted(node.membership.nodes.items())
    items = [_node(node.membership, seen) for _, seen in nodes]
    return ListOfNodes(items=items, answered_by=node.id)


@router.get("/nodes/{node}", summary="Show a node")
async def show_node(node: str, visit: Reading) -> ClusterNode:
    """One node, as the one that answers sees it."""
    membership = visit.platform.node.membership
    seen = membership.nodes.get(node)
    if seen is None:
        raise Problem("not-found", f"there is no node {node}")
    return _node(membership, seen)


@router.post("/nodes/{node}/drain", summary="Have a node drain", status_code=202)
async def drain_node(node: str, visit: Changing) -> Response:
    """Have a node ask its clients to move to the others, take no new ones, and not lead."""
    async with visit.change("drain", "nodes", node):
        await visit.platform.node.ask_to_drain(node)
    return Response(status_code=202)


@router.get("/leader", summary="Show the leader")
async def show_leader(visit: Reading) -> Leader:
    """Which node does what only one may do, as far as the one that answers knows."""
    leader = visit.platform.node.leadership.leader
    if leader is None:
        raise Problem("not-found", "no leader is known now")
    return Leader(node=leader.holder.partition("/")[0], token=leader.token)


@router.get("/sessions", summary="List clients' sessions")
async def list_sessions(
    visit: Reading, node: str | None = None, user: str | None = None
) -> ListOfSessions:
    """The sessions of all nodes, or of a node or a user."""
    sessions = await visit.platform.node.sessions.all()
    found = [s for s in sessions if node in (None, s.node) and user in (None, s.user)]
    return ListOfSessions(items=list(map(ClientSession.model_validate, found)))


@router.get("/sessions/{session}", summary="Show a client's session")
async def show_session(session: str, visit: Reading) -> ClientSession:
    """One session."""
    for each in await visit.platform.node.sessions.all():
        if each.id == session:
            return ClientSession.model_validate(each)
    raise Problem("not-found", f"there is no session {session}")


@router.post(
    "/sessions/{session}/migrate", summary="Have a client move to another node", status_code=202
)
async def migrate_session(session: str, wanted: Migration, visit: Changing) -> Migrated:
    """Ask a client to go on at another node, where it misses nothing."""
    async with visit.change("migrate", "sessions", session) as change:
        to = await visit.platform.node.sessions.migrate(session, wanted.to)
        change.after = {"to": to}
    return Migrated(to=to)


def _lock(grant: Grant) -> Lock:
    return Lock(
        key=grant.name,
        node=grant.holder.partition("/")[0],
        token=grant.token,
        seconds_left=round(grant.seconds_left, 3),
    )


@router.get("/locks", summary="List locks")
async def list_locks(visit: Reading) -> ListOfLocks:
    """The locks that any node holds."""
    locks = await visit.platform.node.locks.all()
    return ListOfLocks(items=list(map(_lock, locks)))


@router.delete("/locks/{key:path}", summary="Take a lock away", status_code=204)
async def remove_lock(key: str, visit: Changing) -> Response:
    """Take a lock from whoever holds it, who will be told."""
    async with visit.change("delete", "locks", key) as change:
        grant = await visit.platform.node.locks.remove(key)
        if grant is None:
            raise Problem("not-found", f"nobody holds the lock {key}")
        change.before = _lock(grant).model_dump()
    return Response(status_code=204)
