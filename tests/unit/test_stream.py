"""Targets, listeners and connections, on asyncio's loop and on uvloop's."""

import asyncio
import errno
import logging
import os
import socket
import stat
import subprocess

import pytest
import uvloop

from engines import free_port
from ovncp.server import stream
from ovncp.server.handshakes import Handshakes
from ovncp.server.stream import Target, TargetError, connect, listen, peer_name
from ovncp.server.tls import TlsFiles


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy])
def event_loop_policy(request):
    return request.param()


class Echo(asyncio.Protocol):
    """Answers with what it gets."""

    def __init__(self) -> None:
        self.name = ""
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport):
        self.transport = transport
        self.name = peer_name(transport)

    def data_received(self, data):
        self.received.put_nowait(data)
        self.transport.write(data)


class Reader(Echo):
    """Only keeps what it gets."""

    def data_received(self, data):
        self.received.put_nowait(data)


class Made(list):
    """A factory that keeps the protocols that it made."""

    def __init__(self, protocol=Echo):
        super().__init__()
        self.protocol = protocol

    def __call__(self):
        self.append(self.protocol())
        return self[-1]


async def exchange(listener_target, client_target):
    """Sends a byte to and fro; the server's and the client's protocol."""
    servers, clients = Made(), Made(Reader)
    listener = await listen(Target.parse(listener_target), servers, TlsFiles, Handshakes(1))
    if listener.port is not None:
        client_target = client_target.format(port=listener.port)
    transport = await connect(Target.parse(client_target), clients, TlsFiles)
    transport.write(b"x")
    assert await asyncio.wait_for(clients[0].received.get(), 60) == b"x"
    return listener, servers[0], transport


@pytest.mark.parametrize(
    ("text", "kind", "host", "port"),
    [
        ("ptcp:", "ptcp", "0.0.0.0", 6640),
        ("ptcp:1", "ptcp", "0.0.0.0", 1),
        ("ptcp:0:127.0.0.1", "ptcp", "127.0.0.1", 0),
        ("pssl:6641:[::1]", "pssl", "::1", 6641),
        ("ptcp::127.0.0.1", "ptcp", "127.0.0.1", 6640),
        ("tcp:127.0.0.1", "tcp", "127.0.0.1", 6640),
        ("tcp:127.0.0.1:1", "tcp", "127.0.0.1", 1),
        ("ssl:[::1]:65535", "ssl", "::1", 65535),
        ("ssl:[fe80::1%eth0]", "ssl", "fe80::1%eth0", 6640),
        ("tcp:localhost:5", "tcp", "localhost", 5),
    ],
)
def test_targets(text, kind, host, port):
    target = Target.parse(text)
    assert (target.kind, target.host, target.port, str(target)) == (kind, host, port, text)
    assert target.is_passive == text.startswith("p")
    assert target.needs_probes


def test_unix_targets_are_relative_to_the_run_directory(monkeypatch):
    monkeypatch.setenv("OVS_RUNDIR", "/run/here")
    assert Target.parse("punix:a").path == "/run/here/a"
    assert Target.parse("unix:/a:b").path == "/a:b"
    assert not Target.parse("punix:a").needs_probes


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "Address family not supported by protocol"),
        ("foo", "Address family not supported by protocol"),
        ("foo:bar", "Address family not supported by protocol"),
        ("db:a,b,c", "Address family not supported by protocol"),
        ("ptcp:99999", 'bad port number "99999"'),
        ("ptcp:x", 'bad port number "x"'),
        ("ptcp:-1", 'bad port number "-1"'),
        ("tcp:127.0.0.1:x", 'bad port number "x"'),
        ("ptcp:0:127.0.0.1:5", "port must be specified"),
        ("tcp:::1", "port must be specified"),
        ("tcp:", "host must be specified"),
    ],
)
def test_bad_targets(text, error):
    with pytest.raises(TargetError) as caught:
        Target.parse(text)
    assert str(caught.value).endswith(f": {error}")


@pytest.mark.parametrize(
    ("host", "name"), [("127.0.0.1", "tcp:127.0.0.1:"), ("[::1]", "tcp:[::1]:")]
)
async def test_tcp(host, name, caplog):
    caplog.set_level(logging.INFO)
    listener, server, transport = await exchange(f"ptcp:0:{host}", f"tcp:{host}:{{port}}")
    assert server.name == f"{name}{transport.get_extra_info('sockname')[1]}"
    logged = [(r.name, r.levelname, r.getMessage()) for r in caplog.records if "ovncp" in r.name]
    assert logged == [("ovncp.socket_util", "INFO", f"0:{host}: listening on port {listener.port}")]
    for end in (server.transport, transport):
        sock = end.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await listener.close()
    transport.write(b"y")
    assert await asyncio.wait_for(server.received.get(), 60) == b"x"
    assert await asyncio.wait_for(server.received.get(), 60) == b"y", "connections stay"
    transport.close()
    with pytest.raises(ConnectionRefusedError):
        await connect(Target.parse(f"tcp:{host}:{listener.port}"), Echo, TlsFiles)


