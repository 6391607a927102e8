"""An engine's program, run for a while on a copy of its data; what it says is in `engine.log`."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired

from ovncp.ops.refusal import Refusal

_LOG = "engine.log"
_START_S = 60.0
_PAUSE_S = 0.1
_TERMINATE_S = 10.0


# Not asyncio's, as uvloop has no `user`.
def spawn(work: str, *command: str, user: str | None = None) -> Popen[bytes]:
    """Start `command` as `user`, with its output in the folder `work`. Raises Refusal."""
    with open(os.path.join(work, _LOG), "ab") as log:
        try:
            return subprocess.Popen(
                command,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                cwd="/",
                env={**os.environ, "ETCDCTL_API": "3"},
                user=user,
            )
        except OSError as error:
            raise Refusal(f"cannot run {command[0]} ({error.strerror}): install it") from error


async def up(process: Popen[bytes], is_up: Callable[[], bool], work: str) -> None:
    """Wait until `is_up`, asked in a thread; else end the process. Raises Refusal."""
    try:
        async with asyncio.timeout(_START_S):
            while not await asyncio.to_thread(is_up):
                if process.poll() is not None:
                    raise Refusal(f"it does not start on a copy: {last_line(work)}")
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError as error:
        await stop(process)
        raise Refusal(f"it does not come up on a copy: {last_line(work)}") from error
    except BaseException:
        await stop(process)
        raise


async def stop(process: Popen[bytes]) -> None:
    """End the process, if it has not ended."""
    process.terminate()
    try:
        await asyncio.to_thread(process.wait, _TERMINATE_S)
    except TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)


def last_line(work: str) -> str:
    """What a program said last, most likely about why it ended."""
    with open(os.path.join(work, _LOG), errors="replace") as log:
        return (log.read().strip().splitlines() or ["it said nothing"])[-1]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
