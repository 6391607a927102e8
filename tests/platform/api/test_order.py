"""Rows in an order: sorted in slices while they change, as if it had been done at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from itertools import cycle, permutations
from typing import Any

import pytest

from ovncp.ovn import filters, listing
from ovncp.ovn.listing import Question, parse_orders
from ovncp.ovn.order import Order, order_key
from ovncp.ovn.rows import Rows
from platform_network import Network

N_ROWS = 5_000


@pytest.fixture(scope="module")
def network() -> Network:
    network = Network()
    numbers = random.Random(1)
    network.transact("nb", *(insertion(numbers) for _ in range(N_ROWS)))
    return network


def insertion(numbers: random.Random) -> dict[str, Any]:
    return {"op": "insert", "table": "Mirror", "row": mirror(numbers) | {"name": name(numbers)}}


def name(numbers: random.Random) -> str:
    """One that no other row has."""
    return f"{numbers.randrange(100)}-{numbers.getrandbits(60)}"


def mirror(numbers: random.Random) -> dict[str, Any]:
    """Columns that many rows have alike."""
    return {
        "type": numbers.choice(["gre", "erspan"]),
        "filter": "to-lport",
        "index": numbers.randrange(5),
        "sink": f"10.0.0.{numbers.randrange(20)}",
        "external_ids": ["map", [["k", f"{numbers.randrange(3)}"]]],
    }


def some_change(network: Network, rows: Rows, numbers: random.Random) -> dict[str, Any]:
    uuid = numbers.choice(list(rows.table.rows))
    where = [["_uuid", "==", ["uuid", uuid]]]
    changes = (
        insertion(numbers),
        {"op": "delete", "table": "Mirror", "where": where},
        {"op": "update", "table": "Mirror", "where": where, "row": {"name": name(numbers)}},
        {"op": "update", "table": "Mirror", "where": where, "row": mirror(numbers)},
    )
    return numbers.choice(changes)


def columns_of(rows: Rows, text: str) -> tuple[Any, ...]:
    return tuple(parse_orders(rows, text))


def naively(rows: Rows, columns: Any) -> Sequence[str]:
    key = order_key(columns)
    return [uuid for _, uuid in sorted((key(row.values), row.uuid) for row in rows.values())]


def uuids(order: Order) -> Sequence[str]:
    return [uuid for _, uuid in order.page(None, 2 * N_ROWS)]


@pytest.mark.parametrize("text", ["name", "external_ids", "index,-name", "sink,index", "_uuid"])
async def test_what_changes_while_it_is_sorted_is_in_its_place(network, text) -> None:
    rows = network.rows["nb"]["Mirror"]
    columns, numbers = columns_of(rows, text), random.Random(text)
    asked = [asyncio.create_task(rows.order(columns)) for _ in range(3)]
    n_turns = 0
    while not all(each.done() for each in asked):
        network.transact("nb", some_change(network, rows, numbers))
        await asyncio.sleep(0)
        n_turns += 1
    assert n_turns > N_ROWS / 1_000
    order, *others = [await each for each in asked]
    assert others == [order, order]
    assert uuids(order) == naively(rows, columns)
    for _ in range(50):
        network.transact("nb", some_change(network, rows, numbers))
    assert uuids(order) == naively(rows, columns)
    backwards = [uuid for _, uuid in order.page(None, 2 * N_ROWS, descending=True)]
    assert backwards == naively(rows, columns)[::-1]


async def test_who_cannot_wait_has_it_at_once(network) -> None:
    rows = network.rows["nb"]["Mirror"]
    columns = columns_of(rows, "type,name")
    waiting = asyncio.create_task(rows.order(columns))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    order = rows.order_at_once(columns)
    assert uuids(order) == naively(rows, columns)
    assert await waiting is order


async def test_one_that_is_waited_for_is_not_forgotten(network) -> None:
    """Others take its place as soon as nobody waits, and what changes then it is not told."""
    rows, numbers = network.rows["nb"]["Mirror"], random.Random(7)
    columns = columns_of(rows, "-type,-name")

    async def ask() -> None:
        order = await rows.order(columns)
        assert uuids(order) == naively(rows, columns)

    asking = asyncio.create_task(ask())
    others = cycle(permutations(("index", "sink", "filter", "type"), 3))
    while not asking.done():
        rows.order_at_once(columns_of(rows, ",".join(next(others))))
        for _ in range(10):
            network.transact("nb", some_change(network, rows, numbers))
        await asyncio.sleep(0)
    await asking


@pytest.mark.parametrize("name, text", [("sink", "10.0.0.7"), ("external_ids.k", "1")])
async def test_what_finds_rows_by_what_they_have_is_made_in_turns_too(network, name, text) -> None:
    rows, numbers = network.rows["nb"]["Mirror"], random.Random(name)
    found = filters.parse(network.replica("nb"), rows, name, text, lambda rows, row: True)
    question = Question([found], parse_orders(rows, "_uuid"), limit=2 * N_ROWS)
    asking = asyncio.create_task(listing.page(rows, question))
    n_turns = 0
    while not asking.done():
        network.transact("nb", some_change(network, rows, numbers))
        await asyncio.sleep(0)
        n_turns += 1
    assert n_turns > 5
    page = await asking
    assert [row.uuid for row in page.rows] == sorted(r.uuid for r in rows.values() if found.test(r))
