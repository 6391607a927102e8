"""TLS with certificates of ovs-pki, against OpenSSL's and the C server's own ends."""

import asyncio
import logging
import os
import shutil
import ssl
import subprocess
from dataclasses import replace

import pytest
import uvloop

from ovncp.server.handshakes import Handshakes
from ovncp.server.stream import Target, connect, listen, peer_name
from ovncp.server.tls import (
    TlsContexts,
    TlsError,
    TlsFiles,
    client_context,
    peer_common_name,
    protocol_range,
    server_context,
)

V = ssl.TLSVersion
SUITE = "TLS_CHACHA20_POLY1305_SHA256"


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy])
def event_loop_policy(request):
    return request.param()


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """Files of two ovs-pki authorities: `a` signed server and client, `b` signed stranger."""
    home = tmp_path_factory.mktemp("pki")
    authorities = {"a": ("server", "client"), "b": ("stranger",)}
    for authority, names in authorities.items():
        run_pki(home, authority, "init", "-B", "2048")
        for name in names:
            run_pki(home, authority, "-u", "-B", "2048", "req+sign", name, "switch")
        shutil.copy(home / authority / "switchca/cacert.pem", home / f"{authority}.pem")
    return home


def run_pki(home, authority, *arguments):
    command = ["ovs-pki", f"--dir={home}/{authority}", f"--log={home}/log", *arguments]
    subprocess.run(command, cwd=home, check=True, capture_output=True)


def files(home, name, **changes):
    made = TlsFiles(
        private_key=f"{home}/{name}-privkey.pem",
        certificate=f"{home}/{name}-cert.pem",
        ca_cert=f"{home}/a.pem",
    )
    return replace(made, **changes)


class Peer(asyncio.Protocol):
    """Echoes, and remembers who is at the other end."""

    def __init__(self):
        self.made = asyncio.Event()
        self.lost = asyncio.Event()
        self.received = asyncio.Queue()

    def connection_made(self, transport):
        self.transport = transport
        self.identity = peer_common_name(transport)
        self.name = peer_name(transport)
        self.made.set()

    def data_received(self, data):
        self.received.put_nowait(data)

    def connection_lost(self, error):
        self.lost.set()


class Server:
    """A pssl: listener with `files`, which may be replaced; `peers` are those it accepted."""

    def __init__(self, files):
        self.files = files
        self.peers = []

    async def __aenter__(self):
        self.listener = await listen(
            Target.parse("pssl:0:127.0.0.1"), self.peer, lambda: self.files, Handshakes(1)
        )
        self.target = Target.parse(f"ssl:127.0.0.1:{self.listener.port}")
        return self

    async def __aexit__(self, *_):
        await self.listener.close()

    def peer(self):
        self.peers.append(Peer())
        return self.peers[-1]

    async def accepts(self, client_files):
        """Whether a client with these files gets through."""
        known = len(self.peers)
        client = Peer()
        transport = await connect(self.target, lambda: client, lambda: client_files)
        transport.write(b"x")
        accepted = asyncio.create_task(self.received(known))
        lost = asyncio.create_task(client.lost.wait())
        await asyncio.wait([accepted, lost], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        through = accepted.done()
        for task in (accepted, lost):
            task.cancel()
        transport.abort()
        return through

    async def received(self, known):
        while all(peer.received.empty() for peer in self.peers[known:]):
            await asyncio.sleep(0.01)


async def test_both_ends_are_verified(pki, caplog):
    async with Server(files(pki, "server")) as server:
        assert await server.accepts(files(pki, "client"))
        (peer,) = server.peers
        assert peer.identity == "client"
        assert peer.name.startswith("ssl:127.0.0.1:")
        assert caplog.records == []
        assert not await server.accepts(files(pki, "stranger"))
        assert "SSL_accept: " in caplog.text
        with pytest.raises(ssl.SSLCertVerificationError):
            await server.accepts(files(pki, "client", ca_cert=f"{pki}/b.pem"))


async def test_what_is_no_tls_is_logged_and_harms_nobody(pki, caplog):
    async with Server(files(pki, "server")) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.listener.port)
        writer.write(b'{"id":1,"method":"echo","params":[]}')
        assert b"{" not in await asyncio.wait_for(reader.read(), 60), "an alert at most"
        writer.close()
        _, gone = await asyncio.open_connection("127.0.0.1", server.listener.port)
        gone.close()
        assert await server.accepts(files(pki, "client"))
        assert [record.levelname for record in caplog.records][:1] == ["WARNING"]