@pytest.mark.parametrize(
    ("host", "option"),
    [
        ("127.0.0.1", (socket.IPPROTO_IP, socket.IP_TOS)),
        ("[::1]", (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)),
    ],
)
async def test_packets_are_marked(host, option):
    made = Made(Reader)
    listener = await listen(Target.parse(f"ptcp:0:{host}"), made, TlsFiles, Handshakes(1), dscp=10)
    target = Target.parse(f"tcp:{host}:{listener.port}")
    transport = await connect(target, Reader, TlsFiles, dscp=46)
    transport.write(b"x")
    while not made or not made[0].name:
        await asyncio.sleep(0.01)
    ends = [end.get_extra_info("socket") for end in (made[0].transport, transport)]
    assert [end.getsockopt(*option) for end in ends] == [10 << 2, 46 << 2]
    transport.close()
    await listener.close()


async def test_a_host_that_does_not_resolve(caplog):
    with pytest.raises(OSError) as caught:
        await connect(Target.parse("tcp:nothing.invalid:1"), Echo, TlsFiles)
    assert caught.value.errno == errno.EAFNOSUPPORT
    assert "nothing.invalid: failed to resolve" in caplog.text


async def test_a_host_of_several_addresses_is_reached_at_any(monkeypatch):
    listener = await listen(Target.parse("ptcp:0:[::1]"), Echo, TlsFiles, Handshakes(1))
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))

    async def both(_):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", silent.getsockname()),
            (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", listener.port)),
        ]

    monkeypatch.setattr(stream, "_addresses", both)
    transport = await connect(Target.parse("tcp:several:1"), Reader, TlsFiles)
    assert transport.get_extra_info("peername")[0] == "::1"
    transport.close()
    silent.close()
    await listener.close()


async def test_chosen_port_is_not_logged(caplog):
    caplog.set_level(logging.INFO, "ovncp")
    target = Target.parse(f"ptcp:{free_port()}:127.0.0.1")
    listener = await listen(target, Echo, TlsFiles, Handshakes(1))
    assert [record for record in caplog.records if record.name.startswith("ovncp")] == []
    await listener.close()


async def test_port_that_is_taken(caplog):
    listener = await listen(Target.parse("ptcp:0:127.0.0.1"), Echo, TlsFiles, Handshakes(1))
    with pytest.raises(OSError) as caught:
        await listen(Target.parse(f"ptcp:{listener.port}:127.0.0.1"), Echo, TlsFiles, Handshakes(1))
    assert caught.value.errno == errno.EADDRINUSE
    assert f"{listener.port}:127.0.0.1: bind: Address already in use" in caplog.text
    await listener.close()


@pytest.mark.parametrize("length", [20, 150])
async def test_unix(length, tmp_path):
    directory = tmp_path / ("d" * (length - 10))
    directory.mkdir()
    path = directory / "sock"
    path.write_text("stale")
    mask = os.umask(0o022)
    try:
        listener, server, transport = await exchange(f"punix:{path}", f"unix:{path}")
    finally:
        os.umask(mask)
    assert server.name.startswith("unix#")
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o750, "as of the C server: 0770 less the umask"
    transport.close()
    await listener.close()
    assert not path.exists()


async def test_unix_peers_are_numbered(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_unix_numbers", iter(range(5)))
    made = Made()
    listener = await listen(Target.parse(f"punix:{tmp_path}/s"), made, TlsFiles, Handshakes(1))
    for _ in range(2):
        client = Made(Reader)
        transport = await connect(Target.parse(f"unix:{tmp_path}/s"), asyncio.Protocol, TlsFiles)
        transport.write(b"x")
        while len(made) == len(client) or not made[-1].name:
            await asyncio.sleep(0.01)
        transport.close()
    while len(made) < 2:
        await asyncio.sleep(0.01)
    assert [protocol.name for protocol in made] == ["unix#0", "unix#1"]
    await listener.close()


async def test_directory_that_is_not_there(caplog, tmp_path):
    with pytest.raises(FileNotFoundError):
        await listen(Target.parse(f"punix:{tmp_path}/no/s"), Echo, TlsFiles, Handshakes(1))
    assert f"{tmp_path}/no/s: binding failed: No such file or directory" in caplog.text


@pytest.mark.parametrize("kind", ["ptcp:0:127.0.0.1", "punix"])
async def test_real_client(kind, tmp_path):
    """ovsdb-client reaches a listener, and its request arrives whole."""
    made = Made(Reader)
    target = f"punix:{tmp_path}/s" if kind == "punix" else kind
    listener = await listen(Target.parse(target), made, TlsFiles, Handshakes(1))
    where = f"unix:{tmp_path}/s" if kind == "punix" else f"tcp:127.0.0.1:{listener.port}"
    process = subprocess.Popen(["ovsdb-client", "list-dbs", where], stdout=subprocess.PIPE)
    while not made or not made[0].name:
        await asyncio.sleep(0.01)
    assert b"list_dbs" in await asyncio.wait_for(made[0].received.get(), 60)
    made[0].transport.write(b'{"id":0,"result":["a"],"error":null}')
    out, _ = await asyncio.to_thread(process.communicate)
    assert out == b"a\n"
    await listener.close()


async def test_a_storm_of_connections_is_taken_in_a_few_at_a_time():
    made = Made()
    listener = await listen(Target.parse("ptcp:0:127.0.0.1"), made, TlsFiles, Handshakes(1))
    address = ("127.0.0.1", listener.port)
    clients = [socket.create_connection(address) for _ in range(200)]
    growth = [0]
    while len(made) < len(clients):
        before = len(made)
        await asyncio.sleep(0)
        growth.append(len(made) - before)
    assert max(growth) < len(clients) // 2
    await listener.close()
    for client in clients:
        client.sendall(b"x")
        assert await asyncio.to_thread(client.recv, 1) == b"x"  # those that are there stay
        client.close()
