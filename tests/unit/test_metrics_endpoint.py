"""The metrics' HTTP: any client gets an answer or is parted with, and none gets in others' way."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ovncp.server import metrics_endpoint
from ovncp.server.configuration import ConfigurationError
from ovncp.server.metrics_endpoint import MetricsEndpoint

TEXT = "ovncp_x 1\n"


async def text() -> str:
    return TEXT


@asynccontextmanager
async def endpoint(caplog: pytest.LogCaptureFixture, made: str = TEXT) -> AsyncIterator[int]:
    async def make() -> str:
        return made

    caplog.set_level(logging.INFO)
    served = MetricsEndpoint("127.0.0.1:0", make)
    await served.start()
    port = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", caplog.text)
    assert port is not None
    try:
        yield int(port[1])
    finally:
        await served.close()


async def ask(port: int, request: bytes, *, eof: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if eof:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200, TEXT),
        (b"GET /metrics?x=y HTTP/1.0\r\n\r\n", 200, TEXT),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", 200, ""),
        (b"GET / HTTP/1.1\r\n\r\n", 404, "the metrics are at /metrics\n"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405, "only GET and HEAD are allowed\n"),
        (b"\x16\x03\x01\x02\x00 what?\r\n\r\n", 400, "this is no HTTP request\n"),
        (b'{"method":"echo","params":[],"id":1}\r\n\r\n', 400, "this is no HTTP request\n"),
        (b"GET /metrics\r\n\r\n", 400, "this is no HTTP request\n"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, 431, "the request is too long\n"),
    ],
)
async def test_requests(
    caplog: pytest.LogCaptureFixture, request_: bytes, status: int, body: str
) -> None:
    async with endpoint(caplog) as port:
        answer = (await ask(port, request_)).decode()
    head, _, rest = answer.partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ") and rest == body
    length = re.search(r"Content-Length: (\d+)", head)
    assert (length is not None and int(length[1]) == len(body)) or request_.startswith(b"HEAD")
    if status == 200:
        assert "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in head


async def test_a_request_without_an_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_endpoint, "PATIENCE_SECONDS", 0.2)
    async with endpoint(caplog) as port:
        assert b" 400 " in await ask(port, b"GET /metrics HTT", eof=True)
        assert b" 408 " in await ask(port, b"GET /metrics HTT")


async def test_a_long_answer_arrives_whole_though_the_client_has_no_more_to_say(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = "ovncp_x 1\n" * 1_000_000
    async with endpoint(caplog, made) as port:
        answer = await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n", eof=True)
    assert answer.endswith(b"\r\n\r\n" + made.encode())


async def is_turned_away(port: int) -> bool:
    try:
        return b" 503 " in await ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    except ConnectionError:
        return True  # It was closed before the request was read.


async def test_clients_that_do_not_read_are_bounded_and_parted_with(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_endpoint, "PATIENCE_SECONDS", 4.0)
    monkeypatch.setattr(metrics_endpoint, "MOST_CONNECTIONS", 3)
    async with endpoint(caplog, "x" * 10_000_000) as port:
        stalled = [await asyncio.open_connection("127.0.0.1", port, limit=1) for _ in range(3)]
        for _, writer in stalled:
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(60):
            while b" 503 " not in await ask(port, b""):
                pass  # The server has not heard all of them yet.
            while await is_turned_away(port):
                await asyncio.sleep(0.1)
        for _, writer in stalled:
            writer.transport.abort()


async def test_a_failure_is_logged_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> str:
        raise ZeroDivisionError

    caplog.set_level(logging.INFO)
    served = MetricsEndpoint("127.0.0.1:0", fail)
    await served.start()
    port = int(re.findall(r":(\d+)/metrics", caplog.text)[0])
    for _ in range(2):
        assert await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
    assert "ZeroDivisionError" in caplog.text
    await served.close()


@pytest.mark.parametrize("address", ["", "9476", ":9476", "a:b", "127.0.0.1:70000", "::1:80"])
def test_bad_addresses(address: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT is expected"):
        MetricsEndpoint(address, text)


async def test_ipv6(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    served = MetricsEndpoint("[::1]:0", text)
    await served.start()
    assert re.search(r"http://\[::1\]:\d+/metrics", caplog.text)
    await served.close()


async def test_a_host_that_does_not_exist() -> None:
    served = MetricsEndpoint("nowhere.invalid:9476", text)
    with pytest.raises(ConfigurationError, match=r"--metrics=nowhere.invalid:9476: \w+"):
        await served.start()