async def test_verification_can_be_turned_off(pki, caplog):
    async with Server(files(pki, "server", ca_cert="none")) as server:
        assert await server.accepts(files(pki, "stranger"))
        assert server.peers[0].identity is None
        assert "Peer certificate validation disabled (this is a security risk)" in caplog.text


async def test_changed_files_are_read_again(pki, tmp_path, caplog):
    for name in ("privkey", "cert"):
        shutil.copy(pki / f"server-{name}.pem", tmp_path / f"me-{name}.pem")
    mine = files(tmp_path, "me", ca_cert=str(pki / "a.pem"))
    async with Server(mine) as server:
        assert await server.accepts(files(pki, "client"))
        replace_file(pki / "stranger-privkey.pem", tmp_path / "me-privkey.pem")
        assert await server.accepts(files(pki, "client")), "key and certificate differ: old ones"
        assert [(r.name, r.levelname) for r in caplog.records] == [("ovncp.stream_ssl", "ERROR")]
        assert "me-privkey.pem" in caplog.text
        replace_file(pki / "stranger-cert.pem", tmp_path / "me-cert.pem")
        with pytest.raises(ssl.SSLCertVerificationError):
            await server.accepts(files(pki, "client"))
        assert await server.accepts(files(pki, "client", ca_cert="none"))


def replace_file(source, destination):
    shutil.copy(source, f"{destination}.new")
    os.replace(f"{destination}.new", destination)


async def test_other_files_are_used_from_the_next_connection_on(pki):
    async with Server(files(pki, "server")) as server:
        assert not await server.accepts(files(pki, "stranger"))
        server.files = files(pki, "server", ca_cert=f"{pki}/b.pem")
        assert await server.accepts(files(pki, "stranger"))


async def test_listener_without_files_refuses_until_it_has_them(pki, caplog):
    async with Server(TlsFiles()) as server:
        with pytest.raises(OSError):
            await server.accepts(files(pki, "client"))
        assert "Private key must be configured to use SSL" in caplog.text
        server.files = files(pki, "server")
        assert await server.accepts(files(pki, "client"))


@pytest.mark.parametrize("peer_sends_ca", [True, False])
async def test_bootstrap(pki, tmp_path, peer_sends_ca, caplog):
    caplog.set_level(logging.INFO)
    sent = str(pki / "a.pem") if peer_sends_ca else None
    mine = files(pki, "client", ca_cert=str(tmp_path / "ca.pem"), bootstrap=True)
    # Without a CA certificate of its own, OpenSSL does not complete the chain by itself.
    async with Server(files(pki, "server", ca_cert="none", peer_ca_cert=sent)) as server:
        if not peer_sends_ca:
            with pytest.raises(TlsError, match="obtained certificate is not self-signed"):
                await server.accepts(mine)
            assert not (tmp_path / "ca.pem").exists()
            return
        assert await server.accepts(mine)
    text = (pki / "a.pem").read_text()
    assert (tmp_path / "ca.pem").read_text() == text[text.index("-----BEGIN") :]
    assert f"successfully bootstrapped CA cert to {tmp_path}/ca.pem" in caplog.text


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        (None, (V.TLSv1_2, V.MAXIMUM_SUPPORTED)),
        ("TLSv1.2+", (V.TLSv1_2, V.MAXIMUM_SUPPORTED)),
        ("TLSv1.2", (V.TLSv1_2, V.TLSv1_2)),
        ("tlsv1.3", (V.TLSv1_3, V.TLSv1_3)),
        ("TLSv1-TLSv1.2", (V.TLSv1, V.TLSv1_2)),
        ("TLSv1,TLSv1.2", (V.TLSv1, V.TLSv1_2)),
        ("TLSv1.3 TLSv1.1,\tTLSv1.2", (V.TLSv1_1, V.TLSv1_3)),
    ],
)
def test_protocols(text, versions):
    assert protocol_range(text) == versions


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "SSL/TLS protocol settings invalid"),
        ("SSLv3", "SSLv3: SSL/TLS protocol not recognized"),
        ("TLSv1.2-", ": SSL/TLS protocol not recognized"),
        ("TLSv1.1-TLSv1.2-TLSv1.3", "TLSv1.1-TLSv1.2-TLSv1.3: SSL/TLS protocol not recognized"),
        ("TLSv1.2+,TLSv1.3", r"TLSv1.2\+: SSL/TLS protocol not recognized"),
    ],
)
def test_bad_protocols(text, error):
    with pytest.raises(TlsError, match=error):
        protocol_range(text)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"private_key": None}, "Private key must be configured to use SSL"),
        ({"certificate": None}, "Certificate must be configured to use SSL"),
        ({"ca_cert": None}, "CA certificate must be configured to use SSL"),
        ({"private_key": "/no/key"}, "private key /no/key, .*: No such file or directory"),
        ({"ca_cert": "/no/ca"}, "CA certificate /no/ca: No such file or directory"),
        ({"ca_cert": "/dev/null"}, "CA certificate /dev/null: "),
        ({"peer_ca_cert": "/no/ca"}, "No such file or directory"),
        ({"ciphers": "no-such"}, "--ssl-ciphers no-such: No cipher can be selected"),
        ({"ciphersuites": "no-such"}, "--ssl-ciphersuites no-such: "),
    ],
)
@pytest.mark.parametrize("context", [server_context, client_context])
def test_reasons(context, pki, changes, error):
    with pytest.raises(TlsError, match=error):
        context(files(pki, "server", **changes))


