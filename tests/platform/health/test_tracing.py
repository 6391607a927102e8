"""Traces, as a collector receives them: OTLP over HTTP, decoded."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from engines import free_port
from platform_node import Node


class Collector:
    """Receives traces; `resources` and `spans` are what it was told."""

    def __init__(self) -> None:
        self.resources: list[dict[str, str]] = []
        self.spans: list[dict] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                assert self.headers["content-type"] == "application/x-protobuf"
                collector.take(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, body: bytes) -> None:
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(values(of_resource.resource.attributes))
            for of_scope in of_resource.scope_spans:
                self.spans += [
                    {
                        "name": span.name,
                        "id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "trace": span.trace_id.hex(),
                        "kind": span.kind,
                        "status": span.status.code,
                        **values(span.attributes),
                    }
                    for span in of_scope.spans
                ]


def values(attributes) -> dict:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, args=(0.02,))
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_requests_are_spans_of_their_callers_traces(server, collector):
    env = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_SERVICE_NAME": "network-api",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "NODE_ID": "n",
    }
    caller = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    with Node(server.remote, server.remote, env=env) as node:
        node.post("/switches", {"name": "s"}, **caller)
        answer = node.client.get("/switches/none", headers=caller)
        node.get("/switches")  # which no caller wants to be traced
        logged = node.log
    # All is sent before a node ends.
    assert collector.resources[0]["service.name"] == "network-api"
    assert collector.resources[0]["service.instance.id"] == "n"
    spans = {span["name"]: span for span in collector.spans}
    assert spans.keys() == {"POST /api/v1/switches", "commit", "GET /api/v1/switches/{row}"}
    assert {span["trace"] for span in collector.spans} == {TRACE}
    post = spans["POST /api/v1/switches"]
    assert post["http.response.status_code"] == 201 and post["kind"] == 2
    assert (post["parent"], spans["commit"]["parent"]) == (CALLER, post["id"])
    assert f'"trace_id":"{TRACE}"' in logged
    refused = spans["GET /api/v1/switches/{row}"]
    assert refused["parent"] == CALLER and refused["http.route"] == "/api/v1/switches/{row}"
    assert refused["ovncp.request_id"] == answer.headers["x-request-id"]
    assert refused["url.path"] == "/api/v1/switches/none"


def test_nobody_waits_for_a_collector_that_is_away(server):
    env = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with Node(server.remote, server.remote, env=env) as node:
        node.get("/switches")
        node.process.terminate()
        assert node.process.wait(20) == 0
        assert "Traceback" not in node.log
