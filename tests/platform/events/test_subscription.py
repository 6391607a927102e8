"""Filters of events: what they admit, and that what they are kept by finds all that they admit."""

import random

import pytest

from ovncp.api.subscription import Filter, keys_of
from ovncp.ovn.change_events import Head

WEB = Head("nb", "Logical_Switch", "switches", "u-1", "web-1", ["red"], 0.0)
PORT = Head("nb", "Logical_Switch_Port", "switch-ports", "u-2", "web-1", ["red", "blue"], 0.0)
GLOBAL = Head("nb", "NB_Global", None, "u-3", "", [], 0.0)
CHASSIS = Head("sb", "Chassis", "chassis", "u-4", "hv[1]", [], 0.0)
HEADS = [WEB, PORT, GLOBAL, CHASSIS]

SWITCHES, PORTS = ("nb", "Logical_Switch"), ("nb", "Logical_Switch_Port")


@pytest.mark.parametrize(
    "wanted, admitted",
    [
        ({}, HEADS),
        ({"tables": [SWITCHES]}, [WEB]),
        ({"tables": [SWITCHES, PORTS]}, [WEB, PORT]),
        ({"tables": [("sb", "Logical_Switch")]}, []),
        ({"tenants": ["blue"]}, [PORT]),
        ({"tenants": ["green"]}, []),
        ({"patterns": ["switches:web-1"]}, [WEB]),
        ({"patterns": ["switches:u-1"]}, [WEB]),
        ({"patterns": ["switch*:web-?"]}, [WEB, PORT]),
        ({"patterns": ["*:web-*"]}, [WEB, PORT]),
        ({"patterns": ["nb/NB_Global:*"]}, [GLOBAL]),
        ({"patterns": ["chassis:hv[[]1]"]}, [CHASSIS]),
        ({"patterns": ["switches:WEB-1"]}, []),
        ({"patterns": ["*"], "tenants": ["red"], "tables": [PORTS]}, [PORT]),
    ],
)
def test_what_is_admitted(wanted: dict[str, list[str]], admitted: list[Head]) -> None:
    filter = Filter(**{name: frozenset(given) for name, given in wanted.items()})
    assert [head for head in HEADS if filter.admits(head)] == admitted


def test_reload_of_a_database_is_for_all_who_look_at_it() -> None:
    reload = Head("nb", "", None, "", "", [], 0.0)
    assert Filter().admits(reload)
    assert Filter(tenants=frozenset(["red"])).admits(reload)
    assert Filter(tables=frozenset([SWITCHES])).admits(reload)
    assert not Filter(tables=frozenset([("sb", "Chassis")])).admits(reload)


def test_what_is_no_event_is_for_nobody() -> None:
    assert not Filter().admits(Head("", "", None, "", "", [], 0.0))


def test_whoever_admits_an_event_is_found_by_it() -> None:
    choose = random.Random(1)
    tables = [(head.database, head.table) for head in HEADS]
    patterns = ["switches:web-1", "switches:*", "sw*:web-1", "*", "nb/NB_Global:", "chassis:hv*"]
    patterns += ["*:u-2", "switch-ports:web-[12]", "nb/*", "switches"]
    n_admitted = 0
    for _ in range(2000):
        filter = Filter(
            frozenset(choose.sample(tables, choose.randrange(3))),
            frozenset(choose.sample(["red", "blue", "green"], choose.randrange(3))),
            frozenset(choose.sample(patterns, choose.randrange(4))),
        )
        for head in HEADS:
            if filter.admits(head):
                n_admitted += 1
                assert filter.kept_by() & set(keys_of(head)), (filter, head)
    assert n_admitted > 500
