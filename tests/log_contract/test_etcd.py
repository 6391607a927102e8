"""What happens to a log in etcd when etcd's members die, hang, fill up or ask for a password."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from engines import ETCDS, EtcdCluster, make_certificate
from log_contract.faults import PATIENCE_S, load, opened
from ovncp.log.base import LogError, OutcomeUnknown
from ovncp.log.contract.bench import SCHEMA
from ovncp.log.contract.case import entries_from, expected, fill, text
from ovncp.log.etcd import EtcdLog
from ovncp.log.etcd_client import EtcdClient


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    """Three members for these tests to harm; each leaves it whole."""
    with EtcdCluster() as cluster:
        yield cluster


@pytest.mark.parametrize("fault", ["kill", "stop"])
@pytest.mark.parametrize(("victim_leads", "is_asked"), [(True, True), (True, False), (False, True)])
async def test_a_member_that_dies_or_hangs_costs_no_entry(cluster, fault, victim_leads, is_asked):
    leader = await asyncio.to_thread(cluster.wait_for_leader)
    victim = leader if victim_leads else (leader + 1) % 3
    first = victim if is_asked else (victim + 1) % 3
    async with load(cluster.url(f"{fault}{victim_leads}{is_asked}", first)):
        if fault == "kill":
            await kill_and_start(cluster, victim)
        else:
            cluster.signal(victim, signal.SIGSTOP)
            await asyncio.sleep(3)
            cluster.signal(victim, signal.SIGCONT)


async def kill_and_start(cluster: EtcdCluster, victim: int) -> None:
    cluster.kill(victim)
    await asyncio.sleep(1)
    cluster.start(victim)


async def test_a_leader_of_a_newer_etcd_that_dies_costs_no_entry():
    with EtcdCluster(engine="etcd-3.5") as newer:
        leader = newer.wait_for_leader()
        async with load(newer.url(first=leader)):
            await kill_and_start(newer, leader)


async def test_without_a_quorum_there_are_errors_and_then_it_goes_on(cluster):
    location = cluster.url("quorum", timeout_ms=1500)
    async with opened(location) as log:
        await fill(log, 2)
        dead = [m for m in (0, 1, 2) if m != await asyncio.to_thread(cluster.wait_for_leader)]
        for member in dead:
            cluster.kill(member)
        with pytest.raises(LogError):
            await log.append(3, [text(3)])
        with pytest.raises(LogError):
            await entries_from(log, 1)
        for member in dead:
            cluster.start(member)
        async with asyncio.timeout(PATIENCE_S):
            while (entries := await entries_if_any(log)) is None:
                await asyncio.sleep(0.1)
        assert entries in (expected(1, 2), expected(1, 3))
        await fill(log, 4 - len(entries))
        assert await entries_from(log, 1) == expected(1, 4)


async def entries_if_any(log):
    try:
        return await entries_from(log, 1)
    except LogError:
        return None


async def test_what_a_dead_appender_staged_is_swept_up(cluster):
    location = cluster.url("swept")
    async with opened(location) as log:
        large = [b'"%s"' % os.urandom(1_000_000).hex().encode()]
        await log.append(1, large)
        assert n_keys(cluster, "/swept/piece/") == 2
        cluster.ctl("put", "test/swept/piece/deadbeef/00000000", "of a stage whose lease is over")
        await log.append(2, [text(2)])
        await log.save_snapshot(1, b"{}")
        assert "deadbeef" not in cluster.ctl("get", "--prefix", "--keys-only", "test/swept/piece/")
        assert (await entries_from(log, 2))[0].data == text(2)
        await log.compact(1)
        assert n_keys(cluster, "/swept/now/entry/") == 1
        assert n_keys(cluster, "/swept/piece/") == n_keys(cluster, "/swept/stage/") == 1
        await log.save_snapshot(2, b"{}")
        await log.compact(2)
        assert n_keys(cluster, "/swept/now/entry/") == 0
        assert n_keys(cluster, "/swept/piece/") == n_keys(cluster, "/swept/stage/") == 1


async def test_a_notice_that_is_posted_twice_at_once_is_withdrawn(cluster, monkeypatch):
    """As by a server that shows itself at its start, and is asked for its status at that time."""
    txn, grant, n_grants = EtcdClient.txn, EtcdClient.grant, itertools.count()

    async def first_is_late(client, *arguments, **operations):
        if "first" in repr(operations):
            await asyncio.sleep(0.5)
        return await txn(client, *arguments, **operations)

    async def in_order(client, ttl_ms):
        await asyncio.sleep(0.1 * next(n_grants))
        return await grant(client, ttl_ms)

    async with opened(cluster.url("notices")) as log:
        monkeypatch.setattr(EtcdClient, "txn", first_is_late)
        monkeypatch.setattr(EtcdClient, "grant", in_order)
        await asyncio.gather(*(log.post("server", text, 60_000) for text in (b"first", b"second")))
        assert list(await log.notices()) == ["server"]
        await log.withdraw("server")
        assert await log.notices() == {}


def n_keys(cluster: EtcdCluster, prefix: str) -> int:
    listing = cluster.ctl("get", "--prefix", "--keys-only", f"test{prefix}")
    return len(listing.split())


async def test_compaction_gives_space_back(cluster):
    async with opened(cluster.url("space")) as log:
        await log.compact(0)
        before = await log.usage()
        assert before.quota == 2 << 30
        for index in range(1, 40):
            await log.append(index, [b'"%s"' % os.urandom(200_000).hex().encode()])
        full = await log.usage()
        assert full.used > before.used + 39 * 200_000
        await log.save_snapshot(39, b"{}")
        await log.compact(39)
        # etcd frees it in the background, and counts it with its next writes.
        async with asyncio.timeout(PATIENCE_S):
            while (await log.usage()).used > (before.used + full.used) / 2:
                await fill(log, 1)
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("engine", ETCDS)
async def test_a_full_etcd_refuses_clearly_and_loses_nothing(engine):
    with EtcdCluster(1, ["--quota-backend-bytes=16000000"], engine=engine) as full:
        async with opened(full.url()) as log:
            stored = 0
            with pytest.raises(LogError, match="space exceeded") as refused:
                while True:
                    await log.append(stored + 1, [b'"%s"' % os.urandom(400_000).hex().encode()])
                    stored += 1
            assert not isinstance(refused.value, OutcomeUnknown)
            assert [e.index for e in await entries_from(log, 1)] == list(range(1, stored + 1))
            used = await log.usage()
            assert used.quota == 16_000_000 and used.allocated > 15_000_000
            with pytest.raises(LogError, match="space exceeded"):
                await log.append(stored + 1, [text(1)])


async def test_a_password_is_asked_for_and_never_shown():
    with EtcdCluster(1) as guarded:
        for command in (
            ("user", "add", "root:pa ss/%"),
            ("user", "grant-role", "root", "root"),
            ("auth", "enable"),
        ):
            guarded.ctl(*command)
        place = guarded.url().removeprefix("etcd://")
        with pytest.raises(LogError):
            await EtcdLog.create(f"etcd://{place}", SCHEMA)
        with pytest.raises(LogError, match="authentication failed") as refused:
            await EtcdLog.create(f"etcd://root:wrong@{place}", SCHEMA)
        assert "wrong" not in str(refused.value)
        async with opened(f"etcd://root:pa%20ss%2F%25@{place}") as log:
            await fill(log, 1)
            assert "pa" not in log.name
            # Its token is not valid for the member that comes after.
            guarded.kill(0)
            guarded.start(0)
            await fill(log, 2)
            assert await entries_from(log, 1) == expected(1, 3)


async def test_tls_on_both_sides(tmp_path):
    certificate = make_certificate(tmp_path)
    with EtcdCluster(1, tls=certificate) as guarded:
        async with opened(guarded.url()) as log:
            await fill(log, 2)
            assert await entries_from(log, 1) == expected(1, 2)
            assert (await log.usage()).quota == 2 << 30
        place = guarded.url().partition("&ca=")[0]
        for untrusted in (place, place.replace("etcds:", "etcd:")):
            with pytest.raises(LogError):
                await EtcdLog.open(untrusted + "&timeout_ms=500")
