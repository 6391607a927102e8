"""The log of what runs in the foreground: what the end of everything brings about is left out."""

from __future__ import annotations

import asyncio

import pytest

from ovncp.cli.foreground import Foreground
from ovncp.server.supervisor import Program

# One that complains of a connection that another has ended: as it is told to, and again at its end.
COMPLAINING = """
complain() { echo "WARN|jsonrpc|unix#2: send error: Broken pipe"; }
trap 'complain; echo "WARN|$$|the rest"; exit' TERM
complain
while true; do sleep 0.01; done
"""


async def test_at_the_end_nobody_is_told_of_connections_that_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    foreground = Foreground("all", 3)
    shown = ""

    async def work() -> None:
        nonlocal shown
        await foreground.start(Program("one", ("sh", "-c", COMPLAINING)), patience_seconds=60)
        async with asyncio.timeout(60):
            while "Broken pipe" not in shown:
                shown += capsys.readouterr().out
                await asyncio.sleep(0.01)
        foreground.stopping.set()

    await foreground.run(work())
    assert "one  WARN unix#2: send error: Broken pipe" in shown
    at_the_end = capsys.readouterr().out
    assert "one  WARN the rest" in at_the_end
    assert "Broken pipe" not in at_the_end
