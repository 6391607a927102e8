"""`/ws` and `events`: what changes, as it changes, over a WebSocket or as Server-Sent Events.

Both tell the same messages, which are JSON objects with a `type`; see docs/platform.md.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import HTTPConnection
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocketDisconnect, WebSocketState

from ovncp.api import access, problem
from ovncp.api.access import may_read
from ovncp.api.event_session import EventSession
from ovncp.api.hub import Message
from ovncp.api.identification import TENANT
from ovncp.api.location import DATABASES, PREFIX
from ovncp.api.platform import Platform
from ovncp.api.problem import Problem
from ovncp.api.subscription import Filter
from ovncp.auth.principal import Principal
from ovncp.cluster.base import StreamId
from ovncp.ovn.change_events import SHORT, UNTOLD
from ovncp.ovn.resources import BY_NAME
from ovncp.ovn.values import Invalid, Mistake, refuse

LARGEST_MESSAGE = 1 << 16  # of a client, in bytes; who sends a larger one is cut off
SEND_SECONDS = 60.0
"""For how long a client may take nothing of what it is sent, until it is cut off."""
LOOK_SECONDS = 30.0
"""How often it is looked whether a client may still be told: who is shut out hears that much."""
MOVED = 1012  # "Service Restart": clients connect again (RFC 6455 section 7.4.2)

Names = Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=1000)]


class Wanted(BaseModel):
    """Which events are wanted: those that meet all that is given."""

    model_config = ConfigDict(extra="forbid")

    resources: Names = Field([], description="Of rows of these resources, such as `switches`.")
    tables: Names = Field([], description="Of rows of these tables, such as `nb/Logical_Switch`.")
    tenants: Names = Field([], description="Of rows that are these tenants'.")
    patterns: Names = Field(
        [],
        description="Of rows that one of these stands for: `switches:web-*`, or `nb/Meter:*`,"
        " with the row's name or uuid.",
    )
    after: str | None = Field(None, description="Those that came after the event with this id.")


class Subscribe(Wanted):
    """The message of a WebSocket's client that says what it wants to be told from now on."""

    type: str = Field(pattern="^subscribe$")


router = APIRouter(tags=["events"])


def bound(listening: socket.socket) -> None:
    """Have those who come by a socket cut off when they take nothing for `SEND_SECONDS`.

    What they are sent meanwhile fills the buffer of the connection, and no more (tcp(7)).
    """
    limit_msec = round(SEND_SECONDS * 1000)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_msec)


# Server-Sent Events


@router.get(
    f"{PREFIX}/events",
    summary="Follow what changes",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Messages, for ever."}},
)
async def events(
    request: Request,
    wanted: Annotated[Wanted, Query()],
    principal: Annotated[Principal, Depends(may_read("events"))],
) -> Response:
    """Tell what changes, as Server-Sent Events; `Last-Event-ID` is as the parameter `after`."""
    platform: Platform = request.app.state.platform
    _check_open(platform)
    after = request.headers.get("last-event-id") or wanted.after
    filter, begin = filter_of(wanted, principal, platform), _position(after)
    address = request.client.host if request.client is not None else ""

    async def texts() -> AsyncIterator[str]:
        with platform.audience.session(principal, address, "sse") as session:
            session.subscribe(filter, begin)
            looking = asyncio.create_task(_look(request, principal, session))
            try:
                async for message in session.messages():
                    yield _event_text(message)
                    if message.kind == "move":
                        return
            finally:
                looking.cancel()

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(texts(), media_type="text/event-stream", headers=headers)


def _event_text(message: Message) -> str:
    id = "" if message.id is None else f"id: {message.id}\n"
    return f"{id}event: {message.kind}\ndata: {message.text}\n\n"


# WebSocket


@router.websocket("/ws")
async def websocket(websocket: WebSocket) -> None:
    """Tell what changes; the client says `subscribe`, or has what it wants in the query."""
    platform: Platform = websocket.app.state.platform
    try:
        principal = await access.principal_of(websocket)
        access.allow(principal, "events", changes=False)
        _check_open(platform)
        wanted = _from_query(websocket)
        begin = None if wanted is None else _begin(wanted, principal, platform)
    except problem.KNOWN as error:
        await websocket.send_denial_response(problem.response(_problem(error), websocket))
        return
    await websocket.accept()
    address = websocket.client.host if websocket.client is not None else ""
    with platform.audience.session(principal, address, "websocket") as session:
        if begin is not None:
            session.subscribe(*begin)
        listening = asyncio.create_task(_listen(websocket, session, principal, platform))
        looking = asyncio.create_task(_look(websocket, principal, session))
        try:
            await _tell(websocket, session)
        except (TimeoutError, WebSocketDisconnect):
            return
        finally:
            listening.cancel()
            looking.cancel()
            await asyncio.wait([listening, looking])