def test_ciphers_and_ciphersuites(pki):
    context = server_context(
        files(pki, "server", ciphers="ECDHE-RSA-AES256-GCM-SHA384", ciphersuites=SUITE)
    )
    names = {cipher["name"] for cipher in context.get_ciphers()}
    assert names == {"ECDHE-RSA-AES256-GCM-SHA384", SUITE}


@pytest.mark.parametrize(
    ("changes", "option", "agreed"),
    [
        ({}, "-tls1_3", "TLSv1.3"),
        ({"protocols": "TLSv1.2"}, "-tls1_3", None),
        ({"protocols": "TLSv1.3+"}, "-tls1_2", None),
        ({"protocols": "TLSv1.2"}, "-tls1_2", "TLSv1.2"),
        ({"ciphersuites": SUITE}, "-tls1_3", SUITE),
        ({"ciphersuites": SUITE}, "-ciphersuites=TLS_AES_128_GCM_SHA256", None),
    ],
)
async def test_settings_hold_against_openssl(pki, changes, option, agreed):
    async with Server(files(pki, "server", **changes)) as server:
        mine = files(pki, "client")
        process = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{server.listener.port}"),
            *("-key", mine.private_key, "-cert", mine.certificate, "-CAfile", mine.ca_cert),
            *(["-tls1_3", *option.split("=")] if "=" in option else [option]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        found = [line for line in out.decode().splitlines() if line.startswith("New, ")]
        assert found, out
        if agreed is None:
            assert "Cipher is (NONE)" in found[0]
        else:
            assert agreed in found[0]


async def test_real_client(pki):
    async with Server(files(pki, "server")) as server:
        mine = files(pki, "client")
        process = await asyncio.create_subprocess_exec(
            *("ovsdb-client", "-p", mine.private_key, "-c", mine.certificate),
            *("-C", mine.ca_cert, "list-dbs", str(server.target)),
            stdout=asyncio.subprocess.PIPE,
        )
        await asyncio.wait_for(server.received(0), 60)
        assert b"list_dbs" in await server.peers[0].received.get()
        server.peers[0].transport.write(b'{"id":0,"result":["a"],"error":null}')
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert out == b"a\n"


async def test_real_server(pki, tmp_path):
    """Connecting to the C server, whose CA certificate is had by bootstrap."""
    (tmp_path / "schema").write_text('{"name":"d","version":"1.0.0","tables":{}}')
    subprocess.run(["ovsdb-tool", "create", tmp_path / "db", tmp_path / "schema"], check=True)
    its, mine = files(pki, "server"), files(pki, "client", bootstrap=True)
    mine = replace(mine, ca_cert=str(tmp_path / "ca.pem"))
    process = await asyncio.create_subprocess_exec(
        *("ovsdb-server", "--remote=pssl:0:127.0.0.1", f"--unixctl={tmp_path}/ctl", "--no-chdir"),
        *("-p", its.private_key, "-c", its.certificate, "-C", its.ca_cert),
        *(f"--peer-ca-cert={its.ca_cert}", str(tmp_path / "db")),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
        client = Peer()
        target = Target.parse(f"ssl:127.0.0.1:{line.rsplit(' ', 1)[1].strip()}")
        transport = await connect(target, lambda: client, lambda: mine)
        transport.write(b'{"id":0,"method":"list_dbs","params":[]}')
        assert b'"d"' in await asyncio.wait_for(client.received.get(), 60)
        assert client.identity == "server"
        transport.close()
    finally:
        process.terminate()
        await process.wait()


def test_context_is_kept_while_nothing_changes(pki):
    contexts = TlsContexts()
    first = contexts.get(files(pki, "server"))
    assert contexts.get(files(pki, "server")) is first
    assert contexts.get(files(pki, "server", protocols="TLSv1.3")) is not first
