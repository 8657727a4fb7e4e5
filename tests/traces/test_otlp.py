"""What the exporters of OpenTelemetry's SDK make of our spans and counts, as a collector decodes it."""

import os
import sys
from io import StringIO
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import harn
from harn.model.trace import TraceContext
from harn.observability.metrics import Metrics
from harn.traces.otlp import MetricExporter, SpanExporter, Target
from harn.traces.spans import CLIENT, Span
from tests.traces.collector import NEEDS_OTEL, Collector, attributes_of

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
A_SPAN = Span(
    name="handler",
    kind=CLIENT,
    trace_id=TRACE,
    span_id=SPAN,
    parent_id=PARENT,
    has_remote_parent=True,
    start=1_700_000_000.25,
    end=1_700_000_001.5,
    attributes={"harn.attempt": 2, "result.status": "failed", "result.duration_ms": 1.5},
    tracestate="a=b,c=d",
    error="handler_error",
    exception="handler_error",
    links=(TraceContext("f" * 32, "e" * 16),),
)


class ExporterTests(SynchronousTestCase):
    """`SpanExporter` and `MetricExporter`."""

    skip = NEEDS_OTEL

    def setUp(self) -> None:
        self.collector = Collector()
        self.addCleanup(self.collector.stop)

    def target(self, signal: str) -> Target:
        """Return the collector as a target."""
        return Target(url=f"{self.collector.url}/v1/{signal}", headers={"x-team": "blue"}, service_name="hooks")

    def export(self, exporter: Any, *items: Any) -> str | None:
        """Export a batch."""
        self.addCleanup(exporter.close)
        why: str | None = exporter.export(items)
        return why

    def test_a_span(self) -> None:
        """All of a span arrives, with who sends it and the headers that were asked for."""
        self.assertIsNone(self.export(SpanExporter(self.target("traces")), A_SPAN))
        (posted,) = self.collector.posted
        self.assertEqual((posted.headers["x-team"], posted.headers["content-type"]), ("blue", "application/x-protobuf"))
        resource = attributes_of(posted.message.resource_spans[0].resource.attributes)
        self.assertEqual((resource["service.name"], resource["service.version"]), ("hooks", harn.__version__))
        (span,) = self.collector.spans()
        self.assertEqual((span.name, span.kind, span.trace_id, span.span_id), ("handler", 3, TRACE, SPAN))
        self.assertEqual((span.parent_id, span.tracestate), (PARENT, "a=b,c=d"))
        self.assertEqual((span.start, span.end), (1_700_000_000.25, 1_700_000_001.5))
        self.assertEqual(span.attributes, A_SPAN.attributes)
        self.assertEqual((span.code, span.description), (2, "handler_error"))
        self.assertEqual(span.events, [("exception", {"exception.type": "handler_error"})])
        self.assertEqual(span.links, [("f" * 32, "e" * 16)])

    def test_refused(self) -> None:
        """What the collector answers is the reason; the exporter continues."""
        exporter = SpanExporter(self.target("traces"))
        self.collector.status = 400
        why = self.export(exporter, A_SPAN)
        assert why is not None
        self.assertIn("400", why)
        self.collector.status = 200
        self.assertIsNone(self.export(exporter, A_SPAN))
        exporter.close()
        self.assertEqual(self.export(exporter, A_SPAN), "the server ends")

    def test_nothing_secret_is_logged(self) -> None:
        """What the SDK cannot read of a variable with a token goes to no log."""
        said = StringIO()
        self.patch(sys, "stderr", said)
        self.addCleanup(os.environ.pop, "OTEL_EXPORTER_OTLP_HEADERS", None)
        os.environ["OTEL_EXPORTER_OTLP_HEADERS"] = "a=b,s3cret"
        exporter = SpanExporter(self.target("traces"))
        exporter.prepare()
        self.assertIsNone(self.export(exporter, A_SPAN))
        self.assertEqual((said.getvalue(), self.collector.posted[0].headers["a"]), ("", "b"))

    def test_metrics(self) -> None:
        """Counters, gauges and histograms arrive under the names that a scrape has, with their labels."""
        metrics = Metrics()
        metrics.trigger("gh", "github").received += 3
        metrics.http_request("/hooks/gh", "POST", 200, 0.02, 300)
        metrics.http_request("/hooks/gh", "POST", 200, 30.0, 1)
        metrics.gauge("harn_ready", "Ready.", lambda: 1.0)
        metrics.counter("harn_otlp_spans_sent", "Sent.", lambda: 5.0)
        exporter = MetricExporter(self.target("metrics"), 1_700_000_000.0)
        self.assertIsNone(self.export(exporter, (metrics.scrape(), 1_700_000_060.0)))
        seen = self.collector.metrics()
        (point,) = seen["harn_trigger_received_total"].sum.data_points
        self.assertEqual(
            (point.as_double, attributes_of(point.attributes)), (3.0, {"provider": "github", "trigger_id": "gh"})
        )
        self.assertEqual((point.start_time_unix_nano, point.time_unix_nano), (17 * 10**17, 1_700_000_060 * 10**9))
        total = seen["harn_trigger_received_total"].sum
        self.assertEqual((total.is_monotonic, total.aggregation_temporality), (True, 2))
        self.assertEqual(seen["harn_ready"].gauge.data_points[0].as_double, 1.0)
        self.assertEqual(seen["harn_otlp_spans_sent_total"].sum.data_points[0].as_double, 5.0)
        (point,) = seen["harn_http_request_duration_seconds"].histogram.data_points
        self.assertEqual((point.count, point.sum, seen["harn_http_request_duration_seconds"].unit), (2, 30.02, "s"))
        self.assertEqual((sum(point.bucket_counts), point.bucket_counts[2], point.bucket_counts[-1]), (2, 1, 1))
        self.assertEqual(len(point.bucket_counts), len(point.explicit_bounds) + 1)
        scraped = {line.split()[2] for line in metrics.render().decode().splitlines() if line.startswith("# TYPE")}
        self.assertLessEqual(set(seen), scraped)
