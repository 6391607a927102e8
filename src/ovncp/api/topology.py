"""`topology`: the logical network as a graph of routers, switches, networks and gateways.

An answer is kept for all nodes by what the databases were when it was made, so that it is never
older than what the node that is asked knows itself.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from ovncp.api import sight
from ovncp.api.access import may_read
from ovncp.api.location import PREFIX
from ovncp.api.platform import Platform
from ovncp.api.problem import Problem
from ovncp.api.reading import AGE
from ovncp.auth.principal import Principal
from ovncp.ovn import drawing
from ovncp.ovn.links import Key
from ovncp.ovn.topology import Answer, View
from ovncp.ovn.values import Unresolved, refuse
from ovncp.ovsdb.atom import ZERO_UUID

Kind = Literal["network", "chassis", "router", "switch"]
Format = Literal["json", "graphviz", "mermaid", "cytoscape"]

_JSON = "application/json"
_KEPT_S = 60.0


class Asked(BaseModel):
    """What of the topology is asked for, and how it is to be told."""

    model_config = ConfigDict(extra="forbid")

    detail: Literal["counts", "network", "ports"] = Field(
        "network", description="Only counts; nodes and links; or ports of routers and switches too."
    )
    kinds: list[Kind] = Field(
        list(get_args(Kind)), description="The kinds of nodes that are wanted."
    )
    tenant: str | None = Field(None, description="Only what is this tenant's.")
    around: str | None = Field(
        None,
        description="Only what is near a node: its name or uuid, that of one of its ports, or"
        " KIND:NAME where the name alone stands for several.",
    )
    steps: int = Field(1, ge=0, le=64, description="How many links away is near.")
    limit: int = Field(500, ge=1, le=5000, description="How many nodes at most.")
    cursor: str | None = Field(None, description="Where the page before ended: its `next`.")
    ports: int = Field(100, ge=1, le=10000, description="How many ports of one node at most.")
    format: Format = Field("json", description="The form of the answer.")


class Node(BaseModel):
    """A node; the kinds differ in what is told of them."""

    model_config = ConfigDict(extra="allow")

    id: str
    kind: Kind
    name: str
    n_ports: int


class Link(BaseModel):
    """A link between nodes of this page, or of this one and an earlier one."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    from_: str = Field(alias="from")
    to: str
    kind: Literal["network", "gateway", "peer", "router"]
    ports: list[str]


class Topology(BaseModel):
    """A page or a part of the topology; `cut` if the part has more nodes than were asked for."""

    counts: dict[str, Any]
    nodes: list[Node] = []
    links: list[Link] = []
    next: str | None = None
    cut: bool = False


class Cytoscape(BaseModel):
    """The same in the form of Cytoscape."""

    elements: dict[str, Any]


_TEXTS = ("text/vnd.graphviz", "text/vnd.mermaid")

router = APIRouter(prefix=PREFIX, tags=["topology"])


@router.get(
    "/topology",
    summary="Show the network as a graph",
    response_model=Topology | Cytoscape,
    responses={200: {"content": {kind: {} for kind in _TEXTS}, "description": "The graph."}},
)
async def topology(
    request: Request,
    asked: Annotated[Asked, Query()],
    principal: Annotated[Principal, Depends(may_read("topology"))],
) -> Response:
    """Routers, switches, physical networks, chassis that are gateways, and the links among them.

    They come in an order: by kind, then by name. A link is told with the later of its two nodes.
    """
    platform: Platform = request.app.state.platform
    for replica in platform.replicas.values():
        await replica.filled()
    await platform.sight.catch_up(principal.id, sight.shown_by(request))
    drawn = await _drawn(platform, asked, _tenant(principal, asked.tenant))
    headers = {AGE: f"{platform.nb.age:.3f}"}
    if drawn.following is not None:
        query = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
        query.append(("cursor", drawn.following))
        headers["Link"] = f'<{request.url.path}?{urlencode(query)}>; rel="next"'
    return Response(drawn.body, media_type=drawn.media_type, headers=headers)


async def warm(platform: Platform) -> None:
    """Have what is asked for most at hand as soon as there is anything."""
    for replica in platform.replicas.values():
        while not replica.is_filled:
            await replica.changed()
    await _drawn(platform, Asked.model_validate({}), None)


@dataclass(frozen=True)
class Drawn:
    """An answer; `following` is the cursor of the next page."""

    body: bytes
    media_type: str
    following: str | None

    def pack(self) -> bytes:
        """All of it, to be kept."""
        return orjson.dumps([self.media_type, self.following]) + b"\n" + self.body

    @classmethod
    def unpack(cls, kept: bytes) -> "Drawn":
        """What `pack` made."""
        head, _, body = kept.partition(b"\n")
        return cls(body, *orjson.loads(head))


async def _drawn(platform: Platform, asked: Asked, tenant: str | None) -> Drawn:
    """Raises Problem, Invalid."""
    as_of = [replica.last_id for replica in platform.replicas.values()]
    if ZERO_UUID in as_of:
        # C's server names a state in a cluster only.
        return _draw(platform, asked, tenant)

    async def compute() -> bytes:
        return _draw(platform, asked, tenant).pack()

    key = ":".join(["topology", *as_of, asked.model_dump_json()])
    return Drawn.unpack(await platform.node.cache.fetch(tenant, key, _KEPT_S, compute))


def _draw(platform: Platform, asked: Asked, tenant: str | None) -> Drawn:
    """Raises Problem, Invalid."""
    n_ports = asked.ports if asked.detail == "ports" else 0
    view = View(platform.graph.graph, tenant, n_ports)
    answer = _answer(view, asked)
    following = None if answer.next is None else _cursor(answer.next)
    if asked.format != "json":
        media_type, draw = _DRAWINGS[asked.format]
        text = draw(answer)
        return Drawn(text if isinstance(text, bytes) else text.encode(), media_type, following)
    told = {
        "counts": view.counts(),
        "nodes": answer.nodes,
        "links": answer.links,
        "next": following,
        "cut": answer.is_cut,
    }
    return Drawn(orjson.dumps(told), _JSON, following)


_DRAWINGS: dict[str, tuple[str, Callable[[Answer], str | bytes]]] = {
    "graphviz": ("text/vnd.graphviz", drawing.graphviz),
    "mermaid": ("text/vnd.mermaid", drawing.mermaid),
    "cytoscape": (_JSON, drawing.cytoscape),
}


def _tenant(principal: Principal, asked: str | None) -> str | None:
    """Whose part is shown. Raises Problem."""
    if principal.tenant is not None and asked not in (None, principal.tenant):
        raise Problem("forbidden", "members of a tenant see what is that tenant's")
    return principal.tenant if asked is None else asked


def _answer(view: View, asked: Asked) -> Answer:
    """Raises Problem, Invalid."""
    if asked.detail == "counts":
        return Answer((), ())
    if asked.around is None:
        return view.page(asked.kinds, _after(asked.cursor), asked.limit)
    try:
        start = view.find(asked.around)
    except Unresolved as error:
        raise Problem("not-found", str(error)) from error
    return view.around(start, asked.steps, asked.kinds, asked.limit)


def _cursor(place: Key) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode()


def _after(cursor: str | None) -> Key | None:
    if cursor is None:
        return None
    try:
        place = orjson.loads(base64.urlsafe_b64decode(cursor))
    except ValueError as error:
        raise refuse("cursor", "format", "this is no cursor") from error
    if type(place) is not list or [type(part) for part in place] != [int, str, str]:
        raise refuse("cursor", "format", "this is no cursor of the topology")
    rank, name, key = place
    return rank, name, key
