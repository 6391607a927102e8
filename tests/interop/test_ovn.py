"""OVN's own programs run on our databases without knowing the difference."""

from __future__ import annotations

import pytest

from interop.programs import Network, environment, wait_for
from interop.script import NETWORK
from servers import run


def flows_on(kind: str) -> list[str]:
    with Network(kind) as network:
        network.northd()
        # It makes up a prefix of MAC addresses before, over which the script's would be lost.
        network.nbctl("--wait=sb", "sync")
        network.build(NETWORK)
        return network.flows()


def test_one_script_ends_in_the_same_logical_flows_on_c_and_on_ours(kind: str) -> None:
    ours, theirs = flows_on(kind), flows_on("c")
    assert len(ours) > 400
    assert ours == theirs


def test_what_nbctl_writes_it_shows_again(network: Network) -> None:
    network.nbctl("ls-add", "web", "--", "lsp-add", "web", "web1")
    network.nbctl("lsp-set-addresses", "web1", "00:00:00:00:01:01 10.0.1.11")
    assert network.nbctl("lsp-get-addresses", "web1") == "00:00:00:00:01:01 10.0.1.11\n"
    shown = network.nbctl("show")
    assert "(web)" in shown and "port web1" in shown
    network.nbctl("ls-del", "web")
    assert network.nbctl("show") == ""
    assert network.nbctl("list", "Logical_Switch_Port") == ""


def test_nbctl_as_a_daemon_serves_many_commands_over_one_connection(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(network.directory).items():
        monkeypatch.setenv(name, value)
    control = network.nbctl("--pidfile", "--detach", "--log-file").strip()
    try:
        monkeypatch.setenv("OVN_NB_DAEMON", control)
        for number in range(20):
            run("ovn-nbctl", "ls-add", f"switch{number}")
        assert len(run("ovn-nbctl", "ls-list").splitlines()) == 20
    finally:
        run("ovn-appctl", "-t", control, "exit")


def test_the_standby_northd_takes_over_when_the_active_one_dies(network: Network) -> None:
    active = network.northd("first")
    network.nbctl("--wait=sb", "ls-add", "before")
    standby = network.northd("second")
    wait_for(lambda: "standby" in standby.appctl("status"), "the second northd to stand by")
    assert "active" in active.appctl("status")
    active.kill9()
    wait_for(lambda: "active" in standby.appctl("status"), "the standby to take over")
    network.nbctl("--wait=sb", "ls-add", "after")
    assert '"after"' in network.sbctl("dump-flows", "after")


def test_northd_resumes_when_the_server_comes_back(network: Network) -> None:
    northd = network.northd()
    network.nbctl("--wait=sb", "ls-add", "before")
    network.server.kill9()
    network.server.restart()
    network.nbctl("--wait=sb", "ls-add", "after")
    assert "after" in network.sbctl("dump-flows", "after")
    assert northd.process.poll() is None


def test_northd_has_nothing_to_complain_about(network: Network) -> None:
    northd = network.northd()
    network.build(NETWORK)
    assert [line for line in northd.complaints() if "json" in line or "ovsdb" in line] == []


def test_ovn_trace_follows_a_packet_through_the_flows(network: Network) -> None:
    network.northd()
    network.build(NETWORK)
    packet = (
        'inport=="web2" && eth.src==00:00:00:00:01:02 && eth.dst==00:00:00:00:ff:01 && ip.ttl==64'
        " && ip4.src==10.0.1.12 && ip4.dst==10.0.2.21"
    )
    traced = run("ovn-trace", f"--db={network.server.remote}", "--minimal", "web", packet)
    assert 'output("app1")' in traced


def test_sbctl_binds_and_releases_a_port(network: Network) -> None:
    network.northd()
    network.nbctl("--wait=sb", "ls-add", "web", "--", "lsp-add", "web", "web1")
    network.sbctl("chassis-add", "hv1", "geneve", "127.0.0.1")
    network.sbctl("lsp-bind", "web1", "hv1")
    network.nbctl("wait-until", "Logical_Switch_Port", "web1", "up=true")
    assert "Port_Binding web1" in network.sbctl("show").replace('"', "")
    network.sbctl("lsp-unbind", "web1")
    network.nbctl("wait-until", "Logical_Switch_Port", "web1", "up=false")
