"""TLS with `ovs-pki`'s certificates, and role-based access control as ovn-controllers meet it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.programs import KIND, NB_SCHEMA, SB_SCHEMA, VSWITCH_SCHEMA, Network, wait_for
from servers import Server, of_one_process, run

KINDS = (KIND, "c")


@pytest.fixture(scope="module")
def pki() -> Iterator[Path]:
    """Certificates `server`, `hv1` and `hv2` of one authority, and `stranger` of another."""
    directory = Path(tempfile.mkdtemp(prefix="pki-"))
    for authority, names in (("ca", ["server", "hv1", "hv2"]), ("other", ["stranger"])):
        command = ["ovs-pki", f"--dir={directory}/{authority}", "--force", "--unique"]
        options = {"cwd": directory, "check": True, "capture_output": True}
        subprocess.run([*command, "init"], **options)  # type: ignore[call-overload]
        for name in names:
            subprocess.run([*command, "req+sign", name, "switch"], **options)  # type: ignore[call-overload]
    yield directory
    shutil.rmtree(directory)


def identity(pki: Path, name: str) -> list[str]:
    """The options that make a program `name`, trusting the authority `ca`."""
    return [
        f"--private-key={pki}/{name}-privkey.pem",
        f"--certificate={pki}/{name}-cert.pem",
        f"--ca-cert={pki}/ca/switchca/cacert.pem",
    ]


def listing(pki: Path, name: str, port: int, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ovsdb-client", "--timeout=60", *identity(pki, name), *options, "list-dbs",
         f"ssl:127.0.0.1:{port}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_a_known_client_is_served_and_a_stranger_is_not(kind: str, pki: Path) -> None:
    options = ["--remote=pssl:0:127.0.0.1", *identity(pki, "server")]
    with Server(kind, [("nb", NB_SCHEMA)], options=options) as server:
        assert "OVN_Northbound" in listing(pki, "hv1", server.port).stdout
        assert listing(pki, "stranger", server.port).returncode != 0
        assert "OVN_Northbound" in listing(pki, "hv1", server.port).stdout


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_simulated_hypervisors_come_over_tls(kind: str, pki: Path) -> None:
    options = ["--remote=pssl:0:127.0.0.1", *identity(pki, "server")]
    with Server(kind, [("sb", SB_SCHEMA)], options=options) as server:
        command = [Path(sys.executable).with_name("ovncp"), "simulate", "--json", "--duration=1"]
        target = f"ssl:127.0.0.1:{server.port}"
        report = json.loads(run(*command, target, *identity(pki, "hv1")))
        assert report["run"]["delivered"] == report["run"]["expected"] > 0


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_protocols_that_are_not_listed_are_refused(kind: str, pki: Path) -> None:
    options = ["--remote=pssl:0:127.0.0.1", "--ssl-protocols=TLSv1.2", *identity(pki, "server")]
    with Server(kind, [("nb", NB_SCHEMA)], options=options) as server:
        openssl = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}"]
        openssl += ["-key", f"{pki}/hv1-privkey.pem", "-cert", f"{pki}/hv1-cert.pem"]
        for option, works in (("-tls1_2", True), ("-tls1_3", False)):
            done = subprocess.run([*openssl, option], capture_output=True, input="", text=True,
                                  check=False)  # fmt: skip
            assert ("Cipher is (NONE)" not in done.stdout) == works


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_a_client_is_told_why_the_handshake_fails(kind: str, pki: Path) -> None:
    options = ["--remote=pssl:0:127.0.0.1", "--ssl-ciphers=ECDHE-RSA-AES128-GCM-SHA256"]
    # With TLS 1.3 a client that is not trusted goes on before it is turned down.
    older, other = "--ssl-protocols=TLSv1.2", "--ssl-ciphers=ECDHE-RSA-AES256-GCM-SHA384"
    with Server(kind, [("nb", NB_SCHEMA)], options=options + identity(pki, "server")) as server:
        alert = listing(pki, "hv1", server.port, older, other).stderr
        assert "alert handshake failure" in alert
        wait_for(lambda: "no shared cipher" in server.log, "the reason")
        assert "alert unknown ca" in listing(pki, "stranger", server.port, older).stderr
        wait_for(lambda: "certificate verify failed" in server.log, "the reason")


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_certificates_named_in_the_database_are_read_from_it(kind: str, pki: Path) -> None:
    options = ["--remote=pssl:0:127.0.0.1"]
    for option in ("private-key", "certificate", "ca-cert"):
        options.append(f"--{option}=db:Open_vSwitch,SSL,{option.replace('-', '_')}")
    with Server(kind, [("conf", VSWITCH_SCHEMA)], options=options) as server:
        vsctl = ("ovs-vsctl", f"--db={server.remote}", "--no-wait")
        files = [option.split("=")[1] for option in identity(pki, "server")]
        run(*vsctl, "init", "--", "set-ssl", *files)
        wait_for(lambda: "Open_vSwitch" in listing(pki, "hv1", server.port).stdout, "a TLS session")


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_replaced_certificate_files_are_read_again(kind: str, pki: Path, tmp_path: Path) -> None:
    for owner in ("stranger", "server"):
        (tmp_path / owner).mkdir()
        for name in ("privkey", "cert"):
            shutil.copy(f"{pki}/{owner}-{name}.pem", tmp_path / owner / name)
    # Both at once: C that finds a new key and an old certificate takes neither, then or later.
    current, following = tmp_path / "current", tmp_path / "following"
    current.symlink_to("stranger")
    following.symlink_to("server")
    options = [
        "--remote=pssl:0:127.0.0.1", f"--private-key={current}/privkey",
        f"--certificate={current}/cert", f"--ca-cert={pki}/ca/switchca/cacert.pem",
    ]  # fmt: skip
    with Server(kind, [("nb", NB_SCHEMA)], options=options) as server:
        assert listing(pki, "hv1", server.port).returncode != 0
        following.rename(current)
        wait_for(
            lambda: "OVN_Northbound" in listing(pki, "hv1", server.port).stdout, "the new files"
        )


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_files_are_named_from_where_the_daemon_was_started(kind: str, pki: Path) -> None:
    options = [
        "--remote=pssl:0:127.0.0.1", "--private-key=key.pem", "--certificate=certificate.pem",
        "--ca-cert=ca.pem", "--detach", "--pidfile",
    ]  # fmt: skip
    with Server(kind, [("nb", NB_SCHEMA)], options=options, start=False) as server:
        for option, name in zip(identity(pki, "server"), ("key", "certificate", "ca"), strict=True):
            shutil.copy(option.partition("=")[2], server.directory / f"{name}.pem")
        run_in = {"cwd": server.directory, "env": server.env, "check": True}
        subprocess.run(server.command, **run_in)  # type: ignore[call-overload]
        assert "OVN_Northbound" in listing(pki, "hv1", server.port).stdout
        server.appctl("exit")


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_the_server_connects_to_a_manager_over_tls(kind: str, pki: Path) -> None:
    """`--bootstrap-ca-cert` on the way out, and a session the manager drives."""
    options = identity(pki, "server")
    with Server(kind, [("nb", NB_SCHEMA)], options=options) as server:
        port_file = server.directory / "port"
        manager = subprocess.Popen(
            ["ovsdb-client", "-vvlog:off", *identity(pki, "hv1"), "list-dbs", "pssl:0:127.0.0.1"],
            stdout=port_file.open("w"), stderr=(server.directory / "manager").open("w"), text=True,
        )  # fmt: skip
        try:
            said = server.directory / "manager"
            line = re.compile(r"listening on port (\d+)\n")
            wait_for(lambda: line.search(said.read_text()), "the manager")
            [port] = line.findall(said.read_text())
            server.appctl("ovsdb-server/add-remote", f"ssl:127.0.0.1:{port}")
            assert manager.wait(60) == 0
            assert "OVN_Northbound" in port_file.read_text()
        finally:
            manager.kill()
            manager.wait()


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_a_relay_reaches_its_source_over_tls(kind: str, pki: Path) -> None:
    options = ["--remote=pssl:0:127.0.0.1", *identity(pki, "server")]
    with Server(kind, [("nb", NB_SCHEMA)], options=options) as source:
        spec = f"relay:OVN_Northbound:ssl:127.0.0.1:{source.port}"
        with Server(of_one_process(KIND), options=[*identity(pki, "hv1"), spec]) as relay:
            wait = ("ovsdb-client", "--timeout=60", "wait")
            run(*wait, relay.remote, "OVN_Northbound", "connected")
            run("ovn-nbctl", f"--db={relay.remote}", "--no-leader-only", "ls-add", "web")
            assert "web" in run("ovn-nbctl", f"--db={source.remote}", "ls-list")


def enrol(network: Network, pki: Path) -> str:
    """A listener for ovn-controllers, whose address it returns."""
    network.northd()
    network.nbctl("--wait=sb", "ls-add", "web", "--", "lsp-add", "web", "web1")
    network.sbctl("set-connection", "role=ovn-controller", "pssl:0:127.0.0.1")
    network.server.appctl("ovsdb-server/add-remote", "db:OVN_Southbound,SB_Global,connections")
    wait_for(lambda: "listening on port" in network.server.log, "the listener")
    return f"ssl:127.0.0.1:{network.server.port}"


ATTEMPTS = [
    ("chassis-add", "hv1", "geneve", "192.0.2.1"),
    ("set", "chassis", "hv1", "external_ids:own=yes"),
    ("chassis-add", "hv9", "geneve", "192.0.2.9"),
    ("set", "chassis", "hv2", "external_ids:own=no"),
    ("chassis-del", "hv2"),
    ("set", "sb_global", ".", "external_ids:own=no"),
    ("set", "port_binding", "web1", "tunnel_key=99"),
    ("set", "port_binding", "web1", "chassis=[]"),
    ("set", "datapath_binding", "web", "tunnel_key=99"),
    ("destroy", "port_binding", "web1"),
    ("create", "mac_binding", "logical_port=web1", "ip=10.0.0.1", "datapath=@datapath"),
    ("list", "chassis"),
]


def attempts(kind: str, pki: Path) -> list[tuple[int, str]]:
    with Network(kind, options=identity(pki, "server")) as network:
        remote = enrol(network, pki)
        network.sbctl("chassis-add", "hv2", "geneve", "192.0.2.2")
        datapath = network.sbctl("--bare", "--columns=_uuid", "list", "datapath_binding").strip()
        answers = []
        for attempt in ATTEMPTS:
            words = [word.replace("@datapath", datapath) for word in attempt]
            done = subprocess.run(
                ["ovn-sbctl", f"--db={remote}", "--timeout=60", *identity(pki, "hv1"), *words],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            # Of two prohibited inserts, chance decides which the client sends first.
            message = re.sub(r"(into table \W*)\w+", r"\1TABLE", done.stderr)
            message = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", message)
            answers.append((done.returncode, re.sub(r"^\S+\|\d+\|", "", message)))
        return answers


def test_a_chassis_may_do_what_its_role_allows_and_no_more(pki: Path) -> None:
    ours, theirs = (attempts(kind, pki) for kind in KINDS)
    assert any("permission error" in message for _, message in theirs)
    assert list(zip(ATTEMPTS, ours, strict=True)) == list(zip(ATTEMPTS, theirs, strict=True))


def test_a_real_ovn_controller_works_within_its_role(pki: Path) -> None:
    with Network(options=identity(pki, "server")) as network:
        conf = network.vswitch_database()
        remote = enrol(network, pki)
        vsctl = ("ovs-vsctl", f"--db={conf.remote}", "--timeout=60")
        run(*vsctl, "--no-wait", "init")
        vswitchd = ("ovs-vswitchd", "--enable-dummy=override", "--disable-system", conf.remote)
        network.start("vswitchd", *vswitchd, directory=conf.directory)
        run(
            *vsctl, "set", "Open_vSwitch", ".", "external-ids:system-id=hv1",
            f"external-ids:ovn-remote={remote}", "external-ids:ovn-encap-type=geneve",
            "external-ids:ovn-encap-ip=127.0.0.1", "--", "add-br", "br-int", "--",
            "set", "bridge", "br-int", "fail-mode=secure", "datapath-type=dummy", "--",
            "add-port", "br-int", "vif", "--", "set", "Interface", "vif", "type=dummy",
            "external-ids:iface-id=web1",
        )  # fmt: skip
        controller = network.start(
            "controller", "ovn-controller", *identity(pki, "hv1"), conf.remote,
            directory=conf.directory,
        )  # fmt: skip
        network.nbctl("wait-until", "Logical_Switch_Port", "web1", "up=true")
        assert "permission error" not in controller.log
