"""What a node logs: objects that programs read, each with its request's id."""

from __future__ import annotations

import json
import logging

import httpx

from api_in_process import platform
from interop.programs import wait_for
from ovncp.api import app, logs
from platform_node import Node


def lines(node: Node) -> list[dict]:
    return [json.loads(line) for line in node.log.splitlines()]


def of(request_id: str, node: Node, n_lines: int) -> list[dict]:
    """The lines with an id, of which there are so many, the last soon after the answer."""

    def found() -> list[dict]:
        return [line for line in lines(node) if line.get("request_id") == request_id]

    wait_for(lambda: len(found()) >= n_lines, "what is logged")
    assert len(found()) == n_lines
    return found()


def test_all_that_a_request_leads_to_has_its_id(server):
    with Node(server.remote, server.remote, "--log-level=debug", env={"NODE_ID": "n"}) as node:
        answer = node.client.post("/switches", json={"name": "s"}, headers={"x-request-id": "mine"})
        assert answer.headers["x-request-id"] == "mine"
        audit, request = of("mine", node, 2)
        assert audit["logger"] == "ovncp.audit" and audit["audit"]["after"]["name"] == "s"
        seconds = request.pop("seconds")
        assert 0 < seconds < 60 and request.pop("time").endswith("+00:00")
        assert request == {
            "level": "info",
            "logger": "ovncp.api.requests",
            "message": "POST /api/v1/switches: 201",
            "node": "n",
            "request_id": "mine",
            "method": "POST",
            "path": "/api/v1/switches",
            "route": "/api/v1/switches",
            "status": 201,
            "address": "127.0.0.1",
            "principal": "anonymous",
        }
        answer = node.client.get("/switches/none")
        (refused,) = of(answer.headers["x-request-id"], node, 1)
        assert refused["status"] == 404 and answer.json()["request_id"] == refused["request_id"]
        answer = node.client.get("/switches/s")
        (read,) = of(answer.headers["x-request-id"], node, 1)
        assert (read["level"], refused["level"]) == ("debug", "info")
        assert {line["node"] for line in lines(node)} == {"n"}


async def test_what_broke_is_answered_and_logged(server, caplog):
    async with platform(server) as node:
        application = app.make(node)
        del node.graph
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            answer = await client.get("/api/v1/topology")
        assert answer.status_code == 500
        problem = answer.json()
        assert problem["type"] == "urn:ovncp:problem:error"
        assert problem["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "graph" not in answer.text
        broke = next(r for r in caplog.records if r.exc_info)
        assert broke.name == "ovncp.api.requests" and "graph" in str(broke.exc_info[1])


def test_an_object_is_one_line_whatever_it_has(capsys):
    logger = logging.Logger("ovncp.x")
    handler = logging.StreamHandler()
    handler.setFormatter(logs.formatter("json", "n"))
    logger.addHandler(handler)
    try:
        raise ValueError("a\nb")
    except ValueError:
        logger.exception("two\nlines", extra={"fields": {"odd": object(), "n": 1}})
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told["message"] == "two\nlines" and told["exception"].endswith("ValueError: a\nb")
    assert told["odd"].startswith("<object") and told["n"] == 1
