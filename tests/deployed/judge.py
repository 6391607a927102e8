"""Judges a history: was every acknowledged write kept and told once, and everything told in order?

All clients together have heard the one order of events. Each of them must have heard what it asked
for of that, from where it began to where it is. The counts and ports of the writers must be in it
as they were acknowledged, and the database at the end must be what it comes to.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from deployed.history import Event, Heard, History, Id, Outcome, Write, counts

_MOMENT_SECONDS = 2.0
"""By how much later than by its clock a node whose lease has run out may say so: when it can do
anything again, on a machine with much else to do."""


def judge(history: History) -> list[str]:
    """What is wrong, nothing if all is well."""
    order = history.order
    rules: list[Callable[[History, dict[Id, Event]], Iterator[str]]] = [
        _all_is_heard,
        _no_one_missed,
        _counts_are_told,
        _ports_are_told,
        _the_end_is_what_was_told,
        _counts_are_audited,
        _one_leads,
    ]
    return history.broken + [text for rule in rules for text in rule(history, order)]


def _all_is_heard(history: History, order: dict[Id, Event]) -> Iterator[str]:
    for heard in history.heard:
        expected = [event["id"] for event in _meant_for(heard, order)]
        told = [event["id"] for event in heard.events]
        if told != expected:
            missing = [id for id in expected if id not in set(told)]
            text = f"{len(told)} of {len(expected)} events, not {missing[:3]}"
            yield f"{heard.who} has heard {text}, from {heard.first} to {heard.position}"


def _meant_for(heard: Heard, order: dict[Id, Event]) -> list[Event]:
    if heard.first is None or heard.position is None:
        return []
    return [
        event
        for id, event in order.items()
        if heard.first < id <= heard.position and heard.admits(event)
    ]


def _no_one_missed(history: History, order: dict[Id, Event]) -> Iterator[str]:
    for heard in history.heard:
        if heard.first is None:
            yield f"{heard.who} was never told anything"
        if heard.n_missed:
            yield f"{heard.who} was told {heard.n_missed} times that it has missed events"


def _counts_are_told(history: History, order: dict[Id, Event]) -> Iterator[str]:
    for switch in {write.switch for write in history.writes}:
        writes = [w for w in history.writes if (w.kind, w.switch) == ("count", switch)]
        told = list(counts(switch, order))
        for (before, _), (later, id) in pairwise(told):
            if later <= before:
                yield f"{switch} is told by {id} to have counted to {later} after {before}"
        yield from _as_acknowledged(writes, ((str(number), id) for number, id in told))


def _ports_are_told(history: History, order: dict[Id, Event]) -> Iterator[str]:
    for kind, type in (("make", "insert"), ("delete", "delete")):
        writes = [write for write in history.writes if write.kind == kind]
        yield from _as_acknowledged(writes, _told_of_ports(type, order))


_PORT = "Logical_Switch_Port"


def _told_of_ports(type: str, order: dict[Id, Event]) -> Iterator[tuple[str, Id]]:
    """The ports' names, and the events' ids.

    A row that is inserted again is there in a newer state, which the node that leads from then on
    has seen as one with the insertion; but it must be another state.
    """
    rows: dict[str, object] = {}
    for id, event in order.items():
        if (event["table"], event["type"]) == (_PORT, type):
            if event["uuid"] not in rows or rows[event["uuid"]] == event.get("row"):
                yield event["name"], id
            rows[event["uuid"]] = event.get("row")


def _as_acknowledged(writes: list[Write], told: Iterable[tuple[str, Id]]) -> Iterator[str]:
    """Each write that was done was told once, one that was refused never, others once at most."""
    ids: defaultdict[str, list[Id]] = defaultdict(list)
    for what, id in told:
        ids[what].append(id)
    for write in writes:
        n_told = len(ids[write.what])
        is_done, is_refused = write.outcome is Outcome.DONE, write.outcome is Outcome.REFUSED
        if n_told > 1 or (is_done and not n_told) or (is_refused and n_told):
            yield f"{write} is told by {ids[write.what]}"


def _the_end_is_what_was_told(history: History, order: dict[Id, Event]) -> Iterator[str]:
    there: set[str] = set()
    for event in order.values():
        if event["table"] == _PORT and event["type"] in ("insert", "delete"):
            (there.add if event["type"] == "insert" else there.discard)(event["name"])
    ports = sorted(name for names in history.ports.values() for name in names)
    if ports != sorted(there):
        yield f"at the end there are the ports {ports}, and told were {sorted(there)}"
    for switch, count in history.counts.items():
        told, _ = [(0, None), *counts(switch, order)][-1]
        if count != told:
            yield f"{switch} has counted to {count} at the end, and {told} was told"


def _counts_are_audited(history: History, order: dict[Id, Event]) -> Iterator[str]:
    done = Counter(
        write.switch
        for write in history.writes
        if write.kind == "count" and write.outcome is Outcome.DONE
    )
    for switch, n_done in done.items():
        if history.audited.get(switch, 0) < n_done:
            n_kept = history.audited.get(switch, 0)
            yield f"{switch} has counted {n_done} times, of which the audit trail has {n_kept}"


def _one_leads(history: History, order: dict[Id, Event]) -> Iterator[str]:
    terms = sorted(history.terms, key=lambda term: term.start)
    for before, after in pairwise(terms):
        if after.token <= before.token or after.start < before.end - _MOMENT_SECONDS:
            yield f"{before} and {after} are not one after the other"
    known = {(term.token, term.node) for term in terms}
    for stranger in history.leaders - known:
        yield f"nobody has led as {stranger}"
    for token in {id[0] for id in order} - {term.token for term in terms}:
        yield f"nobody with the token {token} has led, who has appended events"