async def _tell(websocket: WebSocket, session: EventSession) -> None:
    """Send all messages, each of which the client has a while to take."""
    async for message in session.messages():
        async with asyncio.timeout(SEND_SECONDS):
            await websocket.send_text(message.text)
    if websocket.client_state is WebSocketState.CONNECTED:
        await websocket.close(MOVED)


async def _listen(
    websocket: WebSocket, session: EventSession, principal: Principal, platform: Platform
) -> None:
    """Do what the client says, until it is gone."""
    try:
        while (message := await websocket.receive())["type"] == "websocket.receive":
            try:
                wanted = _read(message.get("text"))
                session.subscribe(*_begin(wanted, principal, platform))
            except problem.KNOWN as error:
                session.say("error", problem=_problem(error).to_json())
    finally:
        session.end()


def _read(text: str | None) -> Wanted:
    """The message of a client. Raises Invalid."""
    if text is None:
        raise refuse("", "type", "a message is text")
    return _validated(Subscribe, text)


def _from_query(websocket: WebSocket) -> Wanted | None:
    """What the query asks for, None if it says nothing. Raises Invalid."""
    members: dict[str, Any] = {}
    for name, value in websocket.query_params.multi_items():
        if name == "after":
            members[name] = value
        elif name not in ("node", TENANT):  # for the load balancer, and for `identification`
            members.setdefault(name, []).append(value)
    return _validated(Wanted, members) if members else None


def _validated(model: type[Wanted], given: str | dict[str, Any]) -> Wanted:
    try:
        if isinstance(given, str):
            return model.model_validate_json(given)
        return model.model_validate(given)
    except ValidationError as error:
        mistakes = [
            Mistake(".".join(map(str, each["loc"])), each["type"], each["msg"])
            for each in error.errors()
        ]
        raise Invalid(mistakes) from error


def _problem(error: Exception) -> Problem:
    known = problem.of(error)
    assert known is not None
    return known


async def _look(connection: HTTPConnection, principal: Principal, session: EventSession) -> None:
    """End the session of who may not be told any more: logged out, or of the tenant no longer."""
    while not session.is_over:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            now = await access.principal_of(connection)
            access.allow(now, "events", changes=False)
        except problem.KNOWN as error:
            if _problem(error).status in (401, 403):
                session.end()
        else:
            if now.tenant != principal.tenant:
                session.end()


# What is wanted


def _check_open(platform: Platform) -> None:
    """Refuse clients that would be asked to move at once. Raises Problem."""
    if platform.node.is_draining:
        raise Problem("unavailable", "this node is about to end", headers={"Retry-After": "1"})


def _begin(
    wanted: Wanted, principal: Principal, platform: Platform
) -> tuple[Filter, StreamId | None]:
    """What a session is to begin with. Raises Problem, Invalid."""
    return filter_of(wanted, principal, platform), _position(wanted.after)


def filter_of(wanted: Wanted, principal: Principal, platform: Platform) -> Filter:
    """The wanted events, as far as `principal` may know of them. Raises Problem, Invalid."""
    tables = {_of_resource(name) for name in wanted.resources}
    tables |= {_of_table(name, platform) for name in wanted.tables}
    for short, table in tables:
        if (DATABASES[short], table) in UNTOLD:
            raise refuse("tables", "unavailable", f"changes of {table} are not told")
    tenants = frozenset(wanted.tenants)
    if principal.tenant is not None:
        if not tenants <= {principal.tenant}:
            raise Problem("forbidden", "members of a tenant see what is that tenant's")
        tenants = frozenset([principal.tenant])
    return Filter(frozenset(tables), tenants, frozenset(wanted.patterns))


def _of_resource(name: str) -> tuple[str, str]:
    resource = BY_NAME.get(name)
    if resource is None:
        raise refuse("resources", "unknown", f"there is no resource {name!r}")
    return SHORT[resource.database], resource.table


def _of_table(name: str, platform: Platform) -> tuple[str, str]:
    short, _, table = name.partition("/")
    database = DATABASES.get(short)
    if database is None:
        raise refuse("tables", "unknown", f"nb/TABLE or sb/TABLE is wanted, not {name!r}")
    rows = platform.replicas[database].rows
    if rows and table not in rows:
        raise refuse("tables", "unknown", f"{database} has no table {table!r}")
    return short, table


def _position(text: str | None) -> StreamId | None:
    if text is None:
        return None
    try:
        return StreamId.parse(text)
    except ValueError as error:
        raise refuse("after", "format", str(error)) from error
