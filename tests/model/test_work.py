"""What a change costs does not grow with those whom it does not concern: counted, not timed.

The measure is the number of functions called, in Python and in C. Those of the compiled hot path do
not show, so that this is about the source.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from model.pair import DATE, Client, new_database
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.monitor import Monitor

STRONG, WEAK = ({"type": "uuid", "refTable": "Place", "refType": t} for t in ("strong", "weak"))
SCHEMA = {
    "name": "db",
    "tables": {
        "Place": {"columns": {"name": {"type": "string"}}, "isRoot": True},
        "Port": {
            "columns": {
                "name": {"type": "string"},
                "place": {"type": {"key": STRONG}},
                "seen": {"type": {"key": WEAK, "min": 0, "max": "unlimited"}},
                "tag": {"type": {"key": "integer", "min": 0, "max": 1}},
                "ids": {"type": {"key": "string", "value": "string", "min": 0, "max": 4}},
                "text": {"type": "string"},
            },
            "isRoot": True,
        },
    },
}


def uuid(table: int, number: int) -> list[str]:
    return ["uuid", f"{table:08x}-1111-4111-8111-{number:012x}"]


def place(number: int) -> dict[str, Any]:
    return {"op": "insert", "table": "Place", "row": {}, "uuid": uuid(1, number)[1]}


def port(number: int, places: int) -> dict[str, Any]:
    row = {
        "name": f"port {number}",
        "place": uuid(1, number % places),
        "seen": ["set", [uuid(1, number % places), uuid(1, (number + 1) % places)]],
        "tag": number,
        "ids": ["map", [["number", str(number)], ["kind", "port"]]],
    }
    return {"op": "insert", "table": "Port", "row": row, "uuid": uuid(2, number)[1]}


def transact(database: Database, *operations: Any) -> list[tuple[Monitor, bytes]]:
    """Who is told what of a transaction."""
    outcome = database.transact(list(operations), Client(), now_msec=DATE)
    assert outcome.commit is not None, outcome.results
    _, notifications = database.settle()
    return [(monitor, n.message) for n in notifications for monitor in n.monitors]


def filled(places: int, ports: int) -> Database:
    database = new_database(SCHEMA)
    transact(database, *map(place, range(places)))
    transact(database, *(port(number, places) for number in range(ports)))
    return database


def watch(database: Database, name: str, where: list[Any]) -> Monitor:
    request = {"Port": [{"columns": ["name", "text"], "where": where}]}
    return database.monitors.add(name, name, database.monitors.parse(request, 3))


def work(action: Callable[..., Any], *args: Any) -> tuple[int, Any]:
    """How many functions `action` calls with `args`, and what it returns."""
    n_calls = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal n_calls
        n_calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        result = action(*args)
    finally:
        sys.setprofile(None)
    return n_calls, result


def assert_alike(costs: list[int]) -> None:
    """That they are, but for what the order of hashes does: a few calls more or fewer."""
    assert max(costs) <= 1.25 * min(costs) + 10, costs


# What the client of each number wants to see; each row meets the conditions of few.
WANTED: dict[str, Callable[[int], Any]] = {
    "a strong reference": lambda n: ["place", "==", uuid(1, n)],
    "a weak reference of a set": lambda n: ["seen", "includes", uuid(1, n)],
    "a string": lambda n: ["name", "==", f"port {n}"],
    "the uuid": lambda n: ["_uuid", "==", uuid(2, n)],
    "an optional scalar": lambda n: ["tag", "==", n],
    "what an optional scalar includes": lambda n: ["tag", "includes", ["set", [n]]],
    "a whole set": lambda n: ["seen", "==", ["set", [uuid(1, n), uuid(1, n + 1)]]],
    "a pair of a map": lambda n: ["ids", "includes", ["map", [["number", str(n)]]]],
    "a whole map": lambda n: ["ids", "==", ["map", [["number", str(n)], ["kind", "port"]]]],
}


@pytest.mark.parametrize("kind", WANTED)
def test_a_change_costs_what_it_concerns(kind):
    costs = []
    for clients in (10, 1000):
        database = filled(1001, 3)
        monitors = [watch(database, f"m{n}", [WANTED[kind](n)]) for n in range(clients)]
        change = {"op": "update", "table": "Port", "where": [], "row": {"text": "new"}}
        change["where"] = [["_uuid", "==", uuid(2, 2)]]
        outcome = database.transact([change], Client(), now_msec=DATE)
        assert outcome.commit is not None
        cost, (_, notifications) = work(database.settle)
        concerned = {monitor for n in notifications for monitor in n.monitors}
        assert monitors[2] in concerned
        assert len(concerned) <= 2
        costs.append(cost)
    assert_alike(costs)


def test_a_change_costs_its_clients_and_not_their_clauses():
    costs = []
    for clauses in (1, 500):
        database = filled(1000, 3)
        for client in range(20):
            mine = [["name", "==", f"{client} {n}"] for n in range(clauses)]
            watch(database, f"m{client}", [["place", "==", uuid(1, 0)], *mine])
        change = {"op": "update", "table": "Port", "row": {"text": "new"}}
        change["where"] = [["_uuid", "==", uuid(2, 0)]]
        outcome = database.transact([change], Client(), now_msec=DATE)
        assert outcome.commit is not None
        cost, (_, notifications) = work(database.settle)
        assert len(notifications) == 20
        costs.append(cost)
    assert_alike(costs)


def test_a_clause_that_only_trying_decides_is_tried_once():
    costs = []
    for clients in (1, 1000):
        database = filled(2, 1)
        for client in range(clients):
            watch(database, f"m{client}", [["tag", "!=", 0], ["name", "==", f"{client}"]])
        change = {"op": "update", "table": "Port", "where": [], "row": {"text": "new"}}
        outcome = database.transact([change], Client(), now_msec=DATE)
        assert outcome.commit is not None
        cost, (_, notifications) = work(database.settle)
        assert not notifications
        costs.append(cost)
    assert_alike(costs)


@pytest.mark.parametrize("kind", WANTED)
def test_a_change_of_condition_costs_the_rows_that_it_brings(kind):
    costs = []
    for ports in (100, 3000):
        database = filled(ports, ports)
        clauses = [["name", "==", f"port {n}"] for n in range(50)]
        monitor = watch(database, "m", clauses)
        monitors = database.monitors
        for number, n in ((1, 60), (2, 70)):
            wanted = {"Port": [{"where": [*clauses, WANTED[kind](n)]}]}
            change = monitors.parse_change(monitor, wanted)
            cost, updates = work(monitors.change_conditions, monitor, "m", change)
            shown = orjson.loads(b"".join(updates))["Port"]
            assert uuid(2, n)[1] in shown
            assert len(shown) <= 2 + 2 * (number - 1)
        # The second time, since the first one makes the index.
        costs.append(cost)
    assert_alike(costs)


@pytest.mark.parametrize("kind", WANTED)
def test_a_first_dump_costs_the_rows_that_it_has(kind):
    costs = []
    for ports in (100, 3000):
        database = filled(ports, ports)
        for n in (60, 70):
            monitor = watch(database, f"m{n}", [WANTED[kind](n)])
            cost, parts = work(database.monitors.initial, monitor)
            shown = orjson.loads(b"".join(parts))["Port"]
            assert uuid(2, n)[1] in shown
            assert len(shown) <= 2
        costs.append(cost)
    assert_alike(costs)


def test_a_dump_after_a_change_costs_the_change():
    costs = []
    for ports in (1000, 3000):
        database = filled(10, ports)
        monitor = watch(database, "m", [True])
        first, _ = work(database.monitors.initial, monitor)
        change = {"op": "update", "table": "Port", "row": {"text": "new"}}
        change["where"] = [["_uuid", "==", uuid(2, 0)]]
        transact(database, change)
        cost, parts = work(database.monitors.initial, monitor)
        assert len(orjson.loads(b"".join(parts))["Port"]) == ports
        assert cost <= max(first / 20, 10)
        costs.append(cost)
    assert_alike(costs)


@pytest.mark.parametrize("kind", WANTED)
def test_a_return_costs_what_it_concerns(kind):
    """What others missed as well is looked at for the first of those who come back."""
    costs = []
    for changed in (100, 1000):
        database = filled(1001, 1001)
        past_id = database.transaction_id
        rows = range(changed)
        change = {"op": "update", "table": "Port", "row": {"text": "new"}}
        where = [[["_uuid", "==", uuid(2, number)]] for number in rows]
        transact(database, *(change | {"where": each} for each in where))
        for n in (60, 70):
            monitor = watch(database, f"m{n}", [WANTED[kind](n)])
            cost, updates = work(database.monitors.since, monitor, database.history, past_id)
            shown = orjson.loads(updates)["Port"]
            assert uuid(2, n)[1] in shown
            assert len(shown) <= 2
        costs.append(cost)
    assert_alike(costs)


def test_a_return_costs_the_same_whatever_each_knows():
    """Of thousands who come back hardly two know the same state."""
    costs = []
    for changed in (100, 1000):
        database = filled(changed + 1, changed + 1)
        past_ids = []
        for number in range(changed):
            past_ids.append(database.transaction_id)
            change = {"op": "update", "table": "Port", "row": {"text": "new"}}
            transact(database, change | {"where": [["_uuid", "==", uuid(2, number)]]})
        for n in (0, 60, 70):
            condition = [["name", "==", f"port {n + 1}"], ["name", "==", f"port {n - 1}"]]
            monitor = watch(database, f"m{n}", condition)
            cost, updates = work(database.monitors.since, monitor, database.history, past_ids[n])
            assert list(orjson.loads(updates)["Port"]) == [uuid(2, n + 1)[1]]
        costs.append(cost)
    assert_alike(costs)


def test_what_nobody_uses_is_dropped():
    database = filled(10, 10)
    monitors = database.monitors
    for number in range(10):
        monitors.initial(watch(database, f"m{number}", [["name", "==", f"port {number}"]]))
    monitors.initial(watch(database, "all", [True]))
    assert (monitors.n_row_indexes, monitors.n_caches) == (1, 1)
    monitors.drop_unused()
    assert (monitors.n_row_indexes, monitors.n_caches) == (1, 1)
    monitors.drop_unused()
    assert (monitors.n_row_indexes, monitors.n_caches) == (0, 0)


def test_what_is_put_together_for_one_who_does_not_come_is_dropped():
    """And put together anew for one who comes nevertheless."""
    database = filled(10, 10)
    monitors = database.monitors
    request = monitors.parse({"Port": [{"columns": ["text"], "where": [["text", "!=", "no"]]}]}, 2)
    assert len(list(monitors.prepare(request))) > 0
    monitors.drop_unused()
    monitors.drop_unused()
    transact(database, {"op": "delete", "table": "Port", "where": []})
    assert monitors.initial(monitors.add(None, "m", request)) == [b"{}"]


def test_indexes_of_rows_are_so_many_at_most():
    columns = {f"c{n}": {"type": "integer"} for n in range(100)}
    database = new_database({"name": "db", "tables": {"T": {"columns": columns}}})
    for number in range(100):
        request = {"T": [{"columns": [], "where": [[f"c{number}", "==", 1]]}]}
        wanted = database.monitors.parse(request, 2)
        database.monitors.initial(database.monitors.add(None, number, wanted))
    assert 1 < database.monitors.n_row_indexes < 50


def test_conditions_of_those_who_left_are_forgotten():
    database = filled(3, 3)
    monitors = [watch(database, f"m{n}", [WANTED[kind](n) for kind in WANTED]) for n in range(9)]
    assert database.monitors.n_clauses > 50
    for monitor in monitors:
        database.monitors.remove(monitor)
    assert database.monitors.n_clauses == 0
