"""Relayed databases (ovsdb(7), "Relay Service Model"), with the real programs on either side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from interop.programs import KIND, Network, Program, processes_of, wait_for
from interop.test_hypervisor import Hypervisor
from servers import Server, relay_of, run

DATABASES = ("OVN_Northbound", "OVN_Southbound")

# Who relays whom: the kind of the source, and those of the relays behind it, one after the other.
CHAINS = [(KIND, KIND), ("c", KIND), (KIND, "c"), (KIND, KIND, KIND), (KIND, "c", KIND)]


class RelayedNetwork(Network):
    """A network whose programs talk to the last of a chain of relays; `source` is at its start."""

    def __init__(self, source: str, *relays: str) -> None:
        super().__init__(source)
        self.source = self.server
        for kind in relays:
            relay = relay_of(kind, self.server, databases=DATABASES)
            self.others.append(self.server)
            self.server = relay

    def nbctl(self, *args: str) -> str:
        return super().nbctl("--no-leader-only", *args)

    def sbctl(self, *args: str) -> str:
        return super().sbctl("--no-leader-only", *args)

    def northd(self, name: str = "northd") -> Program:
        """`ovn-northd`, which talks to no relay: it wants the leader."""
        remote = self.source.remote
        return self.start(name, "ovn-northd", f"--ovnnb-db={remote}", f"--ovnsb-db={remote}")


@pytest.fixture(params=CHAINS, ids="-".join)
def network(request: pytest.FixtureRequest) -> Iterator[RelayedNetwork]:
    with RelayedNetwork(*request.param) as network:
        yield network
    assert processes_of(network.directory) == []


def test_ovn_works_through_relays(network: RelayedNetwork) -> None:
    network.northd()
    network.nbctl("ls-add", "web", "--", "lsp-add", "web", "web1")
    network.nbctl("--wait=sb", "sync")
    # The relays follow different servers of a cluster, of which one may be ahead.
    wait_for(network.flows, "flows at the relay of the Southbound")
    hypervisor = Hypervisor(network, "hv1", "127.0.0.1")
    hypervisor.plug("web1")
    network.nbctl("wait-until", "Logical_Switch_Port", "web1", "up=true")
    network.nbctl("--wait=hv", "sync")
    hypervisor.vsctl("wait-until", "Interface", "web1", 'external_ids:ovn-installed="true"')
    hypervisor.vsctl("del-port", "web1")
    network.nbctl("wait-until", "Logical_Switch_Port", "web1", "up=false")


def test_ovsdb_client_sees_the_same_at_the_relay_and_at_the_source(network: RelayedNetwork) -> None:
    network.nbctl("ls-add", "web", "--", "lsp-add", "web", "web1")

    def said(command: str, server: Server) -> str:
        return run("ovsdb-client", command, server.remote, "OVN_Northbound")

    for command in ("dump", "get-schema"):
        there = said(command, network.source)
        # A relay of C's may pass an answer on before it shows what that is about.
        wait_for(
            lambda command=command, there=there: said(command, network.server) == there,
            f"the same {command} at the relay",
        )


def test_a_relay_listens_where_its_database_says_as_ovn_ctl_starts_it() -> None:
    """Before the relay knows the database, there is nothing that could be said of its columns."""
    options = ["--remote=db:OVN_Southbound,SB_Global,connections"]
    for name in ("private-key", "certificate", "ca-cert", "ssl-ciphers"):
        options.append(f"--{name}=db:OVN_Southbound,SSL,{name.replace('-', '_')}")
    with Network() as network:
        network.sbctl("set-connection", "ptcp:0:127.0.0.1")
        relay = relay_of(KIND, network.server, databases=["OVN_Southbound"], options=options)
        network.others.append(relay)
        sbctl = (
            "ovn-sbctl",
            f"--db=tcp:127.0.0.1:{relay.port}",
            "--no-leader-only",
            "--timeout=60",
        )
        run(*sbctl, "chassis-add", "hv1", "geneve", "192.0.2.1")
        assert "hv1" in network.sbctl("show")
        assert "bound_port" not in run(*sbctl, "list", "connection")
