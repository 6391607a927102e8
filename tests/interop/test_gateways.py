"""OVN's programs at the edges of a network: between zones (`ovn-ic`), and to VTEP switches."""

from __future__ import annotations

from pathlib import Path

from interop.programs import KIND, VTEP_SCHEMA, Network, wait_for
from servers import Server, run

IC_NB_SCHEMA = Path("/usr/share/ovn/ovn-ic-nb.ovsschema")
IC_SB_SCHEMA = Path("/usr/share/ovn/ovn-ic-sb.ovsschema")


def join(network: Network, zone: str, central: Server) -> None:
    """Make the network an availability zone of those that `central` connects."""
    network.northd()
    network.nbctl("set", "NB_Global", ".", f"name={zone}")
    nb, ic = network.server.remote, central.remote
    network.start("ic", "ovn-ic", f"--ovnnb-db={nb}", f"--ovnsb-db={nb}",
                  f"--ic-nb-db={ic}", f"--ic-sb-db={ic}")  # fmt: skip


def test_a_transit_switch_is_in_every_zone(network: Network) -> None:
    databases = [("ic_nb", IC_NB_SCHEMA), ("ic_sb", IC_SB_SCHEMA)]
    with Server(KIND, databases) as central, Network() as other:
        for each, zone in ((network, "east"), (other, "west")):
            join(each, zone, central)
        ic_nb = ("ovn-ic-nbctl", f"--db={central.remote}", "--timeout=60")
        run(*ic_nb, "ts-add", "transit")
        for each in (network, other):
            each.nbctl("wait-until", "logical_switch", "transit")
            each.nbctl("wait-until", "logical_switch", "transit", "other_config:interconn-ts!=[]")
        zones = run("ovn-ic-sbctl", f"--db={central.remote}", "--timeout=60", "show")
        assert "east" in zones and "west" in zones
        run(*ic_nb, "ts-del", "transit")
        wait_for(lambda: "transit" not in other.nbctl("ls-list"), "its end")


def test_a_vtep_switch_learns_what_ovn_knows(network: Network) -> None:
    with Server(KIND, [("vtep", VTEP_SCHEMA)]) as switch:
        vtep = ("vtep-ctl", f"--db={switch.remote}", "--timeout=60")
        run(*vtep, "add-ps", "ps0", "--", "set", "physical_switch", "ps0", "tunnel_ips=192.0.2.1",
            "--", "add-port", "ps0", "port0", "--", "add-ls", "web", "--",
            "bind-ls", "ps0", "port0", "100", "web")  # fmt: skip
        network.northd()
        network.nbctl("ls-add", "web", "--", "lsp-add", "web", "gateway", "--",
                      "lsp-set-type", "gateway", "vtep", "--", "lsp-set-addresses", "gateway",
                      "unknown", "--", "lsp-set-options", "gateway", "vtep-physical-switch=ps0",
                      "vtep-logical-switch=web")  # fmt: skip
        network.nbctl("--wait=sb", "lsp-add", "web", "web1", "--",
                      "lsp-set-addresses", "web1", "00:00:00:00:01:01 10.0.1.11")  # fmt: skip
        network.start("vtep", "ovn-controller-vtep", f"--vtep-db={switch.remote}",
                      f"--ovnsb-db={network.server.remote}")  # fmt: skip
        network.sbctl("wait-until", "Port_Binding", "gateway", "chassis!=[]")
        network.sbctl("chassis-add", "hv1", "vxlan", "192.0.2.2", "--", "lsp-bind", "web1", "hv1")
        learned = "00:00:00:00:01:01 -> vxlan_over_ipv4/192.0.2.2"
        wait_for(lambda: learned in run(*vtep, "list-remote-macs", "web"), "the address")
