"""The clock of an etcd is set, and leases are over when they would have been."""

from __future__ import annotations

import asyncio
import email.utils
import time
import urllib.request

import pytest

from chaos.vdso import set_clock
from engines import ETCDS, EtcdCluster
from ovncp.log.contract.bench import SCHEMA
from ovncp.log.etcd import EtcdLog

DAY_S = 86400
PATIENCE_S = 60.0


def ahead_s(etcd: EtcdCluster) -> float:
    """By how many seconds the time that etcd tells is ahead of ours."""
    with urllib.request.urlopen(f"http://{etcd.hosts[0]}/health") as answer:
        told = email.utils.parsedate_to_datetime(answer.headers["Date"])
    return told.timestamp() - time.time()


@pytest.mark.parametrize("engine", ETCDS)
@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
async def test_a_lease_is_neither_over_nor_kept_when_the_clock_of_etcd_jumps(
    engine: str, jump_s: int
) -> None:
    with EtcdCluster(1, engine=engine) as etcd:
        await EtcdLog.create(etcd.url(), SCHEMA)
        one, other = await EtcdLog.open(etcd.url()), await EtcdLog.open(etcd.url())
        long = await one.acquire("long", 3_600_000)
        await one.acquire("short", 2_000)
        # One that waits, and will never come.
        await one.line_up("short", 2_000)
        assert ahead_s(etcd) == pytest.approx(0, abs=DAY_S / 4)
        set_clock(etcd.pid(0), jump_s)
        assert ahead_s(etcd) == pytest.approx(jump_s, abs=DAY_S / 4)
        async with asyncio.timeout(PATIENCE_S):
            await other.acquire("short", 10_000)
        await long.renew()
        assert long.is_held
        await one.close()
        await other.close()
