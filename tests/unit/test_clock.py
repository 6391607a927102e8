"""The server's clock, pushed and stopped."""

import asyncio

from ovncp.server.clock import Clock


def test_a_push_moves_both_clocks_and_is_told():
    clock, pushes = Clock(), []
    clock.on_warp(lambda: pushes.append(clock.now_msec()))
    before, wall = clock.now_msec(), clock.wall_msec()
    clock.warp(50_000_000)
    [pushed] = pushes
    assert before + 50_000_000 <= pushed <= clock.now_msec()
    assert 50_000_000 <= clock.wall_msec() - wall < 60_000_000


def test_a_stopped_clock_moves_by_pushes_only():
    clock = Clock()
    clock.stop()
    before = clock.now_msec()
    clock.warp(7)
    assert clock.now_msec() == before + 7


async def test_a_push_ends_a_sleep():
    clock = Clock()
    sleeping = asyncio.create_task(clock.sleep(6_000_000))
    await asyncio.sleep(0)
    clock.warp(5_000_000)
    await asyncio.sleep(0.01)
    assert not sleeping.done()
    clock.warp(1_000_000)
    await asyncio.wait_for(sleeping, 60)


async def test_a_sleep_ends_by_itself():
    await asyncio.wait_for(Clock().sleep(10), 60)
    await asyncio.wait_for(Clock().sleep(-10), 60)
