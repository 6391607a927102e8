"""A packet's way through the logical network, found out by the real `ovn-trace` (ovn-trace(8)).

The program reads the Southbound anew for each packet, which takes it long where that is large. So
few run at once, each for a limited time, and others wait for their turn.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from ovncp.ovn import trace_output
from ovncp.ovn.trace_output import Trace, Untraceable

PROGRAM = "ovn-trace"

_PORTS = ("inport", "outport")
_MOST_BYTES = 16 << 20


class NotTraced(Exception):
    """There was no answer of the program; the text says why."""


class TooLate(NotTraced):
    """The program, or the turn of this packet, did not come to an end in time."""


@dataclass(frozen=True)
class Packet:
    """What is to be traced: `microflow` is an expression, `datapath` a name or uuid, or "".

    `ct` has the states that connection tracking tells, one for each time that it is asked.
    `lb_dst` is the backend that a load balancer is to choose, `select_id` what a `select` is to.
    """

    microflow: str
    datapath: str = ""
    ct: Sequence[str] = ()
    lb_dst: str | None = None
    select_id: int | None = None

    def arguments(self) -> list[str]:
        """The options and arguments of the program."""
        options = [f"--ct={state}" for state in self.ct]
        if self.lb_dst is not None:
            options.append(f"--lb-dst={self.lb_dst}")
        if self.select_id is not None:
            options.append(f"--select-id={self.select_id}")
        return [*options, "--", *([self.datapath] if self.datapath else []), self.microflow]


def microflow(fields: Mapping[str, str | int | bool]) -> str:
    """The expression for these fields: `{"inport": "p", "tcp": True, "tcp.dst": 80}`."""
    return " && ".join(_term(name, value) for name, value in fields.items())


def _term(name: str, value: str | int | bool) -> str:
    if type(value) is bool:
        return name if value else f"!{name}"
    if name in _PORTS:
        escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'{name} == "{escaped}"'
    return f"{name} == {value}"


class Tracer:
    """Runs the program on the Southbound at `targets`, `n_at_once` times at once.

    `options` are those that the program needs to connect, as for TLS.
    """

    def __init__(
        self,
        targets: Sequence[str],
        options: Sequence[str] = (),
        n_at_once: int = 4,
        seconds: float = 30.0,
    ) -> None:
        self._options = [f"--db={','.join(targets)}", "--no-leader-only", *options]
        self._turns = asyncio.Semaphore(n_at_once)
        self._seconds = seconds

    async def trace(self, packet: Packet) -> tuple[Trace, str]:
        """The way of a packet, and the text that it was read from.

        Raises Untraceable, NotTraced.
        """
        program = shutil.which(PROGRAM)
        if program is None:
            raise NotTraced(f"{PROGRAM} is not installed on this node")
        command = [program, *self._options, "--no-friendly-names", "--detailed", "--minimal"]
        try:
            async with asyncio.timeout(self._seconds), self._turns:
                text = await _run([*command, *packet.arguments()])
        except TimeoutError as error:
            raise TooLate(f"{PROGRAM} had no answer within {self._seconds:g} s") from error
        return trace_output.parse(text), text


async def _run(command: Sequence[str]) -> str:
    """What a program prints. Raises Untraceable, NotTraced."""
    async with _started(command) as process:
        assert process.stdout is not None and process.stderr is not None
        output, errors = await asyncio.gather(
            process.stdout.read(_MOST_BYTES), process.stderr.read(_MOST_BYTES)
        )
        status = await process.wait()
    if status:
        raise Untraceable(errors.decode(errors="replace").strip() or f"status {status}")
    return output.decode(errors="replace")


@contextlib.asynccontextmanager
async def _started(command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process, which is ended with the block if it has not ended by itself."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
