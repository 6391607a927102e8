"""The judge of the scenarios finds what is wrong with a history."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deployed.history import Event, Heard, History, Id, Outcome, Term, Write
from deployed.judge import judge


def event(id: Id, type: str, name: str, table: str = "Logical_Switch", **more: object) -> Event:
    return {
        "id": "{}-{}".format(*id),
        "type": type,
        "table": table,
        "name": name,
        "uuid": name,
        **more,
    }


def counted(id: Id, n: int) -> Event:
    return event(id, "update", "w", changes={"external_ids": {"n": f"{n}"}})


PORT = "Logical_Switch_Port"
EVENTS = {
    (5, 1): event((5, 1), "insert", "w"),
    (5, 2): counted((5, 2), 1),
    (5, 3): event((5, 3), "insert", "w-1", PORT, row={"up": None}),
    (7, 1): counted((7, 1), 2),
    (7, 2): event((7, 2), "insert", "w-2", PORT, row={}),
    (7, 3): event((7, 3), "delete", "w-1", PORT),
}


def good() -> History:
    """One with which nothing is wrong."""
    done = Outcome.DONE
    history = History(
        writes=[
            Write("count", "w", "1", done),
            Write("make", "w", "w-1", done),
            Write("count", "w", "2"),
            Write("count", "w", "3", Outcome.REFUSED),
            Write("make", "w", "w-2", done),
            Write("delete", "w", "w-1", done),
        ],
        events=dict(EVENTS),
        terms=[Term("a", 5, 100.0, 106.0), Term("b", 7, 106.5, 110.0)],
        leaders={(5, "a"), (7, "b")},
        counts={"w": 2},
        ports={"w": ["w-2"]},
        audited={"w": 1},
    )
    events = list(EVENTS.values())
    history.heard = [
        Heard("x", "all", lambda event: True, (5, 0), (7, 3), events),
        Heard("y", "ports", lambda e: e["table"] == PORT, (5, 2), (7, 2), [events[2], events[4]]),
    ]
    return history


def test_nothing_is_wrong_with_a_good_one() -> None:
    assert judge(good()) == []
    history = good()
    history.events[7, 4] = event((7, 4), "insert", "w-2", PORT, row={"up": True})
    history.heard[0].events.append(history.events[7, 4])
    history.heard[0].position = (7, 4)
    assert judge(history) == []  # It is in a newer state.


def tell(history: History, told: Event, id: Id) -> None:
    history.events[id] = told
    history.heard[0].events.append(told)
    history.heard[0].position = id


SPOILED: dict[str, Callable[[History], object]] = {
    "has heard 1 of 2": lambda h: h.heard[1].events.pop(),
    "has heard 6 of 6": lambda h: h.heard[0].events.reverse(),
    "was told 1 times": lambda h: setattr(h.heard[0], "n_missed", 1),
    "never told": lambda h: setattr(h.heard[1], "first", None),
    "what='9'": lambda h: h.writes.append(Write("count", "w", "9", Outcome.DONE)),
    "REFUSED": lambda h: h.writes.append(Write("count", "w", "2", Outcome.REFUSED)),
    "counted to 1 after 2": lambda h: tell(h, counted((7, 9), 1), (7, 9)),
    "[(7, 2), (7, 9)]": lambda h: tell(h, event((7, 9), "insert", "w-2", PORT, row={}), (7, 9)),
    "at the end there are the ports": lambda h: h.ports["w"].append("w-1"),
    "has counted to 3 at the end": lambda h: h.counts.update(w=3),
    "of which the audit trail has 0": lambda h: h.audited.clear(),
    "not one after the other": lambda h: setattr(h.terms[1], "start", 103.0),
    "nobody has led as": lambda h: h.leaders.add((7, "a")),
    "nobody with the token 7": lambda h: h.terms.pop(),
}


@pytest.mark.parametrize("wrong", SPOILED)
def test_it_finds_what_is_wrong(wrong: str) -> None:
    history = good()
    SPOILED[wrong](history)
    assert any(wrong in text for text in judge(history)), judge(history)
