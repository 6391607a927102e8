"""Machines on one machine: network namespaces joined by a bridge, each with a clock to set.

The bridge is in a namespace of its own, so that nothing of this machine's network is touched, and
addresses cannot be taken already. The clock is that of clock.c, which is preloaded; for what does
without the C library (etcd, as all of Go) see vdso.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from engines import Place

_FIREWALL = """
table ip chaos {
    set deaf_to { type ipv4_addr; }
    chain input { type filter hook input priority 0; ip saddr @deaf_to drop; }
}
"""

_CLOCK_SOURCE = Path(__file__).with_name("clock.c")


class Forbidden(Exception):
    """This machine does not let us have network namespaces."""


@dataclass(frozen=True)
class Machine(Place):
    """A namespace with one address, and a clock that stands in the file `clock`."""

    namespace: str = ""
    clock: Path = Path()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to have this machine's clock."""
        return {
            "LD_PRELOAD": str(self.clock.with_name("clock.so")),
            "CHAOS_CLOCK": str(self.clock),
        }

    def set_clock(self, ahead_s: int) -> None:
        """Have the clock `ahead_s` seconds ahead of the true time, at once."""
        with self.clock.open("r+b") as clock:  # In its place, as the processes have it mapped.
            clock.write(ahead_s.to_bytes(8, sys.byteorder, signed=True))

    def be_deaf_to(self, others: Iterable[Machine]) -> None:
        """Let nothing in from `others`."""
        addresses = ", ".join(other.address for other in others)
        if addresses:
            self._nft(f"add element ip chaos deaf_to {{ {addresses} }}")

    def hear_all(self) -> None:
        """Undo `be_deaf_to`."""
        self._nft("flush set ip chaos deaf_to")

    def _nft(self, script: str) -> None:
        _run(*self.prefix, "nft", script)


class Network:
    """Machines that are joined by a bridge, until it is closed."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="machines-"))
        self._switch = f"ovncp-{os.getpid()}-switch"
        self.machines: dict[str, Machine] = {}

    def __enter__(self) -> Network:
        _remove_abandoned()
        self._directory.chmod(0o755)
        clock = str(self._directory / "clock.so")
        _run("gcc", "-O2", "-shared", "-fPIC", "-o", clock, str(_CLOCK_SOURCE))
        try:
            self._add_namespace(self._switch)
            _run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", self._switch, "link", "set", "bridge", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            reason = getattr(error, "stderr", "") or error
            raise Forbidden(
                "Partitions need network namespaces, which take root (or CAP_SYS_ADMIN and "
                f"CAP_NET_ADMIN) and a kernel with veth, bridge and nftables: {reason}"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove all of it."""
        for namespace in [*(m.namespace for m in self.machines.values()), self._switch]:
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _add_namespace(self, namespace: str) -> None:
        _run("ip", "netns", "add", namespace)
        _run("ip", "-n", namespace, "link", "set", "lo", "up")

    def add(self, name: str) -> Machine:
        """A further machine; `name` has at most eight characters."""
        namespace = f"ovncp-{os.getpid()}-{name}"
        address = f"10.0.0.{len(self.machines) + 1}"
        prefix = ("ip", "netns", "exec", namespace)
        machine = Machine(address, prefix, namespace, self._directory / name)
        self.machines[name] = machine
        self._add_namespace(namespace)
        pair = ("type", "veth", "peer", "name", "eth0", "netns", namespace)
        _run("ip", "-n", self._switch, "link", "add", name, *pair)
        _run("ip", "-n", self._switch, "link", "set", name, "master", "bridge", "up")
        _run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
        _run("ip", "-n", namespace, "link", "set", "eth0", "up")
        _run(*prefix, "nft", _FIREWALL)
        machine.clock.write_bytes(bytes(8))
        return machine

    def others(self, *machines: Machine) -> list[Machine]:
        """All but `machines`."""
        return [machine for machine in self.machines.values() if machine not in machines]


def _remove_abandoned() -> None:
    """Remove what a run that was killed has left."""
    listed = _run("ip", "netns", "list").split()
    for namespace in (word for word in listed if word.startswith("ovncp-")):
        if not Path(f"/proc/{namespace.split('-')[1]}").exists():
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
