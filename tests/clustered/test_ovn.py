"""OVN's own daemons at the servers of a cluster, which die, freeze, and are not missed."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.programs import NB_SCHEMA, SB_SCHEMA, VSWITCH_SCHEMA, Program, wait_for
from servers import ENGINES, Server, run

PATIENCE_SECONDS = 100.0


class Cloud:
    """NB and SB at three servers, with programs that know only those servers they are given."""

    def __init__(self, engine: str) -> None:
        self.server = Server(engine, [("nb", NB_SCHEMA), ("sb", SB_SCHEMA)])
        self.others: list[Server] = []
        self.programs: list[Program] = []
        self.remotes = [f"unix:{member.own_socket}" for member in self.server.members]
        self.nbctl("init")
        self.sbctl("init")

    def close(self) -> None:
        for member in self.server.members:
            if member.alive:
                os.kill(member.pid, signal.SIGCONT)
        for program in reversed(self.programs):
            program.close()
        for server in (*self.others, self.server):
            server.close()

    def nbctl(self, *args: str) -> str:
        """`ovn-nbctl`, which knows all servers."""
        return run("ovn-nbctl", f"--db={','.join(self.remotes)}", "--timeout=100", *args)

    def sbctl(self, *args: str) -> str:
        """`ovn-sbctl`, which knows all servers."""
        return run("ovn-sbctl", f"--db={','.join(self.remotes)}", "--timeout=100", *args)

    def start(self, name: str, *command: str, directory: Path | None = None) -> Program:
        self.programs.append(Program(directory or self.server.directory, name, *command))
        return self.programs[-1]

    def northd(self, *servers: int) -> Program:
        """An `ovn-northd` at these servers, which it tries in this order."""
        remotes = ",".join(self.remotes[number] for number in servers)
        name = f"northd-{len(self.programs)}"
        return self.start(name, "ovn-northd", f"--ovnnb-db={remotes}", f"--ovnsb-db={remotes}")


@pytest.fixture(params=ENGINES)
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    cloud = Cloud(request.param)
    yield cloud
    cloud.close()


def status(northd: Program) -> str:
    """ "active", "standby" or "paused"."""
    return northd.appctl("status").removeprefix("Status: ").strip()


def wait_for_status(northd: Program, wanted: str) -> None:
    wait_for(lambda: status(northd) == wanted, f"a northd to be {wanted}", PATIENCE_SECONDS)


@pytest.fixture
def pair(cloud: Cloud) -> tuple[Program, Program]:
    """An active northd at the first server, and one that stands by at the second."""
    active = cloud.northd(0)
    wait_for_status(active, "active")
    standby = cloud.northd(1)
    wait_for_status(standby, "standby")
    # Both have seen all by then, and the lock did not move.
    cloud.nbctl("--wait=sb", "ls-add", "before")
    assert (status(active), status(standby)) == ("active", "standby")
    return active, standby


def check_that_it_works(cloud: Cloud, northd: Program) -> None:
    wait_for_status(northd, "active")
    cloud.nbctl("--wait=sb", "ls-add", "after")
    assert "after" in cloud.sbctl("dump-flows", "after")


def test_the_standby_takes_over_when_the_active_one_dies(
    cloud: Cloud, pair: tuple[Program, Program]
) -> None:
    active, standby = pair
    active.kill9()
    check_that_it_works(cloud, standby)


def test_the_standby_takes_over_when_the_server_of_the_active_one_dies(
    cloud: Cloud, pair: tuple[Program, Program]
) -> None:
    active, standby = pair
    cloud.server.members[0].process.kill()
    check_that_it_works(cloud, standby)
    cloud.server.members[0].process.wait()
    cloud.server.members[0].start()
    wait_for_status(active, "standby")
    assert status(standby) == "active"


def test_the_standby_takes_over_when_the_server_of_the_active_one_freezes(
    cloud: Cloud, pair: tuple[Program, Program]
) -> None:
    active, standby = pair
    frozen = cloud.server.members[0]
    os.kill(frozen.pid, signal.SIGSTOP)
    cloud.remotes.pop(0)
    check_that_it_works(cloud, standby)
    os.kill(frozen.pid, signal.SIGCONT)
    wait_for_status(active, "standby")
    assert status(standby) == "active"
    cloud.nbctl("--wait=sb", "ls-add", "thawed")


class Hypervisor:
    """`ovs-vswitchd` with a database of its own, and an `ovn-controller` that knows all servers."""

    def __init__(self, cloud: Cloud) -> None:
        self.conf = Server("ovncp", [("conf", VSWITCH_SCHEMA)])
        cloud.others.append(self.conf)
        directory, remote = self.conf.directory, self.conf.remote
        self.vsctl("--no-wait", "init")
        cloud.start(
            "vswitchd", "ovs-vswitchd", "--enable-dummy=override", "--disable-system", remote,
            directory=directory,
        )  # fmt: skip
        remotes = ",".join(cloud.remotes)
        self.vsctl(
            "set", "Open_vSwitch", ".", "external-ids:system-id=hv1",
            f'external-ids:ovn-remote="{remotes}"',
            "external-ids:ovn-encap-type=geneve", "external-ids:ovn-encap-ip=127.0.0.1",
            "--", "add-br", "br-int", "--", "set", "bridge", "br-int", "fail-mode=secure",
            "other-config:disable-in-band=true", "datapath-type=dummy",
        )  # fmt: skip
        self.controller = cloud.start("controller", "ovn-controller", remote, directory=directory)

    def vsctl(self, *args: str) -> str:
        return run("ovs-vsctl", f"--db={self.conf.remote}", "--timeout=100", *args)

    def plug(self, port: str) -> None:
        self.vsctl(
            "add-port", "br-int", port, "--", "set", "Interface", port, "type=dummy",
            f"external-ids:iface-id={port}",
        )  # fmt: skip

    def flows(self) -> set[str]:
        """The switch's flows, without what counts and times."""
        text = run(
            "ovs-ofctl", "--no-stats", "dump-flows", f"unix:{self.conf.directory}/br-int.mgmt"
        )
        return {line.strip() for line in text.splitlines()[1:]}

    def server(self, cloud: Cloud) -> Server:
        """The one that the controller is connected to."""
        [*_, socket] = re.findall(r"unix:(\S+/db\.sock): connected", self.controller.log)
        return next(each for each in cloud.server.members if str(each.own_socket) == socket)


