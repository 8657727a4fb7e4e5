"""A collector of OpenTelemetry: an HTTP server in the test's process that decodes what is posted to it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from threading import Thread
from typing import Any

from attrs import define, field

from harn.testing.server import wait_until

NEEDS_OTEL = (
    None
    if "CI" in os.environ or find_spec("opentelemetry.sdk") is not None
    else "the extra otel is not installed: pip install '.[test]'"
)
"""Why a test that needs the SDK is skipped; in CI it is not."""


@define
class Posted:
    """One request: its path, its headers (names in lower case), and its message."""

    path: str
    headers: dict[str, str]
    message: Any


class Collector:
    """
    Takes posts of OTLP, in threads of its own.

    :ivar status: what it answers.
    :ivar posted: the requests, in order.
    """

    def __init__(self) -> None:
        self.status = 200
        self.posted: list[Posted] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            """Passes posts to the collector."""

            def do_POST(self) -> None:
                """Handle a post."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                collector.take(self.path, headers, body)
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Decode a message."""
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        kinds: dict[str, Any] = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.posted.append(Posted(path, headers, kinds[path].FromString(body)))

    def wait_for(self, found: Callable[[], Any], what: str) -> Any:
        """Wait until something is found in what was posted; return it."""
        return wait_until(found, what, 60.0)

    def spans(self) -> list[SeenSpan]:
        """Return all spans, in the order in which they came."""
        return [
            SeenSpan.of(span)
            for posted in self.posted
            if posted.path == "/v1/traces"
            for resource in posted.message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> dict[str, Any]:
        """Return the metrics by name, each as it came last."""
        return {
            metric.name: metric
            for posted in self.posted
            if posted.path == "/v1/metrics"
            for resource in posted.message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@define(kw_only=True)
class SeenSpan:
    """A span as the collector sees it; ids as hexadecimal digits, times as seconds."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    tracestate: str
    start: float
    end: float
    code: int
    description: str
    attributes: dict[str, Any] = field(factory=dict)
    links: list[tuple[str, str]] = field(factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(factory=list)

    @classmethod
    def of(cls, span: Any) -> SeenSpan:
        """Read a span of OTLP."""
        return cls(
            name=span.name,
            kind=span.kind,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            tracestate=span.trace_state,
            start=span.start_time_unix_nano // 1000 / 1e6,
            end=span.end_time_unix_nano // 1000 / 1e6,
            code=span.status.code,
            description=span.status.message,
            attributes=attributes_of(span.attributes),
            links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
            events=[(event.name, attributes_of(event.attributes)) for event in span.events],
        )


def attributes_of(pairs: Any) -> dict[str, Any]:
    """Return attributes as plain values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
