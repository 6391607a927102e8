"""A whole hypervisor: vswitchd and ovn-controller, with every database a server of ours."""

from __future__ import annotations

import pytest

from interop.programs import Network, wait_for
from servers import run


class Hypervisor:
    """`ovs-vswitchd` on a conf.db of its own, and `ovn-controller` between it and the network."""

    def __init__(self, network: Network, name: str, address: str) -> None:
        self.network = network
        self.conf = network.vswitch_database()
        directory, remote = self.conf.directory, self.conf.remote
        self.vsctl("--no-wait", "init")
        self.vswitchd = network.start(
            "vswitchd", "ovs-vswitchd", "--enable-dummy=override", "--disable-system", remote,
            directory=directory,
        )  # fmt: skip
        self.vsctl(
            "set", "Open_vSwitch", ".", f"external-ids:system-id={name}",
            f"external-ids:ovn-remote={network.server.remote}",
            "external-ids:ovn-encap-type=geneve", f"external-ids:ovn-encap-ip={address}",
            "--", "add-br", "br-int", "--", "set", "bridge", "br-int", "fail-mode=secure",
            "other-config:disable-in-band=true", "datapath-type=dummy",
        )  # fmt: skip
        network.start("controller", "ovn-controller", remote, directory=directory)

    def vsctl(self, *args: str) -> str:
        return run("ovs-vsctl", f"--db={self.conf.remote}", "--timeout=60", *args)

    def plug(self, port: str) -> None:
        """Adds a virtual interface for the logical port `port`."""
        self.vsctl(
            "add-port", "br-int", port, "--", "set", "Interface", port, "type=dummy",
            f"external-ids:iface-id={port}",
        )  # fmt: skip

    def flows(self) -> str:
        return run("ovs-ofctl", "dump-flows", f"unix:{self.conf.directory}/br-int.mgmt")


@pytest.fixture
def hypervisor(network: Network) -> Hypervisor:
    network.northd()
    network.nbctl("ls-add", "web", "--", "lsp-add", "web", "web1", "--", "lsp-add", "web", "web2")
    network.nbctl("lsp-set-addresses", "web1", "00:00:00:00:01:01 10.0.1.11")
    return Hypervisor(network, "hv1", "127.0.0.1")


def test_a_plugged_interface_comes_up(hypervisor: Hypervisor) -> None:
    network = hypervisor.network
    hypervisor.plug("web1")
    network.nbctl("wait-until", "Logical_Switch_Port", "web1", "up=true")
    network.nbctl("--wait=hv", "sync")
    assert "00:00:00:00:01:01" in hypervisor.flows()
    hypervisor.vsctl("wait-until", "Interface", "web1", 'external_ids:ovn-installed="true"')
    hypervisor.vsctl("del-port", "web1")
    network.nbctl("wait-until", "Logical_Switch_Port", "web1", "up=false")


def test_the_hypervisor_outlives_a_restart_of_every_server(hypervisor: Hypervisor) -> None:
    network = hypervisor.network
    hypervisor.plug("web1")
    network.nbctl("wait-until", "Logical_Switch_Port", "web1", "up=true")
    for server in (network.server, hypervisor.conf):
        server.kill9()
        server.restart()
    hypervisor.plug("web2")
    network.nbctl("wait-until", "Logical_Switch_Port", "web2", "up=true")
    assert hypervisor.vsctl("list-ports", "br-int").split() == ["web1", "web2"]


def test_two_hypervisors_build_a_tunnel_to_each_other(hypervisor: Hypervisor) -> None:
    network = hypervisor.network
    other = Hypervisor(network, "hv2", "127.0.0.2")
    hypervisor.plug("web1")
    other.plug("web2")
    for port in ("web1", "web2"):
        network.nbctl("wait-until", "Logical_Switch_Port", port, "up=true")
    for each in (hypervisor, other):
        wait_for(lambda each=each: "ovn-hv" in each.vsctl("list-ports", "br-int"), "a tunnel")