def test_a_hypervisor_moves_to_another_server_and_keeps_its_ports(cloud: Cloud) -> None:
    cloud.northd(0, 1, 2)
    cloud.nbctl("ls-add", "web", "--", "lsp-add", "web", "web1", "--", "lsp-add", "web", "web2")
    hypervisor = Hypervisor(cloud)
    hypervisor.plug("web1")
    cloud.nbctl("wait-until", "Logical_Switch_Port", "web1", "up=true")
    cloud.nbctl("--wait=hv", "sync")
    binding = ("--bare", "--columns=chassis,up", "find", "Port_Binding", "logical_port=web1")
    bound, flows = cloud.sbctl(*binding), hypervisor.flows()
    changes = cloud.sbctl("--bare", "--columns=nb_cfg", "list", "Chassis_Private")
    left = hypervisor.server(cloud)
    left.process.kill()
    left.process.wait()
    cloud.remotes.remove(f"unix:{left.own_socket}")
    wait_for(lambda: hypervisor.server(cloud) is not left, "another server", PATIENCE_SECONDS)
    assert cloud.sbctl(*binding) == bound
    assert cloud.sbctl("--bare", "--columns=nb_cfg", "list", "Chassis_Private") == changes
    assert hypervisor.flows() == flows
    # The claims of all that it learns there are still its own.
    hypervisor.plug("web2")
    cloud.nbctl("wait-until", "Logical_Switch_Port", "web2", "up=true")
    cloud.nbctl("--wait=hv", "sync")
    assert cloud.sbctl(*binding) == bound
    assert "Releasing lport" not in hypervisor.controller.log
    assert len(hypervisor.flows()) > len(flows)
