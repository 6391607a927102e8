"""The nodes of the platform, their sessions and locks: `/cluster`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.responses import Response

from ovncp.api.administration import Body, Visit, shown, visiting
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


def _node(membership: Membership, seen: Seen) -> dict[str, Any]:
    record: dict[str, Any] = shown(seen.record)
    del record["beat"]
    silence_s = round(membership.silence_s(seen), 3)
    return {**record, "status": membership.status(seen), "silent_seconds": silence_s}


@router.get("/nodes", summary="List nodes")
async def list_nodes(visit: Reading) -> dict[str, Any]:
    """The nodes, as the one that answers sees them."""
    node = visit.platform.node
    nodes = sorted(node.membership.nodes.items())
    return {"items": [_node(node.membership, seen) for _, seen in nodes], "answered_by": node.id}


@router.get("/nodes/{node}", summary="Show a node")
async def show_node(node: str, visit: Reading) -> dict[str, Any]:
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
async def show_leader(visit: Reading) -> dict[str, Any]:
    """Which node does what only one may do, as far as the one that answers knows."""
    leader = visit.platform.node.leadership.leader
    if leader is None:
        raise Problem("not-found", "no leader is known now")
    return {"node": leader.holder.partition("/")[0], "token": leader.token}


@router.get("/sessions", summary="List clients' sessions")
async def list_sessions(
    visit: Reading, node: str | None = None, user: str | None = None
) -> dict[str, Any]:
    """The sessions of all nodes, or of a node or a user."""
    sessions = await visit.platform.node.sessions.all()
    found = [s for s in sessions if node in (None, s.node) and user in (None, s.user)]
    return {"items": [shown(session) for session in found]}


@router.get("/sessions/{session}", summary="Show a client's session")
async def show_session(session: str, visit: Reading) -> dict[str, Any]:
    """One session."""
    for each in await visit.platform.node.sessions.all():
        if each.id == session:
            found: dict[str, Any] = shown(each)
            return found
    raise Problem("not-found", f"there is no session {session}")


@router.post(
    "/sessions/{session}/migrate", summary="Have a client move to another node", status_code=202
)
async def migrate_session(session: str, wanted: Migration, visit: Changing) -> dict[str, Any]:
    """Ask a client to go on at another node, where it misses nothing."""
    async with visit.change("migrate", "sessions", session) as change:
        to = await visit.platform.node.sessions.migrate(session, wanted.to)
        change.after = {"to": to}
    return {"to": to}


def _lock(grant: Grant) -> dict[str, Any]:
    return {
        "key": grant.name,
        "node": grant.holder.partition("/")[0],
        "token": grant.token,
        "seconds_left": round(grant.seconds_left, 3),
    }


@router.get("/locks", summary="List locks")
async def list_locks(visit: Reading) -> dict[str, Any]:
    """The locks that any node holds."""
    return {"items": [_lock(grant) for grant in await visit.platform.node.locks.all()]}


@router.delete("/locks/{key:path}", summary="Take a lock away", status_code=204)
async def remove_lock(key: str, visit: Changing) -> Response:
    """Take a lock from whoever holds it, who will be told."""
    async with visit.change("delete", "locks", key) as change:
        grant = await visit.platform.node.locks.remove(key)
        if grant is None:
            raise Problem("not-found", f"nobody holds the lock {key}")
        change.before = _lock(grant)
    return Response(status_code=204)
