"""Traces, where OpenTelemetry's variables name a place to send them to; nothing otherwise.

Each request is a span, a child of the caller's if it says so in `traceparent` (W3C Trace Context);
what takes long within it is a step. The SDK reads all of its own variables: `OTEL_SERVICE_NAME`,
`OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS` and their like.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import NoOpTracer, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from ovncp import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PLACES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""The variables that say where to."""

_PATIENCE_SECONDS = 2.0
_FROM_CALLERS = (b"traceparent", b"tracestate")


class Request:
    """The span of one request, as far as there is one."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def answered(self, method: str, route: str, status: int) -> None:
        """Note what came of it."""
        if not self._span.is_recording():
            return
        self._span.update_name(f"{method} {route}")
        self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(trace.StatusCode.ERROR)


_UNTRACED = nullcontext(Request(trace.INVALID_SPAN))


class Spans:
    """What a node tells of the requests that it answers; nothing without a provider."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer: Tracer = NoOpTracer()
        if provider is not None:
            self._tracer = provider.get_tracer("ovncp", __version__)

    def request(self, scope: Scope) -> AbstractContextManager[Request]:
        """A block that answers a request."""
        return _UNTRACED if self._provider is None else self._traced(scope)

    @contextmanager
    def _traced(self, scope: Scope) -> Iterator[Request]:
        caller = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _FROM_CALLERS
        }
        attributes = {
            "http.request.method": scope["method"],
            "url.path": scope["path"],
            "url.scheme": scope["scheme"],
            "ovncp.request_id": scope["request_id"],
        }
        with self._tracer.start_as_current_span(
            scope["method"],
            context=TraceContextTextMapPropagator().extract(caller),
            kind=SpanKind.SERVER,
            attributes=attributes,
        ) as span:
            yield Request(span)

    def step(self, name: str) -> AbstractContextManager[trace.Span]:
        """A block that is a part of answering a request."""
        return self._tracer.start_as_current_span(name)

    async def close(self) -> None:
        """Send what there is still to send, for a few seconds at most."""
        if self._provider is not None:
            ending = threading.Thread(target=self._provider.shutdown, daemon=True)
            ending.start()
            await asyncio.to_thread(ending.join, _PATIENCE_SECONDS)


def open_spans(environment: Mapping[str, str], node_id: str) -> Spans:
    """Where `environment` says, if it says so."""
    if not any(environment.get(name) for name in PLACES):
        return Spans()
    # Imported late: it is not needed by most.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {
        "service.name": "ovncp",
        "service.version": __version__,
        "service.instance.id": node_id,
    }
    # What the variables say of it counts more.
    resource = Resource.create(about).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider)
