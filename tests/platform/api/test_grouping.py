"""Writes that come together are one transaction, and none of them suffers from another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api_in_process import platform
from ovncp.api.platform import Platform
from ovncp.ovn.draft import Draft, Gone, Stale, Taken
from ovncp.ovn.resources import BY_NAME, NORTHBOUND, Parent
from ovncp.ovn.tenancy import View
from ovncp.ovn.write import CHANGE, CREATE, DELETE, Place, Write, put
from ovncp.ovn.writer import Grouping, Rejected, Writer
from servers import Server

SWITCHES, PORTS = BY_NAME["switches"], BY_NAME["switch-ports"]
IN_SWITCH = Parent("switches", "ports", "ports")


@pytest.fixture
async def node(server: Server) -> AsyncIterator[Platform]:
    async with platform(server) as node:
        yield node


class Counted:
    """A writer that notes how large its groups are."""

    def __init__(self, node: Platform, grouping: Grouping = Grouping()) -> None:
        self.node = node
        self.sizes: list[int] = []
        self.writer = Writer(node.nb, grouping, self.sizes.append)

    async def __call__(self, *writes: Write) -> list[Any]:
        """What came of each of `writes`, which come together: None or an exception."""
        drafts = [self.draft(write) for write in writes]
        done = asyncio.gather(*map(self.writer.write, drafts), return_exceptions=True)
        return list(await done)

    def draft(self, write: Write) -> Draft:
        draft = Draft(self.node.nb, View(self.node.nb, self.node.sb, None))
        put(write, draft)
        return draft


def port(name: str, switch: str) -> Write:
    return Write(CREATE, PORTS, place=Place(IN_SWITCH, switch), fields={"name": name})


def names(node: Platform, table: str = "Logical_Switch_Port") -> set[str]:
    rows = node.nb.rows[table]
    return {rows.object(row.values, ["name"])["name"] for row in rows.values()}


async def test_many_are_one_transaction(node: Platform, server: Server) -> None:
    write = Counted(node)
    await write(Write(CREATE, SWITCHES, fields={"name": "many"}))
    ids: set[str] = set()
    node.nb.listeners.append(lambda changes: ids.add(node.nb.last_id + str(len(changes))))
    results = await write(*(port(f"many-{n}", "many") for n in range(250)))
    assert results == [None] * 250
    assert write.sizes == [1, 100, 100, 50]
    assert len(ids) <= 3
    assert {f"many-{n}" for n in range(250)} <= names(node)


async def test_a_bad_one_fails_alone(node: Platform) -> None:
    write = Counted(node)
    await write(Write(CREATE, SWITCHES, fields={"name": "bad"}))
    wanted = [f"bad-{n if n != 7 else 3}" for n in range(20)]
    results = await write(*(port(name, "bad") for name in wanted))
    assert [place for place, result in enumerate(results) if result is not None] == [7]
    assert isinstance(results[7], Rejected) and results[7].tag == "constraint violation"
    assert write.sizes == [1, 20]
    assert set(wanted) <= names(node)


async def test_a_condition_that_does_not_hold_is_told_to_whom_it_concerns(
    node: Platform, server: Server
) -> None:
    """What is here is old: what the database knows decides."""
    write = Counted(node)
    await write(*(Write(CREATE, SWITCHES, fields={"name": f"old-{n}"}) for n in range(3)))
    version = _version(node, "old-1")
    fields = {"other_config": {"a": "b"}}
    drafts = [
        write.draft(port("old-p", "old-0")),
        write.draft(Write(CHANGE, SWITCHES, "old-1", fields=fields, versions=frozenset([version]))),
        write.draft(Write(CREATE, SWITCHES, fields={"name": "old-3"})),
        write.draft(port("old-q", "old-2")),
    ]
    theirs = {"table": "Logical_Switch", "where": [["name", "==", "old-1"]]}
    server.client().transact(
        NORTHBOUND,
        {"op": "delete", "table": "Logical_Switch", "where": [["name", "==", "old-0"]]},
        {"op": "update", "row": {"other_config": ["map", [["x", "y"]]]}, **theirs},
        {"op": "insert", "table": "Logical_Switch", "row": {"name": "old-3"}},
    )
    done = asyncio.gather(*map(write.writer.write, drafts), return_exceptions=True)
    kinds = [type(result) for result in await done]
    assert kinds == [Gone, Stale, Taken, type(None)]
    assert "old-q" in names(node) and "old-p" not in names(node)


def _version(node: Platform, name: str) -> str:
    rows = node.nb.rows["Logical_Switch"]
    (row,) = rows.where(rows.table.columns["name"], "==", name)
    version: str = rows.object(row.values, ["_version"])["_version"]
    return version


async def test_of_two_that_want_one_version_one_wins(node: Platform) -> None:
    write = Counted(node)
    await write(Write(CREATE, SWITCHES, fields={"name": "race"}))
    tag = _version(node, "race")
    results = await write(
        *(
            Write(
                CHANGE,
                SWITCHES,
                "race",
                fields={"other_config": {"n": str(n)}},
                versions=frozenset([tag]),
            )
            for n in range(3)
        )
    )
    assert sum(result is None for result in results) == 1
    assert all(isinstance(result, Stale) for result in results if result is not None)


async def test_of_two_that_want_one_name_one_wins(node: Platform) -> None:
    write = Counted(node)
    results = await write(
        *(Write(CREATE, SWITCHES, fields={"name": "wanted"}) for _ in range(3)),
        Write(CREATE, SWITCHES, fields={"name": "not wanted"}),
    )
    assert [type(result) for result in results] == [type(None), Taken, Taken, type(None)]
    assert sum(name == "wanted" for name in _all(node)) == 1


def _all(node: Platform) -> list[str]:
    rows = node.nb.rows["Logical_Switch"]
    return [rows.object(row.values, ["name"])["name"] for row in rows.values()]


async def test_what_is_deleted_leaves_no_references(node: Platform) -> None:
    """C's server forgets some where the row that holds them changes in the same transaction."""
    write = Counted(node)
    groups, balancers = BY_NAME["port-groups"], BY_NAME["load-balancers"]
    await write(
        Write(CREATE, SWITCHES, fields={"name": "gone", "ports": [{"name": "gone-p"}]}),
        Write(CREATE, balancers, fields={"name": "gone-lb"}),
    )
    await write(
        Write(CREATE, groups, fields={"name": "gone_pg", "ports": ["gone-p"]}),
        Write(CREATE, SWITCHES, fields={"name": "stays", "load_balancer": ["gone-lb"]}),
    )
    results = await write(
        Write(CHANGE, groups, "gone_pg", fields={"external_ids": {"a": "b"}}),
        Write(CHANGE, SWITCHES, "stays", fields={"other_config": {"a": "b"}}),
        Write(DELETE, SWITCHES, "gone"),
        Write(DELETE, balancers, "gone-lb"),
    )
    assert results == [None] * 4
    rows = node.nb.rows["Port_Group"]
    (group,) = rows.where(rows.table.columns["name"], "==", "gone_pg")
    assert rows.object(group.values, ["ports", "external_ids"]) == {
        "ports": (),
        "external_ids": {"a": "b"},
    }
    rows = node.nb.rows["Logical_Switch"]
    (switch,) = rows.where(rows.table.columns["name"], "==", "stays")
    assert rows.object(switch.values, ["load_balancer"]) == {"load_balancer": ()}


async def test_a_group_goes_when_it_is_full_or_old_or_nothing_is_under_way(
    node: Platform,
) -> None:
    write = Counted(node, Grouping(size=5, timeout_s=30, max_concurrent=1))
    await write(Write(CREATE, SWITCHES, fields={"name": "paced"}))
    assert (await write(*(port(f"paced-{n}", "paced") for n in range(12)))) == [None] * 12
    assert write.sizes == [1, 5, 5, 2]
