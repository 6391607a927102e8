"""Three hundred clients and some writers at a deployment, whatever happens to it; see `judge`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import cycle
from typing import Any

from deployed.deployment import NODES, PATIENCE_SECONDS, Deployment
from deployed.history import History, Term, counts
from deployed.listener import WISHES, Listener, SseListener, WebSocketListener
from deployed.people import TENANT_WRITERS, WRITERS
from deployed.writer import Writer

N_WEBSOCKETS = 300
N_SSE = 10
_WATCH_SECONDS = 0.5

_LEADS = re.compile(r"leading from now on, with token (\d+)")
_LEADS_NO_LONGER = "leading no longer"


@asynccontextmanager
async def clients(deployment: Deployment) -> AsyncIterator[History]:
    """In the block clients write and listen; afterwards what they did and saw is complete."""
    history = History()
    listeners = list(_listeners(deployment, history))
    tasks = [asyncio.create_task(listener.run()) for listener in listeners]
    tasks.append(asyncio.create_task(_watch(deployment, history)))
    writers = [
        Writer(history, name, deployment.url, deployment.tokens[name])
        for name in (*WRITERS, *TENANT_WRITERS)
    ]
    try:
        await _until(lambda: all(heard.first for heard in history.heard), "all listen")
        await asyncio.gather(*(writer.begin() for writer in writers))
        writing = [asyncio.create_task(writer.run()) for writer in writers]
        tasks += writing
        yield history
        for writer in writers:
            writer.is_quiet = True
        await asyncio.gather(*writing)
        await _see_the_end(deployment, history)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            await writer.close()
    history.terms = _terms(deployment)


def _listeners(deployment: Deployment, history: History) -> Iterator[Listener]:
    wishes = cycle(WISHES)
    for number in range(N_WEBSOCKETS + N_SSE):
        kind = WebSocketListener if number < N_WEBSOCKETS else SseListener
        wish = next(wishes)
        name = f"{kind.__name__} {number}"
        yield kind(history, wish, name, deployment.url, deployment.tokens[wish.user])


async def _until(holds: Any, what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"it does not come to be so that {what}") from None


async def _watch(deployment: Deployment, history: History) -> None:
    """Ask all nodes again and again who leads."""
    while True:
        for answer in await asyncio.gather(*map(_leader_of(deployment), NODES)):
            if answer is not None:
                history.leaders.add((answer["token"], answer["node"]))
        await asyncio.sleep(_WATCH_SECONDS)


def _leader_of(deployment: Deployment) -> Any:
    return lambda name: deployment.ask(name, "/cluster/leader")


async def _see_the_end(deployment: Deployment, history: History) -> None:
    """Note what the Northbound has, and wait until all have heard of it, if they ever will."""
    await asyncio.to_thread(_note_the_end, deployment, history)
    for switch in history.counts:
        history.audited[switch] = await _n_audited(deployment, switch)
    try:
        await _until(lambda: _all_have_heard_all(history), "all have heard all")
        for name in NODES:
            await _see_the_sessions(deployment, name, {heard.session for heard in history.heard})
    except AssertionError as error:
        history.broken.append(str(error))


async def _n_audited(deployment: Deployment, switch: str) -> int:
    """How many changes of its switch a writer has made, by the audit trail."""
    n_done, before = 0, ""
    while True:
        path = f"/audit?principal={switch}&resource=switches&limit=1000{before}"
        answer = await deployment.told(NODES[0], path)
        records = [(record["action"], record["result"]) for record in answer["items"]]
        n_done += records.count(("change", "done"))
        if answer["next"] is None:
            return n_done
        before = f"&before={answer['next']}"


async def _see_the_sessions(deployment: Deployment, node: str, sessions: set[str]) -> None:
    """Wait until a node lists the sessions that there are, and no others."""
    listed: set[str] = set()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while listed != sessions:
                answer = await deployment.ask(node, "/cluster/sessions")
                listed = {each["id"] for each in answer["items"]} if answer else set()
                await asyncio.sleep(0.2)
    except TimeoutError:
        n_left, n_lacking = len(listed - sessions), len(sessions - listed)
        text = f"{node} lists {n_left} sessions that are over, and lacks {n_lacking}"
        raise AssertionError(text) from None


def _all_have_heard_all(history: History) -> bool:
    order = history.order
    for switch, last in history.counts.items():
        if last not in dict(counts(switch, order)):
            return False
    latest = {
        wish.name: max((id for id, event in order.items() if wish.admits(event)), default=(0, 0))
        for wish in WISHES
    }
    return all((heard.position or (0, 0)) >= latest[heard.wish] for heard in history.heard)


def _note_the_end(deployment: Deployment, history: History) -> None:
    client = deployment.ovsdb.client()
    switches = _rows(client, "Logical_Switch", "name", "external_ids", "ports")
    names = {row["_uuid"][1]: row["name"] for row in _rows(client, "Logical_Switch_Port", "name")}
    for row in switches:
        history.counts[row["name"]] = int(dict(row["external_ids"][1]).get("n", 0))
        held = row["ports"][1] if row["ports"][0] == "set" else [row["ports"]]
        history.ports.setdefault(row["name"], []).extend(names[uuid] for _, uuid in held)
    if len(switches) != len(history.counts):
        history.broken.append("a switch was made twice")


def _rows(client: Any, table: str, *columns: str) -> list[dict[str, Any]]:
    select = {"op": "select", "table": table, "where": [], "columns": ["_uuid", *columns]}
    rows: list[dict[str, Any]] = client.transact("OVN_Northbound", select)[0]["rows"]
    return rows


def _terms(deployment: Deployment) -> list[Term]:
    """Who has led, by what the nodes have logged."""
    terms: list[Term] = []
    for lines in deployment.node_logs:
        leads = False
        for line in lines:
            at = datetime.fromisoformat(line["time"]).timestamp()
            if found := _LEADS.fullmatch(line["message"]):
                terms.append(Term(line["node"], int(found[1]), at, at))
                leads = True
            if leads:
                terms[-1].end = at  # or later, if it was killed
            if line["message"].startswith(_LEADS_NO_LONGER):
                leads = False
    return terms
