"""An etcd of little room: warnings, writes that are refused, and how they are taken again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from itertools import count

import pytest

from clustered.conftest import Start, starting, wired_over
from clustered.rows import PATIENCE_S, put, rows
from clustered.wired import insert_unanswered
from engines import ETCDS, EtcdCluster
from ovncp.log.contract.wire import Wire
from ovncp.log.engine import EngineError
from ovncp.log.etcd import EtcdLog
from servers import Client, Server, Timeout

QUOTA = 16 << 20
N_BYTES = 500_000

SMALL = [f"--quota-backend-bytes={QUOTA}"]


@pytest.fixture(params=ETCDS)
def etcd(request: pytest.FixtureRequest) -> Iterator[EtcdCluster]:
    with EtcdCluster(options=SMALL, engine=request.param) as cluster:
        yield cluster


@pytest.fixture
def start(etcd: EtcdCluster) -> Iterator[Start]:
    with starting(etcd) as start:
        yield start


def size(etcd: EtcdCluster) -> int:
    """The largest file of a member."""
    statuses = json.loads(etcd.ctl("endpoint", "status", "--write-out=json"))
    return max(int(status["Status"]["dbSize"]) for status in statuses)


def incompressible() -> str:
    return os.urandom(N_BYTES // 2).hex()


def wait_for_line(server: Server, line: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not re.search(line, server.log):
        assert time.monotonic() < deadline, f"no line {line!r} in:\n{server.log}"
        time.sleep(0.05)


def test_it_warns_long_before_and_then_makes_room(start: Start, etcd: EtcdCluster) -> None:
    [one] = start(1)
    client = one.client(timeout=PATIENCE_S)
    while size(etcd) < 0.65 * QUOTA:
        put(client, "k", incompressible())
    one.appctl("time/warp", "60000")
    wait_for_line(one, r"WARN\|D: the engine is [67]\d % full")
    status = one.appctl("ovsdb-server/get-db-storage-status", "D").splitlines()
    assert status[0] == "status: ok"
    assert re.fullmatch(r"warning: the engine is [67]\d% full", status[2])
    while size(etcd) < 0.81 * QUOTA:
        put(client, "k", incompressible())
    one.appctl("time/warp", "60000")
    wait_for_line(one, r"WARN\|D: the engine is [89]\d % full")
    # Now the past is worth less than room; a hundred entries make it due.
    for i in range(100):
        put(client, "small", str(i))
    one.appctl("time/warp", "1200000")
    wait_for_line(one, r"0 entries of 0 bytes are kept")
    wait_for_line(one, r"is defragmented")
    deadline = time.monotonic() + PATIENCE_S
    while size(etcd) >= 0.5 * QUOTA:
        assert time.monotonic() < deadline, one.log
        # A busy machine makes members look unwell, which are left out then.
        one.appctl("ovsdb-server/compact")
    # Nor did the file outgrow the quota while what was in it became less.
    assert "refuses writes" not in one.log


def fill_up(client: Client) -> dict[str, object]:
    """Write until there is no room: the error."""
    operation = {"op": "update", "table": "T", "where": [["k", "==", "k"]]}
    while True:
        results = client.transact("D", {**operation, "row": {"v": incompressible()}})
        # A busy machine may take too long for one, which is refused for that.
        if "space exceeded" in str(results[-1].get("details")):
            return dict(results[-1])


def test_writes_are_refused_and_then_taken_again(start: Start, etcd: EtcdCluster) -> None:
    asyncio.run(_dropped(etcd))
    one, other = start(2)
    client = one.client(timeout=PATIENCE_S)
    put(client, "k", "")
    put(client, "kept", "v")
    error = fill_up(client)
    assert error["error"] == "cluster error"
    assert "database space exceeded" in str(error["details"])
    before = rows(one)
    status = one.appctl("ovsdb-server/get-db-storage-status", "D").splitlines()[0]
    assert status.startswith("status: cluster error: ")
    deadline = time.monotonic() + PATIENCE_S
    # What is refused for taking too long may be stored for all that.
    again = {"op": "delete", "table": "T", "where": [["k", "==", "again"]]}
    while "error" in client.transact("D", again, _insert("again", "v"))[-1]:
        assert time.monotonic() < deadline, one.log + other.log
        time.sleep(0.2)
    assert rows(one) == rows(other) == before | {"again": "v"}
    assert etcd.ctl("alarm", "list") == ""
    # Upkeep follows, and makes room enough.
    deadline = time.monotonic() + PATIENCE_S
    while size(etcd) > 0.6 * QUOTA:
        assert time.monotonic() < deadline, one.log + other.log
        time.sleep(0.2)
    storage = one.appctl("ovsdb-server/get-db-storage-status", "D").splitlines()
    assert storage[0] == "status: ok"
    assert rows(one) == rows(other) == before | {"again": "v"}


def _insert(key: str, value: str) -> dict[str, object]:
    return {"op": "insert", "table": "T", "row": {"k": key, "v": value}}


@pytest.mark.parametrize("is_room_to_make", [True, False])
def test_an_answer_that_was_lost_is_found_out(etcd: EtcdCluster, is_room_to_make: bool) -> None:
    """Although that usually takes a write."""
    with wired_over(etcd) as (cut_off, other):
        client = cut_off.server.client(timeout=PATIENCE_S)
        put(client, "k", "")
        key, id = insert_unanswered((cut_off, other), client)
        cut_off.do(Wire.cut)
        before = rows(other)
        other.stop()
        asyncio.run(_filled(etcd))
        if is_room_to_make:
            asyncio.run(EtcdLog.drop(etcd.url()))
        cut_off.do(Wire.mend)
        [result] = client.reply(id)["result"]
        assert "uuid" in result
        assert key in before
        assert rows(cut_off.server) == before


def test_an_operator_is_told_when_compaction_cannot_help(start: Start, etcd: EtcdCluster) -> None:
    [one] = start(1)
    client = one.client()
    put(client, "k", "")
    deadline = time.monotonic() + PATIENCE_S
    keys = count()
    # All of it is in use.
    while not re.search(r"WARN\|D: upkeep: .*compaction did not help", one.log):
        assert time.monotonic() < deadline, one.log
        id = client.start("transact", ["D", _insert(str(next(keys)), incompressible())])
        # What is not known to be stored is not answered before there is room.
        with contextlib.suppress(Timeout):
            client.reply(id, 0.5)
    # All that is stored is a large answer.
    reader = one.client(timeout=PATIENCE_S)
    assert reader.transact("D", {"op": "select", "table": "T", "where": []})[0]["rows"]


async def _written(etcd: EtcdCluster, share: float) -> EtcdLog:
    """A log that takes, with what there is besides, this share of the quota."""
    url = etcd.url()
    await EtcdLog.create(url, b'{"name":"T","version":"1.0.0","tables":{}}')
    log = await EtcdLog.open(url)
    while size(etcd) < share * QUOTA:
        await log.append(log.next_index, [b'{"a":"%s"}' % incompressible().encode()])
    return log


async def _fragmented(etcd: EtcdCluster) -> None:
    log = await _written(etcd, 0.65)
    last = log.next_index - 1
    await log.save_snapshot(last, b"{}")
    await log.compact(last)
    await log.close()


async def _dropped(etcd: EtcdCluster) -> None:
    """Use some of the quota for what only compaction makes room of."""
    log = await _written(etcd, 0.2)
    await log.close()
    await EtcdLog.drop(etcd.url())


async def _filled(etcd: EtcdCluster) -> None:
    """Use the quota up, by what compaction makes no room of."""
    log = await _written(etcd, 0.9)
    with pytest.raises(EngineError, match="compaction did not help"):
        while True:
            with pytest.raises(EngineError, match="space exceeded"):
                while True:
                    await log.append(log.next_index, [b'{"a":"%s"}' % incompressible().encode()])
            await log.make_room()
    await log.close()


async def _make_room(url: str) -> None:
    log = await EtcdLog.open(url)
    await log.make_room()
    await log.close()


def test_no_member_is_defragmented_while_another_is_not_well(etcd: EtcdCluster) -> None:
    asyncio.run(_fragmented(etcd))
    before = size(etcd)
    leader = etcd.wait_for_leader()
    follower = next(member for member in range(3) if member != leader)
    etcd.signal(follower, signal.SIGSTOP)
    asyncio.run(_make_room(etcd.url(first=etcd.hosts.index(etcd.hosts[follower]) - 1)))
    etcd.signal(follower, signal.SIGCONT)
    assert size(etcd) == before
    deadline = time.monotonic() + PATIENCE_S
    while size(etcd) >= before:
        assert time.monotonic() < deadline
        # A busy machine makes members look unwell.
        asyncio.run(_make_room(etcd.url()))
