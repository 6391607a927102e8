"""Runtime commands."""

from collections.abc import Callable

from ovncp.server.command import Command
from ovncp.server.runtime import Runtime


def commands(runtime: Runtime, stop: Callable[[], None]) -> list[Command]:
    def exit_(args: list[str]) -> str:
        stop()
        return ""

    return [Command("exit", "", 0, 1, exit_)]
